"""The errors that chomp raises on purpose, each with the exit code it leads to."""

from collections.abc import Sequence


class ChompError(Exception):
    """A failure whose message is meant for the user: what is wrong, the value, and the fix."""

    exit_code = 1
    process: int | None = None
    """Number of the process that it ends, where that isn't the one with the console."""


class ConfigError(ChompError):
    """The configuration is wrong; `problems` holds one line for each mistake.

    Args:
        problems: one line each, beginning with the dotted path of the key.
    """

    exit_code = 2

    def __init__(self, problems: Sequence[str]):
        # A path, or what a library says, may hold newlines; a problem is one line all the same.
        self.problems = [problem.replace("\n", "\\n") for problem in problems]
        super().__init__("\n".join(self.problems))


class DataError(ChompError):
    """A dataset, file, document or tokenizer can't be used as given."""

    exit_code = 2


class NetworkError(DataError):
    """Data could not be had from elsewhere, in all the retries: the run failed, not its input."""

    exit_code = 1


class ResumeError(ChompError):
    """A run folder or checkpoint can't be started or resumed as asked."""

    exit_code = 2


class DamagedError(ResumeError):
    """A checkpoint isn't what was saved."""


class DiskError(ChompError):
    """A folder can't be written to, or its disk hasn't the room."""

    exit_code = 2


class ExportError(ChompError):
    """A model can't be exported as asked, or the export isn't the model."""

    exit_code = 2


class DivergedError(ChompError):
    """Training produced a loss or gradient that is not a finite number."""


class PeerError(ChompError):
    """Another process of the run has failed, and the others end with it.

    Args:
        message: what the other process said.
        exit_code: that of the other process.
    """

    def __init__(self, message: str, exit_code: int):
        self.exit_code = exit_code
        super().__init__(message)


class LostError(ChompError):
    """Another process of the run is gone without a word; starting the run again is the remedy."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h: try again


class Interrupted(Exception):
    """A stop was asked for while something long was going on; what it would have given is lost."""

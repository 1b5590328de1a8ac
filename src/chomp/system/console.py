"""Where lines for the user go."""

import logging
import sys


class Console:
    """Takes lines for the user, from any thread; this one shows nothing, others override `message`.

    Parts of a run that only have something to say take one of these; what else a run's own console
    can do is in `chomp.tracking.console`.
    """

    def message(self, text: str) -> None:
        """Show a line."""

    def warn(self, text: str) -> None:
        """Show a warning."""
        self.message(f"warning: {text}")


SILENT = Console()


class PrintConsole(Console):
    """Prints lines on standard output.

    Args:
        stderr: print on standard error instead.
        prefix: begins each line.
    """

    def __init__(self, *, stderr: bool = False, prefix: str = ""):
        self._stderr, self._prefix = stderr, prefix

    def message(self, text: str) -> None:
        """Print a line."""
        stream = sys.stderr if self._stderr else sys.stdout
        print(f"{self._prefix}{text}", file=stream, flush=True)


class LogConsole(Console):
    """Writes lines to a log, and shows them on another console too.

    Args:
        log: takes them, warnings as such.
        shown: shows them.
    """

    def __init__(self, log: logging.Logger, shown: Console = SILENT):
        self._log, self._shown = log, shown

    def message(self, text: str) -> None:
        """Log and show a line."""
        self._log.info("%s", text)
        self._shown.message(text)

    def warn(self, text: str) -> None:
        """Log and show a warning."""
        self._log.warning("%s", text)
        self._shown.warn(text)


LOG = LogConsole(logging.getLogger("chomp"))
"""For parts of chomp that are used without a console."""

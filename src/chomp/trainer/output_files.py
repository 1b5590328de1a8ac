"""The files of rows that a run appends to: metrics, samples, ledger."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chomp.checkpoint.checkpointer import SavedRun
from chomp.config import LoggingConfig
from chomp.errors import ResumeError
from chomp.run.ledger import Ledger
from chomp.run.run_folder import RunFolder
from chomp.system.atomic_file import remedy
from chomp.tracking import JsonLines, PlainConsole, RestoredLines, keep_rows_up_to, restore_lines


class OutputFiles:
    """The files, opened as they were at a checkpoint.

    Rows of later steps are taken out, to a file beside. Lines that had no room on their disk when
    the checkpoint was made are brought back from it; what is lost is said.

    Args:
        folder: of the run; None: another process has the files, and this one none.
        logging: the section.
        data: the fingerprint of the corpus, for the ledger.
        console: shows warnings.
        saved: the checkpoint; None: the run begins.
        branched: whether the checkpoint is another run's, which keeps the ledger up to there.

    Raises:
        ResumeError: a file can't be read or cut.
    """

    def __init__(
        self,
        folder: RunFolder | None,
        logging: LoggingConfig,
        data: Mapping[str, Any],
        console: PlainConsole,
        saved: SavedRun | None,
        *,
        branched: bool = False,
    ):
        self._console, self._saved = console, saved
        self.lines: JsonLines | None = None
        """Metrics and samples."""
        self.ledger: Ledger | None = None
        """None as well where `logging.ledger_every` is 0."""
        self.rows_of, self.took_out = 0, False
        """The step up to which there are metrics, and whether there were later ones."""
        if folder is None:
            return
        step = saved.progress.step if saved else 0
        unfinished = saved.meta["unfinished"] if saved else {"actions": [], "row": {}}
        metrics = folder.inside(logging.metrics_file).resolve()  # whose it is, is known
        # What the saved step still has to write was written before, if it was resumed before.
        self.rows_of = step - bool(unfinished["row"])
        self.took_out = keep_rows_up_to(self.rows_of, metrics)
        keep_rows_up_to(step - ("sample" in unfinished["actions"]), folder.samples)
        keep_rows_up_to(step, folder.ledger)
        rows = self._restored("metrics", metrics)
        samples = self._restored("samples", folder.samples)
        there = (rows.there, samples.there)
        self.lines = JsonLines(metrics, folder.samples, console, there)
        self.lines.bring_back(rows.lines, samples.lines)
        if logging.ledger_every:
            # A branch's ledger begins with its first step.
            found = self._restored("ledger", folder.ledger, kept=not branched)
            self.ledger = Ledger(folder.ledger, data, step, console, found.there, found.lines)

    def tails(self) -> dict[str, Any]:
        """Return what the files lack as long as their disk is full, for a checkpoint to keep."""
        tails = self.lines.tails() if self.lines else {}
        if self.ledger:
            tails |= {"ledger": self.ledger.tail()}
        return {name: tail.as_values() for name, tail in tails.items()}

    def __enter__(self) -> "OutputFiles":
        return self

    def __exit__(self, *_: object) -> None:
        """Write what waits for room. The tracker closes metrics and samples."""
        if self.ledger:
            self.ledger.close()

    def _restored(self, name: str, path: Path, *, kept: bool = True) -> RestoredLines:
        """Find what a file lacks of what it had at the checkpoint, and say what is lost."""
        saved = self._saved
        there = saved.meta.get("lines", {}).get(name) if saved and kept else None
        try:
            found = restore_lines(path, there)
        except OSError as error:
            raise ResumeError(
                f"{path} can't be used ({error.strerror}); {remedy(error)} and resume again"
            ) from error
        if found.lines:
            self._console.message(
                f"{path}: {len(found.lines)} line(s) that had no room are brought back"
            )
        if saved and found.lost and there:
            self._console.warn(
                f"{path}: {found.lost} of its {there['lines']} lines up to step "
                f"{saved.progress.step} are lost: they were never brought to the disk, or taken out"
            )
        return found

"""`chomp report`: runs on a page in a file."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chomp.errors import DiskError
from chomp.report.documents import documents_of
from chomp.report.page import render
from chomp.report.run_view import RunView
from chomp.system.atomic_file import remedy, replace_text


def write_report(runs: Sequence[Path], output: Path, *, texts: bool) -> list[RunView]:
    """Write the page of some runs, and return what it shows.

    Args:
        runs: their folders.
        output: the file.
        texts: read the first words of documents, for which the runs' data is opened.

    Raises:
        ResumeError: a folder holds no run.
        DiskError: the file can't be written.
    """
    runs = list(dict.fromkeys(runs))
    views = [RunView(path, name) for path, name in zip(runs, names_of(runs), strict=True)]
    shown = [_shown(view, texts=texts) for view in views]
    page = render({"made": time.time(), "live": False, "runs": shown, "others": []})
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        replace_text(output, page)
    except OSError as error:
        raise DiskError(
            f"{output} can't be written ({error.strerror}); {remedy(error)}, or give another "
            "--output"
        ) from error
    return views


def _shown(view: RunView, *, texts: bool) -> dict[str, Any]:
    return {
        "facts": view.facts(),
        "curves": view.curves(),
        "samples": view.samples(),
        "documents": documents_of(view, texts=texts),
    }


def names_of(runs: Sequence[Path]) -> list[str]:
    """Return the shortest ends of the paths that tell them apart."""
    paths = [path.resolve() for path in runs]
    names = []
    for path in paths:
        size = 1
        while size < len(path.parts) and any(
            other != path and other.parts[-size:] == path.parts[-size:] for other in paths
        ):
            size += 1
        names.append("/".join(path.parts[-size:]))
    return names

"""Samples of a run, read as they are appended."""

from pathlib import Path
from typing import Any

import numpy as np

from chomp.system.json_text import parse_json

MOST_SAMPLES = 1000
MOST_CHARACTERS = 4000


class SamplesFile:
    """The samples in a `samples.jsonl`, be it still written to.

    Of more than `MOST_SAMPLES` some are left out, evenly; of a longer text than `MOST_CHARACTERS`
    the prompt's beginning and the continuation's end.
    """

    def __init__(self, path: Path):
        self._path, self._seen = path, (0, 0)
        self.all = 0
        """How many the file holds."""
        self.samples: list[dict[str, Any]] = []

    def refresh(self) -> None:
        """Read the file again if it has changed.

        Raises:
            OSError: it can't be read.
        """
        if not self._path.is_file():
            return
        status = self._path.stat()
        seen = (status.st_size, status.st_mtime_ns)
        if seen == self._seen:
            return
        lines = [line for line in self._path.read_bytes().split(b"\n") if line.strip()]
        found = [sample for line in lines if (sample := _sample(line))]
        found.sort(key=lambda sample: sample["step"])
        chosen = np.unique(np.linspace(0, len(found) - 1, MOST_SAMPLES).astype(int))
        self.samples = [found[place] for place in chosen] if found else []
        self.all, self._seen = len(found), seen


def _sample(line: bytes) -> dict[str, Any] | None:
    """Return a sample; None for a line that holds none."""
    try:
        values = parse_json(line)
        step, prompt, text = (values[name] for name in ("step", "prompt", "continuation"))
    except (ValueError, KeyError, TypeError):
        return None
    if type(step) is not int or not isinstance(prompt, str) or not isinstance(text, str):
        return None
    return {
        "step": step,
        "prompt": prompt[-MOST_CHARACTERS:],
        "continuation": text[:MOST_CHARACTERS],
        "cut": max(len(prompt), len(text)) > MOST_CHARACTERS,
    }

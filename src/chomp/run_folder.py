"""The folder of a run and the files in it."""

import datetime
import json
from pathlib import Path
from typing import Any

from chomp.errors import ResumeError


class RunFolder:
    """Names the files of a run."""

    def __init__(self, path: Path):
        self.path = path
        self.original_config = path / "config_original.yaml"
        self.resolved_config = path / "config_resolved.json"
        self.tokenizer = path / "tokenizer"
        self.samples = path / "samples.jsonl"
        self.wandb_id = path / "wandb_id"

    def inside(self, name: str) -> Path:
        """Return `name` below the folder; an absolute path stays as it is."""
        return self.path / name

    def holds_run(self) -> bool:
        """Whether a run was started here."""
        return self.original_config.exists()

    def claim(self) -> None:
        """Make the folder for a new run.

        Raises:
            ResumeError: a run is there already, or something that is not a folder.
        """
        if self.holds_run():
            raise ResumeError(
                f"{self.path} already holds a run; add --resume latest to go on with it, "
                "or give another --run-dir"
            )
        if self.path.exists() and not self.path.is_dir():
            raise ResumeError(f"{self.path} is a file; give another --run-dir")
        self.path.mkdir(parents=True, exist_ok=True)

    def require_run(self) -> None:
        """Check that there is a run to resume, be it one that was killed while it started.

        Raises:
            ResumeError: there is none.
        """
        traces = (self.original_config, self.path / "checkpoints", self.path / "train.log")
        if not any(trace.exists() for trace in traces):
            raise ResumeError(
                f"{self.path} holds no run (no {self.original_config.name} there); "
                "check the path, or leave --resume out to start one"
            )

    def write_configs(self, original: str, resolved: dict[str, Any]) -> None:
        """Keep the user's own text and the resolved values."""
        self.original_config.write_text(original, encoding="utf-8")
        self.resolved_config.write_text(json.dumps(resolved, indent=2) + "\n", encoding="utf-8")


def new_run_path(root: Path = Path("runs"), now: datetime.datetime | None = None) -> Path:
    """Return a dated path under `root` that doesn't exist yet."""
    now = datetime.datetime.now() if now is None else now
    stem = now.strftime("%Y-%m-%d_%H-%M-%S")
    candidates = [root / stem, *(root / f"{stem}_{i}" for i in range(1, 1000))]
    return next(path for path in candidates if not path.exists())

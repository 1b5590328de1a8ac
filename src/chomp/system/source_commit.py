"""The commit that the running chomp was made from."""

import importlib.metadata
import subprocess
from pathlib import Path

from chomp.system.json_text import parse_json

ROOT = Path(__file__).parents[3]
"""Of a checkout; something else where chomp is installed."""
SECONDS = 5


def source_commit() -> str | None:
    """Return the commit of the checkout, or the one that pip installed; None if it isn't known.

    A checkout with changes that aren't committed has ` with changes` after it.
    """
    if (ROOT / ".git").exists() and (ROOT / "src" / "chomp").is_dir():
        commit = _git("rev-parse", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no", "src")
        return commit and commit + " with changes" * bool(changed)
    try:
        text = importlib.metadata.distribution("chomp").read_text("direct_url.json")
        return parse_json(text or "{}").get("vcs_info", {}).get("commit_id")
    except (importlib.metadata.PackageNotFoundError, ValueError, AttributeError):
        return None


def _git(*words: str) -> str | None:
    command = ["git", "-C", str(ROOT), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None

"""Trackers of metrics, samples and messages: metrics.jsonl, the console, and other services."""

from chomp.tracking.chosen import missing_trackers, open_trackers
from chomp.tracking.console import NoConsole, PlainConsole, RichConsole, open_console
from chomp.tracking.jsonl import JsonLines, keep_rows_up_to, log_to_file, rows_up_to
from chomp.tracking.registered import TrackedRun, register_tracker
from chomp.tracking.restored_lines import RestoredLines, restore_lines
from chomp.tracking.tracker import LatestMetrics, MultiTracker, NullTracker, Tracker
from chomp.tracking.wandb import require_wandb

__all__ = [
    "JsonLines",
    "LatestMetrics",
    "MultiTracker",
    "NoConsole",
    "NullTracker",
    "PlainConsole",
    "RestoredLines",
    "RichConsole",
    "TrackedRun",
    "Tracker",
    "keep_rows_up_to",
    "log_to_file",
    "missing_trackers",
    "open_console",
    "open_trackers",
    "register_tracker",
    "require_wandb",
    "restore_lines",
    "rows_up_to",
]

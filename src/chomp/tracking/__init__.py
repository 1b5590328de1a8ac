"""Trackers of metrics, samples and messages: metrics.jsonl, the console, Weights & Biases."""

from chomp.tracking.console import NoConsole, PlainConsole, RichConsole, open_console
from chomp.tracking.jsonl import JsonLines, keep_rows_up_to, log_to_file
from chomp.tracking.restored_lines import RestoredLines, restore_lines
from chomp.tracking.tracker import LatestMetrics, MultiTracker, Tracker
from chomp.tracking.wandb import WandbTracker, require_wandb

__all__ = [
    "JsonLines",
    "LatestMetrics",
    "MultiTracker",
    "NoConsole",
    "PlainConsole",
    "RestoredLines",
    "RichConsole",
    "Tracker",
    "WandbTracker",
    "keep_rows_up_to",
    "log_to_file",
    "open_console",
    "require_wandb",
    "restore_lines",
]

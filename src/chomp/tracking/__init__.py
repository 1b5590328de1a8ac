"""Where metrics, samples and messages go: metrics.jsonl, the console, Weights & Biases."""

from chomp.tracking.bring_back import BroughtBack, bring_back
from chomp.tracking.console import NoConsole, PlainConsole, RichConsole, open_console
from chomp.tracking.files import JsonLines, keep_rows_up_to, log_to_file
from chomp.tracking.tracker import LastValues, Sink, Tracker
from chomp.tracking.wandb_sink import WandbSink, require_wandb

__all__ = [
    "BroughtBack",
    "JsonLines",
    "LastValues",
    "NoConsole",
    "PlainConsole",
    "RichConsole",
    "Sink",
    "Tracker",
    "WandbSink",
    "bring_back",
    "keep_rows_up_to",
    "log_to_file",
    "open_console",
    "require_wandb",
]

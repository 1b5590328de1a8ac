"""The training step, the loop around it and its periodic work."""

from chomp.training.actions import (
    DeviceCheck,
    Evaluate,
    Log,
    Profile,
    Record,
    Row,
    Sample,
    Save,
    idle,
)
from chomp.training.divergence import Incident, LossWatch, Reaction, Rewind
from chomp.training.loop import Action, Ending, LoopResult, Moment, Window, perform, run_loop
from chomp.training.step import TrainStep, init_state, make_train_step
from chomp.training.stopwatch import Stopwatch
from chomp.training.utilization import Utilization

__all__ = [
    "Action",
    "DeviceCheck",
    "Ending",
    "Evaluate",
    "Incident",
    "Log",
    "LoopResult",
    "LossWatch",
    "Moment",
    "Profile",
    "Reaction",
    "Record",
    "Rewind",
    "Row",
    "Sample",
    "Save",
    "Stopwatch",
    "TrainStep",
    "Utilization",
    "Window",
    "idle",
    "init_state",
    "make_train_step",
    "perform",
    "run_loop",
]

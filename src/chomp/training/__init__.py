"""The training step, the loop around it and its periodic work."""

from chomp.training.actions import DeviceCheck, Evaluate, Log, Profile, Record, Row, Sample, Save
from chomp.training.loop import Action, Ending, LoopResult, Moment, run_loop
from chomp.training.step import TrainStep, init_state, make_train_step
from chomp.training.stopwatch import Stopwatch

__all__ = [
    "Action",
    "DeviceCheck",
    "Ending",
    "Evaluate",
    "Log",
    "LoopResult",
    "Moment",
    "Profile",
    "Record",
    "Row",
    "Sample",
    "Save",
    "Stopwatch",
    "TrainStep",
    "init_state",
    "make_train_step",
    "run_loop",
]

"""The training step, the loop around it and its periodic work."""

from chomp.trainer.callbacks.actions import (
    DeviceCheck,
    Evaluate,
    GenerateSample,
    LogMetrics,
    Profile,
    RecordBatch,
    Row,
    SaveCheckpoint,
    idle,
)
from chomp.trainer.loop import (
    Callback,
    LogWindow,
    LoopResult,
    StepInfo,
    StopReason,
    perform,
    run_loop,
)
from chomp.trainer.loss_monitor import Incident, LossMonitor, LossPolicy, Rewind
from chomp.trainer.mfu import MfuMeter
from chomp.trainer.step import TrainStep, init_state, make_train_step
from chomp.trainer.step_timer import StepTimer

__all__ = [
    "Callback",
    "DeviceCheck",
    "Evaluate",
    "GenerateSample",
    "Incident",
    "LogMetrics",
    "LogWindow",
    "LoopResult",
    "LossMonitor",
    "LossPolicy",
    "MfuMeter",
    "Profile",
    "RecordBatch",
    "Rewind",
    "Row",
    "SaveCheckpoint",
    "StepInfo",
    "StepTimer",
    "StopReason",
    "TrainStep",
    "idle",
    "init_state",
    "make_train_step",
    "perform",
    "run_loop",
]

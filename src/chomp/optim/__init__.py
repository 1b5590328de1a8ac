"""Learning rate, parameter groups and the optimizer."""

from chomp.optim.groups import Group, group_table, parameter_groups
from chomp.optim.optimizer import build_optimizer
from chomp.optim.schedule import schedules, warmup_cosine
from chomp.optim.stacks import LocalStacking

__all__ = [
    "Group",
    "LocalStacking",
    "build_optimizer",
    "group_table",
    "parameter_groups",
    "schedules",
    "warmup_cosine",
]

"""Learning rate, parameter groups and the optimizer."""

from chomp.optim.groups import Group, group_table, parameter_groups
from chomp.optim.optimizer import build_optimizer
from chomp.optim.schedule import decay_steps, warmup_cosine

__all__ = [
    "Group",
    "build_optimizer",
    "decay_steps",
    "group_table",
    "parameter_groups",
    "warmup_cosine",
]

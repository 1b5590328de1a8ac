"""Learning rate, parameter groups and the optimizer."""

from chomp.optim.groups import Group, group_table, parameter_groups
from chomp.optim.optimizer import Optimizer
from chomp.optim.schedule import RateAt, Rates, schedules
from chomp.optim.stacks import LocalStacking

__all__ = [
    "Group",
    "LocalStacking",
    "Optimizer",
    "RateAt",
    "Rates",
    "group_table",
    "parameter_groups",
    "schedules",
]

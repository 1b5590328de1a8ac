"""A finding of `chomp doctor`: what was looked at, how it is, and what to do about it."""

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from chomp.system.terminal import one_line


class State(StrEnum):
    """How something is."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


class Check(NamedTuple):
    """A finding."""

    name: str
    state: State
    found: str
    fix: str = ""
    """The remedy; empty if all is well."""


def ok(name: str, found: str) -> Check:
    """Make a finding that all is well."""
    return Check(name, State.OK, found)


def warning(name: str, found: str, fix: str) -> Check:
    """Make a finding that some runs suffer from."""
    return Check(name, State.WARNING, found, fix)


def problem(name: str, found: str, fix: str = "") -> Check:
    """Make a finding that keeps runs from starting; what was found may say the fix."""
    return Check(name, State.PROBLEM, found, fix)


def has_problem(checks: Sequence[Check]) -> bool:
    """Whether any of them is a problem."""
    return any(check.state is State.PROBLEM for check in checks)


def check_lines(checks: Sequence[Check]) -> list[str]:
    """Return a line for each, and one for each fix."""
    lines = []
    for check in checks:
        lines.append(one_line(f"{check.state:<8} {check.name:<10} {check.found}"))
        lines += [one_line(f"{'':<8} {'':<10} fix: {check.fix}")] * bool(check.fix)
    return lines

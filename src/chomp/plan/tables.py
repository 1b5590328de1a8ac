"""A plan for people to read."""

from collections.abc import Iterator
from dataclasses import asdict

from rich.table import Table

from chomp.parallel.collectives import Collective
from chomp.plan.accelerators import GB
from chomp.plan.plan import USABLE, Plan

MEMORY = {
    "parameters": "parameters",
    "optimizer": "optimizer state",
    "batch": "batch",
    "gradients": "gradients (float32)",
    "temporaries": "temporaries",
    "results": "metrics",
}


def headline(plan: Plan) -> str:
    """Return what the plan is for."""
    request = plan.request
    axes = " x ".join(f"{name} {size}" for name, size in plan.mesh.items())
    hosts = f" on {request.hosts} hosts" if request.hosts > 1 else ""
    return (
        f"{plan.parameters:,} parameters on {request.devices} devices{hosts} ({axes}); "
        f"{plan.tokens:,} tokens a step, {plan.sizes.rows} rows a microbatch"
    )


def memory_table(plan: Plan) -> Table:
    """Return what each device holds while a step runs."""
    table = _table("memory of a device", "GB")
    for name, size in asdict(plan.sizes.memory).items():
        table.add_row(MEMORY[name], _gb(size))
    table.add_section()
    table.add_row("together", _gb(plan.sizes.memory.total))
    table.add_row("allowed", _gb(plan.request.limit))
    return table


def collectives_table(plan: Plan) -> Table:
    """Return what the devices send each other in a step, alike collectives in one row."""
    table = _table("collectives of a step", "devices", "where", "times", "GB sent by a device")
    alike: dict[tuple[str, int, str], list[Collective]] = {}
    for one in plan.sizes.collectives:
        alike.setdefault((one.kind, one.size, _where(one)), []).append(one)
    for (kind, size, where), group in alike.items():
        times = sum(one.times for one in group)
        sent = sum(one.times * one.sent for one in group)
        table.add_row(kind, str(size), where, f"{times:,}", _gb(sent))
    table.add_section()
    sent = sum(one.times * one.sent for one in plan.sizes.collectives)
    table.add_row("together", "", "", "", _gb(sent))
    return table


def estimates_table(plan: Plan) -> Table:
    """Return how fast the step would be."""
    table = _table(
        f"estimate (mfu {plan.mfu:.2g})",
        "multiplies",
        "sends",
        "tokens/s, one after the other",
        "tokens/s, both at once",
        "memory",
    )
    for accelerator, found in zip(plan.request.accelerators, plan.estimates, strict=True):
        fits = plan.sizes.memory.total <= USABLE * accelerator.memory
        memory = f"{'fits' if fits else 'does not fit'} {accelerator.memory / GB:.0f} GB"
        if found is None:
            row = ["", "give --network-gbps", "", ""]
        else:
            seconds = (f"{found.compute:.3g} s", f"{found.communication:.3g} s")
            row = [*seconds, f"{found.slow:,.0f}", f"{found.fast:,.0f}"]
        table.add_row(accelerator.name, *row, memory)
    return table


def closing_lines(plan: Plan) -> Iterator[str]:
    """Yield the rest."""
    limit = f"{plan.request.limit / GB:.1f} GB"
    yield f"model FLOPs        {plan.flops:.4g} a step"
    yield f"checkpoint         {_gb(plan.checkpoint)} GB"
    yield f"this step          {'fits' if plan.fits else 'does not fit'} {limit} a device"
    if not plan.request.search:
        pass
    elif plan.largest is None:
        yield f"largest microbatch none: one row on each device does not fit {limit}"
    else:
        yield (
            f"largest microbatch train.batch_size={plan.largest.rows}, "
            f"{_gb(plan.largest.memory.total)} GB a device"
        )
    if plan.widened:
        yield "note               bfloat16 is partly counted as float32: these are upper bounds"
    yield f"compiled in        {plan.sizes.seconds:.1f} s, at most {_gb(plan.peak_rss)} GB here"


def _where(one: Collective) -> str:
    if not one.trips:
        return "once"
    return "loop of " + " x ".join("?" if count is None else str(count) for count in one.trips)


def _table(*titles: str) -> Table:
    table = Table()
    for place, title in enumerate(titles):
        table.add_column(title, no_wrap=True, justify="left" if place == 0 else "right")
    return table


def _gb(size: float) -> str:
    """Return bytes as 10^9 of them, with what counts of small amounts."""
    return f"{size / GB:.3f}" if size >= 5e5 else f"{size / GB:.2g}"

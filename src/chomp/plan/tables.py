"""A plan for people to read."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict

from rich.table import Table

from chomp.hlo.accelerators import GB
from chomp.hlo.collectives import Collective
from chomp.hlo.target import INSTALL
from chomp.plan.plan import Plan
from chomp.plan.propose import Split

MEMORY = {
    "parameters": "parameters",
    "optimizer": "optimizer state",
    "batch": "batch",
    "gradients": "gradients (float32)",
    "temporaries": "temporaries",
    "average": "average of the parameters",
    "results": "metrics",
}


def headline(plan: Plan) -> str:
    """Return what the plan is for."""
    request = plan.request
    axes = " x ".join(f"{name} {size}" for name, size in plan.mesh.items())
    hosts = f" on {request.hosts} hosts" if request.hosts > 1 else ""
    return (
        f"{plan.workload.parameters:,} parameters on {request.devices} x "
        f"{request.cluster.accelerator.device}{hosts} ({axes}); "
        f"{plan.workload.tokens:,} tokens a step, {plan.sizes.rows} rows a microbatch"
    )


def memory_table(plan: Plan) -> Table:
    """Return what each device holds while a step runs."""
    table = _table("memory of a device", "GB")
    for name, size in asdict(plan.sizes.memory).items():
        if size or name != "average":
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


def proposal_table(tried: Iterable[Split], limit: float) -> Table:
    """Return the splits of a step's rows that were tried, the fastest first."""
    table = _table(
        "train.batch_size", "train.grad_accum", "model.use_checkpoint", "GB", "ms", "program"
    )
    for split in sorted(tried, key=lambda split: split.seconds):
        table.add_row(
            str(split.batch_size),
            str(split.grad_accum),
            str(split.use_checkpoint).lower(),
            _gb(split.memory) + ("" if split.memory <= limit else ": does not fit"),
            f"{split.seconds * 1e3:.0f}",
            "compiled" if split.compiled else "extrapolated",
        )
    return table


def closing_lines(plan: Plan) -> Iterator[str]:
    """Yield the rest."""
    limit = f"{plan.request.limit / GB:.1f} GB"
    yield f"model FLOPs        {plan.workload.flops:.4g} a step"
    yield from _speed(plan)
    yield f"checkpoint         {_gb(plan.workload.checkpoint)} GB"
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
    if plan.request.on_processor:
        yield (
            "note               this is the program of this machine's processor, which needs more: "
            "memory can be nine times"
        )
        yield f"                   too high; for the GPU's own program: {INSTALL}"
    yield f"compiled in        {plan.sizes.seconds:.1f} s, at most {_gb(plan.peak_rss)} GB here"


def proposal_lines(plan: Plan) -> Iterator[str]:
    """Yield what to write into the config."""
    if plan.proposal is None:
        return
    best = plan.proposal.best
    if best is None:
        yield "no split of these rows fits: set parallel.fsdp, or a smaller train.seq_len"
        return
    yield f"the fastest that fits {plan.request.limit / GB:.1f} GB a device:"
    yield ""
    yield "model:"
    yield f"  use_checkpoint: {str(best.use_checkpoint).lower()}"
    yield "train:"
    yield f"  batch_size: {best.batch_size}"
    yield f"  grad_accum: {best.grad_accum}"


def _speed(plan: Plan) -> Iterator[str]:
    """Yield how fast the step would be, and what bounds it."""
    found = plan.estimate
    if found is None:
        yield "speed              unknown: it is estimated for programs of GPUs; give --mfu"
        return
    seconds = f"computes {found.compute:.3g} s"
    rate = f"{found.slow:,.0f} tokens/s"
    if found.communication:
        seconds += f", sends {found.communication:.3g} s"
        rate = (
            f"{found.slow:,.0f} (one after the other) to {found.fast:,.0f} tokens/s (both at once)"
        )
    source = "by --mfu" if plan.request.mfu else "+-40%"
    yield f"speed              {seconds}: {rate}; {source}"
    if plan.figures is not None:
        bounds = sorted(plan.figures.bounds.items(), key=lambda item: -item[1])
        shares = (f"{name} {time / plan.figures.seconds:.0%}" for name, time in bounds if time)
        yield f"bound by           {', '.join(shares)}"


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

"""Rows of metrics: what each holds, and when one is written."""

import functools

import jax

from chomp.data import read_retries
from chomp.run.heartbeat import Phase
from chomp.system.device_flops import QUICK_SIZE, matmul_rate, peak_flops
from chomp.system.jax_runtime import memory_readings
from chomp.tracking import Tracker
from chomp.tracking.tracker import Row
from chomp.trainer.callback import LogWindow, PendingWork, StepInfo
from chomp.trainer.components import Components
from chomp.trainer.layer_norms import norm_values
from chomp.trainer.loss_monitor import LossMonitor
from chomp.trainer.mfu import MfuMeter
from chomp.trainer.step_timer import StepTimer
from chomp.types import Progress


class LogMetrics:
    """Writes a row every `train.log_every` steps, and wherever a callback has values for one.

    Only here do metrics come to the host. The steps of a row are judged after it is written.

    Args:
        components: of the run.
        tracker: takes the rows.
        timer: measures the steps.
        losses: judges them.
        pending: values for the next row, and the steps that no row tells of.
        progress: the counts at the start.
        first_row: values of the first row only.
    """

    def __init__(
        self,
        components: Components,
        tracker: Tracker,
        timer: StepTimer,
        losses: LossMonitor,
        pending: PendingWork,
        progress: Progress,
        first_row: Row,
    ):
        self._config, self._program = components.config, components.program
        self._tracker, self._timer, self._losses = tracker, timer, losses
        self._pending, self._last, self._first_row = pending, progress, first_row
        self._mfu = _mfu_meter(components)

    def after_step(self, info: StepInfo) -> None:
        """Count the step, and write a row if one is due.

        While the work of an interrupted callback is pending, the row waits for its values.
        """
        step, train, pending = info.progress.step, self._config.train, self._pending
        self._tracker.progress(step)
        sources = [str(source.name) for source in self._config.data.sources]
        pending.window = pending.window.after(info.stats, sources)
        if pending.callbacks or pending.row or step == train.steps or step % train.log_every == 0:
            self._make_row(info)

    def at_end(self, info: StepInfo) -> None:
        """Write what no row has of a step that `after_step` has seen, or that was resumed from."""
        pending = self._pending
        if info.progress.step != self._last.step:
            self._make_row(info)
        elif pending.row and not pending.callbacks:  # the row is there; an evaluation may be new
            self._write({"step": info.progress.step} | pending.row)

    def _make_row(self, info: StepInfo) -> None:
        row = self._row(info)
        if self._pending.callbacks:
            self._pending.row = row
        else:
            self._write(row)
        self._losses.check()

    def _write(self, row: Row) -> None:
        self._tracker.log(row)
        self._pending.row = {}

    def _row(self, info: StepInfo) -> Row:
        loss, grad_norm, rejected = jax.device_get(
            (info.metrics.loss, info.metrics.grad_norm, info.metrics.rejected)
        )
        norms = norm_values(self._program.shapes.params, info.metrics)
        lap, now, window = self._timer.lap(), info.progress, self._pending.window
        steps = now.step - self._last.step
        row: Row = {"step": now.step, "loss": float(loss), "grad_norm": float(grad_norm)}
        # The rate of the update that made this step: schedules count finished updates.
        rates = self._program.schedules.items()
        row |= {name: float(rate(now.step - 1)) for name, rate in rates}
        row |= {
            "tokens_seen": now.tokens_seen,
            "tokens_per_sec": (now.tokens_seen - self._last.tokens_seen) / lap.seconds,
            "step_time_s": lap.seconds / steps,
            "data_wait_share": lap.waiting / lap.seconds,
            "packing_utilization": window.tokens
            / (window.steps * self._config.train.tokens_per_step),
            "docs_seen": now.docs_seen,
            "docs_truncated": now.docs_truncated,
            "docs_skipped": now.docs_skipped,
            "docs_skipped_share": now.docs_skipped / max(1, now.docs_seen + now.docs_skipped),
            "docs_repaired": now.docs_repaired,
            "read_retries": read_retries(),
            "updates_rejected": int(rejected),
            "batch_hash": f"{info.stats.hash:016x}",
            "epoch": info.stats.epoch,
        }
        row |= {f"targets/{name}": targets for name, targets in window.targets.items()}
        for name, drawn in zip(self._config.data.by_source(), info.stats.by_source, strict=False):
            if drawn.targets:
                row[f"epoch/{name}"] = drawn.epoch
        with self._timer.paused(Phase.TRAINING):  # the first time it measures the device
            row |= self._mfu(lap.seconds / steps)
        row["packing_mode"] = self._config.data.packing_mode
        row |= norms
        row |= self._first_row | memory_readings() | self._pending.row
        self._last, self._first_row, self._pending.window = now, {}, LogWindow()
        return row


def _mfu_meter(components: Components) -> MfuMeter:
    config, model = components.config, components.program.model
    tflops = config.logging.peak_tflops
    peak = peak_flops(jax.devices()[0].device_kind) if tflops is None else tflops * 1e12
    # Devices of a CPU are threads on the same cores.
    on_cpu = jax.default_backend() == "cpu"
    sharing = jax.process_count() if on_cpu else components.program.sharding.mesh.size
    flops = config.train.tokens_per_step * model.flops_per_token
    measure = functools.partial(matmul_rate, model.product_dtype, QUICK_SIZE)
    return MfuMeter(flops // sharing, peak, measure)

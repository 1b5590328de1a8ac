"""The callbacks of a run, in their order."""

from collections.abc import Sequence

from chomp.tracking.tracker import Row
from chomp.trainer.callback import Callback
from chomp.trainer.callbacks.checkpoint import SaveCheckpoint
from chomp.trainer.callbacks.checks import Beat, CollectLosses, DeviceCheck, FreezeGarbage
from chomp.trainer.callbacks.evaluate import Evaluate
from chomp.trainer.callbacks.ledger import RecordBatch
from chomp.trainer.callbacks.metrics import LogMetrics
from chomp.trainer.callbacks.profile import Profile
from chomp.trainer.callbacks.runner import CallbackRunner
from chomp.trainer.callbacks.sample import GenerateSample
from chomp.trainer.components import Components
from chomp.trainer.context import RunContext
from chomp.trainer.loop_context import LoopContext


def build_callbacks(
    components: Components,
    context: RunContext,
    loop: LoopContext,
    first_row: Row,
    extra: Sequence[Callback] = (),
) -> CallbackRunner:
    """Return the callbacks that the configuration asks for, and the user's own.

    Args:
        components: of the run.
        context: of the run.
        loop: what the loop works with.
        first_row: values for the first row of metrics.
        extra: the user's own, called before the step's row is written.
    """
    config, data = components.config, components.data
    train, debug = config.train, config.debug
    before: list[Callback] = [Beat(context.monitor.heartbeat), FreezeGarbage(loop.timer)]
    if loop.files.ledger:
        before.append(RecordBatch(loop.files.ledger, config.logging.ledger_every))
    if debug.nan_check:
        before.append(CollectLosses(loop.losses))
    if train.eval_every:
        before.append(
            Evaluate(
                components.program, data.evaluation, loop.control, loop.timer, train.eval_every
            )
        )
    before += extra
    log = LogMetrics(
        *(components, loop.tracker, loop.timer, loop.losses, loop.pending, loop.start, first_row)
    )
    after: list[Callback] = []
    if train.generate_every and components.program.model.can_generate:
        after.append(
            GenerateSample(components, loop.tracker, loop.control, loop.timer, train.generate_every)
        )
    if context.checkpointer:
        every = config.checkpoint.save_every
        after.append(SaveCheckpoint(context.checkpointer, components, context, loop, every))
    after.append(DeviceCheck(debug.check_device_every))
    if train.profile and context.coordinator.is_leader:
        folder = context.folder.inside(train.profile_dir or "profile")
        after.append(Profile(folder, loop.start.step))
    return CallbackRunner(before, log, after, steps=train.steps, pending=loop.pending)

import time

import jax
import jax.numpy as jnp

from chomp.run.heartbeat import Heartbeat, Phase
from chomp.trainer.step_timer import StepTimer
from chomp.types import TrainState


def test_work_that_is_not_training_waits_for_the_device():
    """Whatever was dispatched before is training time, not the pause's."""
    slow = jax.jit(lambda x: jax.lax.fori_loop(0, 300, lambda i, y: y @ x / 30.0, x))
    x = jnp.ones((300, 300))
    slow(x).block_until_ready()
    timer = StepTimer()
    timer.lap()
    start = time.perf_counter()
    state = TrainState((), (), slow(x)[0, 0], jnp.asarray(0), jnp.zeros(2))
    with timer.paused_after(state, Phase.SAVING):
        inside = time.perf_counter() - start
        time.sleep(0.3)
    seconds = timer.lap().seconds
    assert 0.9 * inside - 0.01 <= seconds < inside + 0.25


def test_the_heartbeat_knows_what_goes_on():
    heartbeat = Heartbeat(None)
    timer = StepTimer(heartbeat)
    heartbeat.finished(6)
    with timer.waiting():
        assert (heartbeat.now().phase, heartbeat.now().step) == (Phase.WAITING, 7)
    assert (heartbeat.now().phase, heartbeat.now().step) == (Phase.TRAINING, 7)
    with timer.paused(Phase.EVALUATING):
        before = heartbeat.beats
        timer.alive()
        assert heartbeat.beats == before + 1
        assert heartbeat.now().phase is Phase.EVALUATING
    assert heartbeat.now().phase is Phase.TRAINING

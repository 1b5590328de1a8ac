"""A process of a run without a model: `member.py PORT SIZE INDEX WHAT`."""

import os
import resource
import signal
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from chomp.coordinator import Coordinator
from chomp.distributed import failure_detector
from chomp.distributed.cluster import ProcessInfo
from chomp.distributed.initialize import connect
from chomp.errors import ChompError, DataError
from chomp.system.signals import Signals
from chomp.trainer.stop_and_save import StopAndSaveRequests
from chomp.trainer.synchronized_batches import SynchronizedBatches
from chomp.types import Batch, BatchStats, LoadedBatch, RowStats, SourceCount

LOST_AFTER = 2.0
failure_detector.GRACE = 1.0


def say(*values: object) -> None:
    print(*values, flush=True)


def work(coordinator: Coordinator) -> None:
    """Agree, exchange, have the leader work."""
    coordinator.agree({"train.steps": 10, "versions.jax": "1"})
    for step in range(5):
        total = coordinator.gather_and_decide(
            f"step {step}", [step, coordinator.index], decide=lambda parts: parts
        )
        assert total == [[step, index] for index in range(coordinator.size)], total
    say("folder", coordinator.on_leader("folder", lambda: f"made by {coordinator.index}"))
    seconds = []
    for _ in range(300):
        start = time.perf_counter()
        coordinator.gather_and_decide(
            "timed", {"targets": 1000, "keys": list(range(50))}, decide=lambda p: p[0]
        )
        seconds.append(time.perf_counter() - start)
    say("median_ms", round(1e3 * statistics.median(seconds), 3))


def refused(coordinator: Coordinator) -> None:
    """Be refused by the leader."""

    def refuse() -> None:
        raise DataError("no such file")

    coordinator.on_leader("data", refuse)


def disagree(coordinator: Coordinator) -> None:
    """Have a value that others haven't."""
    coordinator.agree({"train.steps": 10 + (coordinator.index > 0), "model.dim": 8})


def out_of_step(coordinator: Coordinator) -> None:
    """Be somewhere else."""
    coordinator.gather_and_decide(f"at {coordinator.index}", None)


def fail(coordinator: Coordinator) -> None:
    """Fail in the last process, without the others' knowing."""
    if coordinator.index == coordinator.size - 1:
        raise DataError("shard 3 is damaged")
    coordinator.gather_and_decide("never", None)


def lead_badly(coordinator: Coordinator) -> None:
    """Fail in the leader, in no common work."""
    if coordinator.is_leader:
        raise ValueError("a bug")
    coordinator.gather_and_decide("never", None)


def vanish(coordinator: Coordinator, number: signal.Signals, who: int) -> None:
    """Be killed, or suspended, while the others wait."""
    coordinator.gather_and_decide("all are here", None)
    if coordinator.index == who:
        say("gone", time.time())
        os.kill(os.getpid(), number)
    coordinator.gather_and_decide("never", None)


def hang(coordinator: Coordinator) -> None:
    """Be killed while the main thread of the others doesn't come back to Python."""
    coordinator.gather_and_decide("all are here", None)
    if coordinator.index == 1:
        say("gone", time.time())
        os.kill(os.getpid(), signal.SIGKILL)
    coordinator.hooks.before_end = lambda failure: say("recorded", type(failure).__name__)
    time.sleep(60)


def collective(coordinator: Coordinator) -> None:
    """Be killed while the others are in a program of all devices."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import Mesh, NamedSharding
    from jax.sharding import PartitionSpec as P

    where = NamedSharding(Mesh(np.array(jax.devices()), ("data",)), P("data"))
    here = jax.device_put(jnp.ones(4), jax.local_devices()[0])
    whole = jax.make_array_from_single_device_arrays((4 * coordinator.size,), where, [here])
    total = jax.jit(jnp.sum, out_shardings=NamedSharding(where.mesh, P()))
    say("sum", float(total(whole)))
    if coordinator.index == 1:
        say("gone", time.time())
        os.kill(os.getpid(), signal.SIGKILL)
    with coordinator.translate_peer_failures():
        float(total(whole))


class Part:
    """Parts of batches with one document each; then the end, an error, or nothing ever."""

    def __init__(self, keys: list[int], then: Exception | None):
        self.keys, self.then = keys, then

    def wait(self, seconds: float) -> bool:
        time.sleep(0 if self.keys or self.then else seconds)
        return bool(self.keys or self.then)

    def peek(self) -> list[RowStats] | None:
        if not self.keys and isinstance(self.then, DataError):
            raise self.then
        return [row_of(key) for key in self.keys[:1]] or None

    def __next__(self) -> LoadedBatch:
        return drawn([self.keys.pop(0)])


def row_of(key: int) -> RowStats:
    """A row with one document of one token."""
    return RowStats(key, BatchStats((SourceCount(1),), 1, 1, 0, 0, 0, (key,), key))


def drawn(keys: list[int]) -> LoadedBatch:
    nothing = np.zeros((1, 1, 1), np.int32)
    stats = BatchStats((SourceCount(len(keys)),), 0, 0, 0, 0, 0, tuple(keys), 0)
    return LoadedBatch(Batch(nothing, nothing, nothing, nothing > 0), stats)


def steps(coordinator: Coordinator) -> None:
    """Draw until the end, an error, a stop; each time both processes, at the same batch."""
    first = coordinator.is_leader
    with Signals() as signals:
        coordinator.hooks.stop_asked = lambda: signals.stop
        coordinator.hooks.ask_to_stop = signals.hear

        def draw(keys: list[int], then: Exception | None, usr1_at: int = -1) -> list[object]:
            """Return the keys of each batch, whether to save behind it, and how it ended."""
            stream = SynchronizedBatches(
                coordinator,
                Part(keys, then),
                lambda: drawn([]),
                StopAndSaveRequests(signals),
            )
            seen: list[object] = []
            while not stream.should_stop():
                if len(seen) == usr1_at and not first:
                    signal.raise_signal(signal.SIGUSR1)
                if not stream.wait(0.05):
                    continue
                signals.save_requested = False
                try:
                    seen.append([next(stream).stats.keys, stream.save_requested])
                except StopIteration:
                    return [*seen, "end"]
                except DataError as error:
                    return [*seen, str(error)]
            return [*seen, f"stop {signals.stop}"]

        end = StopIteration()
        say(draw([1, 2, 3] if first else [4, 5], end))
        say(draw([1, 2] if first else [4, 5], end, usr1_at=1))
        say(draw([1, 2] if first else [4], end if first else DataError("broken")))
        if not first:
            signal.raise_signal(signal.SIGTERM)
        # The first one's documents are late: it hears of the stop meanwhile.
        say(draw([] if first else [4], None))


def saves(coordinator: Coordinator, folder: Path) -> None:
    """Save and restore arrays that two processes share; then the disk refuses the second one."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import Mesh, NamedSharding
    from jax.sharding import PartitionSpec as P

    from chomp.checkpoint.checkpointer import Checkpointer
    from chomp.types import Progress, TrainState

    where = NamedSharding(Mesh(np.array(jax.devices()), ("data",)), P("data"))
    here = np.random.default_rng(coordinator.index).normal(size=(64, 64)).astype(np.float32)
    shared = jax.make_array_from_process_local_data(where, here, (64 * coordinator.size, 64))
    everywhere = NamedSharding(where.mesh, P())
    one = jax.make_array_from_process_local_data(everywhere, np.asarray(7, np.int32))
    key = jax.make_array_from_process_local_data(everywhere, np.zeros(2, np.uint32))
    state = TrainState({"w": shared}, {"m": shared}, one, one, key)
    checkpoints = Checkpointer(folder, async_save=True, coordinator=coordinator)
    checkpoints.save(state, Progress(1), {}, {})
    checkpoints.wait()
    like = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state
    )
    back = checkpoints.restore_state(1, like)
    found = back.params["w"].addressable_shards[0].data
    say("same", bool(jnp.array_equal(found, here)), checkpoints.last_good)
    if coordinator.index:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    checkpoints.save(state, Progress(2), {}, {})
    checkpoints.wait()
    say("refused", checkpoints.problems(), checkpoints.last_good, checkpoints.steps())
    checkpoints.close()


WHAT: dict[str, Callable[[Coordinator], None]] = {
    "work": work,
    "refused": refused,
    "disagree": disagree,
    "steps": steps,
    "saves": lambda coordinator: saves(coordinator, Path(sys.argv[6])),
    "out_of_step": out_of_step,
    "fail": fail,
    "lead_badly": lead_badly,
    "kill": lambda coordinator: vanish(coordinator, signal.SIGKILL, 1),
    "kill_leader": lambda coordinator: vanish(coordinator, signal.SIGKILL, 0),
    "suspend_leader": lambda coordinator: vanish(coordinator, signal.SIGSTOP, 0),
    "hang": hang,
    "collective": collective,
}


def main() -> int:
    address, size, index, what, seconds = sys.argv[1:6]
    place = ProcessInfo(address, int(size), int(index))
    try:
        coordinator = connect(place, seconds=float(seconds), lost_after=LOST_AFTER)
    except ChompError as error:
        say("refused", error)
        return error.exit_code
    try:
        WHAT[what](coordinator)
    except ChompError as error:
        say("ended", type(error).__name__, error, "at", time.time())
        coordinator.end(error)
        return error.exit_code
    except BaseException as error:
        coordinator.end(error)
        raise
    coordinator.end(None)
    return 0


if __name__ == "__main__":
    sys.exit(main())

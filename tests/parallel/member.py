"""A process of a run without a model: `member.py PORT SIZE INDEX WHAT`."""

import os
import signal
import statistics
import sys
import time
from collections.abc import Callable

from chomp.cohort import Cohort
from chomp.errors import ChompError, DataError
from chomp.parallel.join import join
from chomp.parallel.launch import Place

LOST_AFTER = 2.0


def say(*values: object) -> None:
    print(*values, flush=True)


def work(cohort: Cohort) -> None:
    """Agree, exchange, have the leader work."""
    cohort.agree({"train.steps": 10, "versions.jax": "1"})
    for step in range(5):
        total = cohort.exchange(f"step {step}", [step, cohort.index], decide=lambda parts: parts)
        assert total == [[step, index] for index in range(cohort.size)], total
    say("folder", cohort.from_leader("folder", lambda: f"made by {cohort.index}"))
    seconds = []
    for _ in range(300):
        start = time.perf_counter()
        cohort.exchange("timed", {"targets": 1000, "keys": list(range(50))}, decide=lambda p: p[0])
        seconds.append(time.perf_counter() - start)
    say("median_ms", round(1e3 * statistics.median(seconds), 3))


def refused(cohort: Cohort) -> None:
    """Be refused by the leader."""

    def refuse() -> None:
        raise DataError("no such file")

    cohort.from_leader("data", refuse)


def disagree(cohort: Cohort) -> None:
    """Have a value that others haven't."""
    cohort.agree({"train.steps": 10 + (cohort.index > 0), "model.dim": 8})


def out_of_step(cohort: Cohort) -> None:
    """Be somewhere else."""
    cohort.exchange(f"at {cohort.index}", None)


def fail(cohort: Cohort) -> None:
    """Fail in the last process, without the others' knowing."""
    if cohort.index == cohort.size - 1:
        raise DataError("shard 3 is damaged")
    cohort.exchange("never", None)


def lead_badly(cohort: Cohort) -> None:
    """Fail in the leader, in no common work."""
    if cohort.is_leader:
        raise ValueError("a bug")
    cohort.exchange("never", None)


def vanish(cohort: Cohort, number: signal.Signals, who: int) -> None:
    """Be killed, or suspended, while the others wait."""
    if cohort.index == who:
        say("gone", time.time())
        os.kill(os.getpid(), number)
    cohort.exchange("never", None)


def hang(cohort: Cohort) -> None:
    """Be killed while the main thread of the others doesn't come back to Python."""
    if cohort.index == 1:
        say("gone", time.time())
        os.kill(os.getpid(), signal.SIGKILL)
    deaf = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    del deaf
    cohort.hooks.before_end = lambda failure: say("recorded", type(failure).__name__)
    time.sleep(60)


def collective(cohort: Cohort) -> None:
    """Be killed while the others are in a program of all devices."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import Mesh, NamedSharding
    from jax.sharding import PartitionSpec as P

    where = NamedSharding(Mesh(np.array(jax.devices()), ("data",)), P("data"))
    here = jax.device_put(jnp.ones(4), jax.local_devices()[0])
    whole = jax.make_array_from_single_device_arrays((4 * cohort.size,), where, [here])
    total = jax.jit(jnp.sum, out_shardings=NamedSharding(where.mesh, P()))
    say("sum", float(total(whole)))
    if cohort.index == 1:
        say("gone", time.time())
        os.kill(os.getpid(), signal.SIGKILL)
    with cohort.explained():
        float(total(whole))


WHAT: dict[str, Callable[[Cohort], None]] = {
    "work": work,
    "refused": refused,
    "disagree": disagree,
    "out_of_step": out_of_step,
    "fail": fail,
    "lead_badly": lead_badly,
    "kill": lambda cohort: vanish(cohort, signal.SIGKILL, 1),
    "kill_leader": lambda cohort: vanish(cohort, signal.SIGKILL, 0),
    "suspend_leader": lambda cohort: vanish(cohort, signal.SIGSTOP, 0),
    "hang": hang,
    "collective": collective,
}


def main() -> int:
    address, size, index, what, seconds = sys.argv[1:6]
    place = Place(address, int(size), int(index))
    try:
        cohort = join(place, seconds=float(seconds), lost_after=LOST_AFTER)
    except ChompError as error:
        say("refused", error)
        return error.exit_code
    try:
        WHAT[what](cohort)
    except ChompError as error:
        say("ended", type(error).__name__, error, "at", time.time())
        cohort.end(error)
        return error.exit_code
    except BaseException as error:
        cohort.end(error)
        raise
    cohort.end(None)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Requests from the outside: SIGINT, SIGTERM and some others to stop, SIGUSR1 to save."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, TypeVar

from chomp.errors import Interrupted

T = TypeVar("T")

STOPS = (signal.SIGINT, signal.SIGTERM)
REPEATED = (signal.SIGHUP, signal.SIGXCPU, signal.SIGUSR2)
"""Stops that come several times: a terminal closes, the processor time that is allowed is used up,
a batch system announces the job's end. Their default is to end the process."""
WORK_THREAD = "chomp-work"
POLL_SECONDS = 0.02


class Signals:
    """While entered, the first SIGINT or SIGTERM asks for a stop and a second one ends the process
    at once; SIGUSR1 asks for a checkpoint.

    Those of `REPEATED` ask for a stop too, unless the process was started to ignore them (`nohup`),
    and never end it: when a terminal closes, the system and the shell may both send SIGHUP, or
    SIGTERM after it.
    """

    def __init__(self):
        self.stop: signal.Signals | None = None
        """The signal that asked for a stop."""
        self.save_requested = False
        """A checkpoint was asked for; whoever makes one sets this back."""
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Signals":
        for number in STOPS:
            self._before[number] = signal.signal(number, self._ask_to_stop)
        for number in REPEATED:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._stop_and_no_more)
        self._before[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, self._ask_to_save)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask_to_stop(self, number: int, frame: FrameType | None) -> None:
        self.hear(number)
        for either in STOPS:
            signal.signal(either, signal.SIG_DFL)

    def _stop_and_no_more(self, number: int, frame: FrameType | None) -> None:
        self.hear(number)

    def _ask_to_save(self, number: int, frame: FrameType | None) -> None:
        self.save_requested = True

    def hear(self, number: int) -> None:
        """Take a signal that another process got as one that asks this one to stop."""
        self.stop = self.stop or signal.Signals(number)

    def stop_requested(self) -> bool:
        """Whether a stop was asked for."""
        return self.stop is not None

    @property
    def exit_code(self) -> int:
        """128 + the signal's number, as shells have it; 0 without one."""
        return 0 if self.stop is None else 128 + self.stop

    def unless_stopped(
        self, work: Callable[..., T], *args: Any, check: Callable[[], None] | None = None
    ) -> T:
        """Return `work(*args)`, which runs in a thread that a stop abandons.

        So does an error that `check` raises, which is called again and again meanwhile.

        A signal handler has to wait for the end of a long call outside Python (a compilation, a
        generation) where the main thread makes it.

        Raises:
            Interrupted: a stop was asked for before the work was done.
        """
        result: list[T] = []
        error: list[BaseException] = []

        def run() -> None:
            try:
                result.append(work(*args))
            except BaseException as raised:  # noqa: BLE001 - raised again by the caller's thread
                error.append(raised)

        thread = threading.Thread(target=run, name=WORK_THREAD, daemon=True)
        thread.start()
        while thread.is_alive():
            if self.stop_requested():
                raise Interrupted
            if check:
                check()
            thread.join(POLL_SECONDS)
        if error:
            raise error[0]
        return result[0]


@contextmanager
def nothing_to_save() -> Iterator[None]:
    """While inside, and not yet in `Signals`, a stop ends the process at once, as quietly as the
    system does it, and SIGUSR1 does nothing; its default is to end the process.
    """
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_DFL),
        signal.SIGUSR1: signal.signal(signal.SIGUSR1, signal.SIG_IGN),
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def work_left_behind() -> bool:
    """Whether work that a stop interrupted still goes on."""
    return any(thread.name == WORK_THREAD for thread in threading.enumerate())

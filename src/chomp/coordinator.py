"""The processes of a run as its parts see them; here those of a run with one."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

from chomp.errors import ChompError

T = TypeVar("T")


@dataclass
class Hooks:
    """Calls of the failure detector into its own process, from one of its threads."""

    stop_asked: Callable[[], int | None] = lambda: None
    """The signal that asks this process to stop."""
    ask_to_stop: Callable[[int], None] = lambda number: None
    """Takes the signal that another process got."""
    before_end: Callable[[ChompError], None] = lambda failure: None
    """Records why the process ends, where its main thread can't."""


class Coordinator:
    """The processes of a run; this class is that of a run with one process.

    All processes call the methods in the same order, those of a channel at least; a channel is for
    the calls of one thread.
    """

    size = 1
    """Number of processes."""
    index = 0
    """Number of this process."""

    def __init__(self):
        self.hooks = Hooks()

    def __enter__(self) -> "Coordinator":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end(error)

    @property
    def is_leader(self) -> bool:
        """Whether this process has console, files and decisions."""
        return self.index == 0

    def gather_and_decide(
        self, name: str, part: Any, decide: Callable[[list[Any]], Any] = list, channel: str = "main"
    ) -> Any:
        """Return what the leader decides on the parts of all processes, the same to each of them.

        Args:
            name: tells one exchange from another.
            part: what this process contributes; a JSON value, as is what is decided.
            decide: takes the parts in the order of the processes; called by the leader alone.
            channel: the calling thread's.

        Raises:
            PeerError, LostError: another process has failed or is gone.
        """
        return decide([part])

    def on_leader(self, name: str, work: Callable[..., T], *args: Any) -> T:
        """Return what `work(*args)`, done by the leader alone, returns: a JSON value.

        Raises:
            ChompError, Interrupted: in all processes what `work` raised.
        """
        return work(*args)

    @contextmanager
    def interruptible(self, name: str) -> Iterator[None]:
        """Have all processes interrupted where a stop of one interrupts what it does inside.

        Inside there is no exchange and no program that all devices run.

        Args:
            name: the work's.

        Raises:
            Interrupted: in all processes.
        """
        yield

    def agree(self, values: Mapping[str, Any]) -> None:
        """Check that all processes have the same values.

        Raises:
            ConfigError: in all of them; names the keys, and who has which value.
        """

    def check(self) -> None:
        """Raise the failure of another process that is known.

        Raises:
            PeerError, LostError: another process has failed or is gone.
        """

    @contextmanager
    def translate_peer_failures(self) -> Iterator[None]:
        """Have what the loss of a process leads to inside raised as that loss.

        Raises:
            PeerError, LostError: another process has failed or is gone.
        """
        yield

    def end(self, error: BaseException | None) -> None:
        """Leave the other processes.

        Args:
            error: what ends this process; None: it ends as all do.
        """

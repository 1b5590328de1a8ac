"""What JAX compiles in this process, and how long the process waits for it."""

import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

COMPILING = "/jax/core/compile/"
BACKEND = COMPILING + "backend_compile_duration"
CACHE_HIT = "/jax/compilation_cache/cache_hits"


class _Span(NamedTuple):
    begin: float
    end: float


class CompileWatch:
    """Listens to JAX from its making on: tracing, lowering, compiling, loading from the cache."""

    def __init__(self):
        import jax

        self._local = threading.local()
        self.clear()
        jax.monitoring.register_event_listener(self._event)
        jax.monitoring.register_event_time_span_listener(self._span)

    def clear(self) -> None:
        """Forget what was compiled so far."""
        self._spans: list[_Span] = []
        self._compiled: set[str] = set()

    def _event(self, event: str, **_: Any) -> None:
        if event == CACHE_HIT:  # in the thread that asks for the program, before its span ends
            self._local.loaded = True

    def _span(self, event: str, start_time: float, end_time: float, **about: Any) -> None:
        if not event.startswith(COMPILING):
            return
        self._spans.append(_Span(start_time, end_time))
        if event == BACKEND:
            if not getattr(self._local, "loaded", False):
                self._compiled.add(str(about.get("fun_name")))
            self._local.loaded = False

    def has_compiled(self, function: str) -> bool:
        """Whether XLA compiled a program of this function, rather than load it from the cache."""
        return any(function in name for name in self._compiled)

    @property
    def seconds(self) -> float:
        """Wall time in which a thread was at it; several at once count once."""
        return sum(end - begin for begin, end in self._apart())

    def _apart(self) -> Iterator[_Span]:
        last = float("-inf")
        for begin, end in sorted(self._spans):
            if end > last:
                yield _Span(max(begin, last), end)
                last = end

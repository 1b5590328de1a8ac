"""The processes that train a sweep's runs: started, given tasks, started anew where one dies."""

import json
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from chomp.errors import ChompError
from chomp.run.heartbeat import Phase, read_heartbeat
from chomp.run.run_folder import RunFolder
from chomp.sweep.record import State
from chomp.system.plugins import plugin_options
from chomp.system.signals import Signals

TICK_SECONDS = 0.5
SAVE_SECONDS = 120.0
"""In which a run that is stopped has to be saved where an error ends the sweep."""
STARTING = (Phase.STARTING, Phase.COMPILING, Phase.RESTORING)
STOPS = (128 + signal.SIGINT, 128 + signal.SIGTERM, 128 + signal.SIGHUP)


class Task(NamedTuple):
    """A run to begin or to go on with."""

    name: str
    folder: Path
    values: dict[str, Any]
    text: str
    """Of the user's configuration."""
    program: str
    """Tasks with equal ones have the same program."""
    stop_after: int | None = None
    """Step after which it is stopped and saved; None: it goes to its end."""


class Outcome(NamedTuple):
    """What came of a task."""

    state: State
    """`waiting` where the run was stopped."""
    reason: str = ""
    compiled: bool = False
    compile_seconds: float = 0.0
    start_seconds: float = 0.0
    """From the start of the process until it took tasks."""


class Message(NamedTuple):
    """A line of a worker; its values are None at the end of its output."""

    worker: "Worker"
    values: dict[str, Any] | None


class Worker:
    """A process that trains runs.

    Args:
        log: file for what runs print.
        messages: takes what the process says.
    """

    def __init__(self, log: Path, messages: "queue.Queue[Message]"):
        self._begun = time.perf_counter()
        self.log, self.task, self.ready = log, None, False
        self.start_seconds, self.crash = 0.0, ""
        plugins = plugin_options()[1::2]
        with log.open("ab") as output:
            # A session of its own: Ctrl-C is for the sweep, which then tells its workers.
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "chomp.sweep.worker", *plugins],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
                start_new_session=True,
            )
        threading.Thread(target=self._read, args=(messages,), daemon=True).start()

    task: Task | None
    """What it does."""

    def _read(self, messages: "queue.Queue[Message]") -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            messages.put(Message(self, json.loads(line)))
        messages.put(Message(self, None))

    def is_ready(self) -> None:
        """Note that it takes tasks."""
        self.ready, self.start_seconds = True, time.perf_counter() - self._begun

    def give(self, values: dict[str, Any]) -> None:
        """Give it a task."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it has died, as its output will tell
            print(json.dumps(values), file=self.process.stdin, flush=True)

    def stop(self) -> None:
        """Have it save and stop its run, and end."""
        self.give({"stop": True})

    def close(self) -> None:
        """End it; nothing of it is left afterwards. A run that it trains is saved."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(SAVE_SECONDS if self.task else 0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@dataclass
class Pool:
    """So many workers as are wanted, each started when there is a task for it.

    Attributes:
        folder: of the sweep; keeps the logs.
        jobs: workers at once.
        signals: a stop ends it.
    """

    folder: Path
    jobs: int
    signals: Signals
    _workers: list[Worker] = field(default_factory=list)
    _messages: "queue.Queue[Message]" = field(default_factory=queue.Queue)
    _stopping: bool = False

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.close()

    @property
    def running(self) -> list[Task]:
        """The tasks that are being done."""
        return [worker.task for worker in self._workers if worker.task]

    def check(self, configs: Sequence[dict[str, Any]]) -> list[list[str]]:
        """Return what would keep runs of these configurations from starting, lines for each.

        Raises:
            ChompError: the process that looks has died.
        """
        worker = self._start()
        worker.give({"check": list(configs)})
        while not self.signals.stop_requested():
            message = self._next()
            if message is None:
                continue
            if message.values is None:
                self._workers.remove(worker)
                raise ChompError(self._death(worker))
            if "problems" in message.values:
                return message.values["problems"]
            worker.is_ready()
        return [[] for _ in configs]

    def do(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Outcome] | None]:
        """Do the tasks in their order; yield what came of each, and None again and again meanwhile.

        Ends early, with all that runs saved, when a stop was asked for.
        """
        waiting = list(tasks)
        while waiting or self.running:
            if self.signals.stop_requested():
                waiting = []
                self._stop()
            self._assign(waiting)
            message = self._next()
            yield self._take(message) if message else None

    def _next(self) -> Message | None:
        try:
            return self._messages.get(timeout=TICK_SECONDS)
        except queue.Empty:
            return None

    def _start(self) -> Worker:
        logs = [self.folder / f"worker-{number}.log" for number in range(1, self.jobs + 1)]
        taken = {worker.log for worker in self._workers}
        log = next(log for log in logs if log not in taken)
        self._workers.append(Worker(log, self._messages))
        return self._workers[-1]

    def _assign(self, waiting: list[Task]) -> None:
        idle = [worker for worker in self._workers if worker.task is None]
        while waiting and len(self.running) < self.jobs:
            task = next((task for task in waiting if not self._is_being_compiled(task)), None)
            if task is None:
                return
            worker = idle.pop() if idle else self._start()
            waiting.remove(task)
            worker.task = task
            worker.give(
                {
                    "folder": str(task.folder),
                    "values": task.values,
                    "text": task.text,
                    "stop_after": task.stop_after,
                }
            )

    def _is_being_compiled(self, task: Task) -> bool:
        """Whether its program will soon be in the compile cache."""
        for worker in self._workers:
            if worker.task and worker.task.program == task.program:
                reading = read_heartbeat(RunFolder(worker.task.folder).heartbeat)
                is_its_own = reading is not None and reading.pid == worker.process.pid
                if reading is None or not is_its_own or reading.phase in STARTING:
                    return True
        return False

    def _stop(self) -> None:
        if not self._stopping:
            self._stopping = True
            for worker in self._workers:
                worker.stop()

    def _take(self, message: Message) -> tuple[Task, Outcome] | None:
        worker, values = message
        if values is None:
            return self._buried(worker)
        if "ready" in values:
            worker.is_ready()
        elif "crashed" in values:
            worker.crash = values["crashed"]
        elif worker.task:
            task, worker.task = worker.task, None
            return task, _outcome(values, worker.start_seconds)
        return None

    def _buried(self, worker: Worker) -> tuple[Task, Outcome] | None:
        self._workers.remove(worker)
        if worker.task is None:
            worker.close()
            return None
        state = State.WAITING if self._stopping else State.FAILED
        return worker.task, Outcome(state, self._death(worker))

    def _death(self, worker: Worker) -> str:
        code = worker.process.wait()
        worker.close()
        if worker.crash:
            return f"{worker.crash.splitlines()[0]} (see {worker.log})"
        if code < 0:
            return f"its process was killed by {signal.Signals(-code).name} (see {worker.log})"
        return f"its process ended with code {code} (see {worker.log})"


def _outcome(values: dict[str, Any], start_seconds: float) -> Outcome:
    error = values["error"]
    state, reason = State.FINISHED, ""
    if error:
        state = State.DIVERGED if error["diverged"] else State.FAILED
        reason = error["reason"]
    elif values["code"] in STOPS:
        state = State.WAITING
    return Outcome(state, reason, values["compiled"], values["compile_seconds"], start_seconds)

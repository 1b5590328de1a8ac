import argparse
import ast
import copy
import gc
import json
import logging
import os
import resource
import subprocess
import sys
import sysconfig
import textwrap
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from forked import ForkServer

from chomp.config import Config, config_from_mapping
from chomp.system.console import Console
from chomp.system.jax_runtime import prepare_environment

# Most of the tests' time is XLA's. Without LLVM's optimizations it compiles small programs in half
# of it, and with fusions emitted as before, without MLIR, in two thirds of that.
# `XLA_FLAGS= pytest` compiles as a run does.
os.environ.setdefault(
    "XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
)

# The tests start many processes, and each would compile every module of chomp again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Tracing makes objects by the million, few of them in cycles: looking for these at Python's own
# rate takes a sixth of the processor's time.
gc.set_threshold(100_000, 20, 20)

# A machine's GPU runs those marked `gpu` alone: JAX_PLATFORMS=cuda XLA_FLAGS= pytest -m gpu
os.environ.setdefault("JAX_PLATFORMS", "cpu")

# Many tests and starts compile the same small programs, which a run wouldn't keep.
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.05")

# As the commands do, before anything imports JAX.
prepare_environment()

import jax  # noqa: E402

Values = dict[str, Any]

# The files that take longest, longest first. A worker of pytest-xdist takes a file at a time, in
# this order: with a long one at the end the others would wait for it.
LONGEST = (
    "test_training.py",
    "distributed/test_devices.py",
    "test_signals.py",
    "models/megalodon/test_layers.py",
    "proof/test_prove_scale.py",
    "ops/kernels/test_ema.py",
    "hlo/test_gpu_budget.py",
    "distributed/test_process_group.py",
    "plan/test_plan.py",
    "test_sweep.py",
    "proof/test_prove_resume.py",
    "data/test_outages.py",
    "distributed/test_gpu_program.py",
    "models/megalodon/test_model.py",
    "commands/test_trace.py",
)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One worker more than processors: tests wait for processes, disks and clocks."""
    return (os.cpu_count() or 1) + 1


# A model of which everything compiles in seconds. With `decay_steps` given, runs of any length
# are the same program, which the compile cache of the session then knows.
MEGALODON: Values = {
    "model": {
        "vocab_size": 384,
        "model_dim": 32,
        "num_layers": 1,
        "z_dim": 16,
        "value_dim": 32,
        "ffn_hidden_dim": 48,
        "cema_ndim": 4,
        "chunk_size": 16,
        "norm_num_groups": 4,
        "compute_dtype": "float32",
    },
    "data": {
        "backend": "files",
        "packing_mode": "sequential",
        "shuffle_buffer_size": 16,
        "max_eval_samples": 3,
        "tokenizer": {"byte_offset": 3, "add_eos": True},
    },
    "train": {
        "steps": 4,
        "batch_size": 2,
        "grad_accum": 2,
        "seq_len": 64,
        "allow_cpu": True,
        "log_every": 1,
        "eval_every": 0,
        "generate_every": 0,
    },
    # Else each run would time some large products.
    "logging": {"peak_tflops": 0.1},
    "optim": {
        "lr": 3e-3,
        "warmup_steps": 3,
        "schedule": "cosine",
        "decay_steps": 37,
        "weight_decay": 0.01,
    },
}

# The bigram model: for all that isn't the model.
DUMMY: Values = {
    **MEGALODON,
    "model": {"backend": "dummy", "vocab_size": 384, "d_model": 16, "chunk_size": 16},
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    ranks = {here / name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


def merged(base: Values, over: Values) -> Values:
    result = copy.deepcopy(base)
    for key, value in over.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, dict) else copy.deepcopy(value)
    return result


@pytest.fixture(scope="session", autouse=True)
def compile_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled programs of this session, those of started commands included."""
    base = tmp_path_factory.getbasetemp()
    # Workers of pytest-xdist share one.
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "compile_cache"
    folder.mkdir(exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    return folder


class Lines(Console):
    """Keeps the lines that are shown."""

    def __init__(self, told: list[str]):
        self.told = told

    def message(self, text: str) -> None:
        self.told.append(text)


class NoLines(Console):
    """Fails where a line is shown."""

    def message(self, text: str) -> None:
        pytest.fail(text)


@pytest.fixture
def told() -> list[str]:
    """The lines that `console` has been given."""
    return []


@pytest.fixture
def console(told: list[str]) -> Console:
    """A console that keeps its lines in `told`."""
    return Lines(told)


@pytest.fixture(scope="session")
def no_lines() -> Console:
    """A console on which nothing may be shown."""
    return NoLines()


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """Short real documents of very uneven length: functions and classes of Python's library."""
    sources = [Path(module.__file__).read_text("utf-8") for module in (argparse, ast, textwrap)]
    blocks = [block for source in sources for block in source.split("\n\n")]
    return [block for block in blocks if 20 < len(block) <= 400][:150]


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> Path:
    """These documents as a file of JSON lines."""
    path = tmp_path_factory.mktemp("corpus") / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
    return path


@pytest.fixture(scope="session")
def values(corpus: Path, compile_cache: Path) -> Callable[..., Values]:
    """Make the values of a small config: `values("dummy", train={"steps": 6})`."""
    here = {"data": {"files": [str(corpus)]}, "runtime": {"compile_cache": str(compile_cache)}}

    def make(backend: str = "dummy", **sections: Values) -> Values:
        base = merged({"dummy": DUMMY, "megalodon": MEGALODON}[backend], here)
        return merged(base, sections)

    return make


@pytest.fixture(scope="session")
def make_config(values: Callable[..., Values]) -> Callable[..., Config]:
    """Make a small config, as `values` does."""
    return lambda *args, **sections: config_from_mapping(values(*args, **sections))


@pytest.fixture
def config_file(values: Callable[..., Values], tmp_path: Path) -> Callable[..., Path]:
    """Write a small config to a file, as `values` makes it."""

    def write(*args: str, **sections: Values) -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(values(*args, **sections)), "utf-8")
        return path

    return write


@pytest.fixture
def files_of_at_most() -> Callable[[int], AbstractContextManager[None]]:
    """A context in which no file of this process can grow beyond a size: as on a full disk."""

    @contextmanager
    def limited(size: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited


@dataclass(frozen=True)
class Finished:
    """What a command left behind."""

    code: int
    out: str
    err: str


def in_process(*args: object, stdin: str | None = None) -> Finished:
    """Run a command in this process: as the program does, without the start of a new Python."""
    from chomp.cli import main

    root = logging.getLogger()
    before = root.handlers[:], root.level
    hook = sys.unraisablehook
    # A start collects garbage: not among all that a worker's earlier tests have made, most of which
    # is JAX's and there to stay.
    gc.freeze()
    try:
        result = CliRunner().invoke(main, [str(arg) for arg in args], input=stdin)
    finally:
        sys.unraisablehook = hook
        logging.captureWarnings(False)
        for handler in root.handlers:
            if handler not in before[0]:
                handler.close()
        root.handlers[:], root.level = before
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Finished(result.exit_code, result.stdout, result.stderr)


@pytest.fixture(scope="session")
def chomp() -> Callable[..., Finished]:
    """Run `chomp ARGS` in this process."""
    return in_process


@pytest.fixture(scope="session")
def programs_of_this_process() -> Any:
    """What the tests that `share_programs` have built and compiled."""
    from chomp.trainer.shared_programs import SharedPrograms

    return SharedPrograms()


@pytest.fixture(scope="module")
def share_programs(programs_of_this_process: Any) -> Iterator[None]:
    """Have the runs of this process share their programs, as the arms of a sweep do.

    To trace a step is most of a small run's work. Only for tests of something else: of data, files
    or trackers; none that changes what a program is made of, but for its config.
    """
    with pytest.MonkeyPatch.context() as patched:
        name = "chomp.trainer.components.SharedPrograms"
        patched.setattr(name, lambda: programs_of_this_process)
        yield


@pytest.fixture(scope="session")
def fork_server() -> Iterator[ForkServer]:
    """Starts programs that have imported chomp and JAX already."""
    server = ForkServer()
    yield server
    server.close()


@pytest.fixture(scope="session")
def start_chomp(fork_server: ForkServer) -> Iterator[Callable[..., Any]]:
    """Start `chomp ARGS` as a program of its own; what still runs at the end is killed.

    By a fork of a process that has the imports behind it; with `fresh`, variables that an import
    may read, or a standard input of its own, by a new Python.
    """
    program = Path(sysconfig.get_path("scripts")) / "chomp"
    started: list[Any] = []

    def start(*args: object, env: dict[str, str] | None = None, fresh: bool = False, **keys: Any):
        keys = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | keys
        environment = {**os.environ, **(env or {})}
        command = [str(program), *map(str, args)]
        if fresh or "stdin" in keys or not fork_server.can_start(environment):
            started.append(subprocess.Popen(command, env=environment, text=True, **keys))
        else:
            started.append(fork_server.start(command, environment, **keys))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def read_rows() -> Callable[[Path], list[Values]]:
    """Read a file of JSON lines, or the metrics of a run folder."""

    def read(path: Path) -> list[Values]:
        path = path / "metrics.jsonl" if path.is_dir() else path
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()]

    return read


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory, values: Callable[..., Values]) -> Path:
    """The folder of a small Megalodon's run, saved at steps 10, 20 and 30. Not to be written to."""
    folder = tmp_path_factory.mktemp("small")
    config = folder / "config.yaml"
    # A high rate: after some steps it writes letters, and at each step others.
    sections = {
        "train": {"steps": 30},
        "optim": {"lr": 0.02},
        "checkpoint": {"save_every": 10},
    }
    config.write_text(yaml.safe_dump(values("megalodon", **sections)), "utf-8")
    done = in_process("train", config, "--run-dir", folder / "run")
    assert done.code == 0, done.err
    return folder / "run"


@pytest.fixture(scope="session")
def evaluated_run(tmp_path_factory: pytest.TempPathFactory, values: Callable[..., Values]) -> Path:
    """The folder of a run that is evaluated and saved at steps 2 and 4. Not to be written to."""
    folder = tmp_path_factory.mktemp("evaluated")
    sections = {"train": {"eval_every": 2}, "checkpoint": {"save_every": 2}}
    (folder / "config.yaml").write_text(yaml.safe_dump(values("megalodon", **sections)), "utf-8")
    done = in_process("train", folder / "config.yaml", "--run-dir", folder / "run")
    assert done.code == 0, done.err
    return folder / "run"

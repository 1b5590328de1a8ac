"""What the environment may change of a run's numbers: nothing that goes unnoticed."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import pytest

from chomp.config import Config
from chomp.system.environment import computing_environment, drop_jax_options
from chomp.system.jax_runtime import gpu_compiler_options, numeric_environment

OWN = gpu_compiler_options()
# Of those that aren't switches, values that would change numbers, or end a run.
OTHERS = {
    "JAX_DEFAULT_MATMUL_PRECISION": "bfloat16",
    "JAX_DEFAULT_PRNG_IMPL": "rbg",
    "JAX_NUMPY_DTYPE_PROMOTION": "strict",
    "JAX_NUMPY_RANK_PROMOTION": "raise",
    "JAX_RANDOM_SEED_OFFSET": "7",
    "JAX_TRANSFER_GUARD": "disallow",
    "JAX_LEGACY_PRNG_KEY": "error",
    "JAX_OPTIMIZATION_LEVEL": "O0",
    "JAX_ERROR_CHECKING_BEHAVIOR_NAN": "raise",
}
CHILD = """
import json, os
from chomp.system.jax_runtime import prepare_environment
warnings = prepare_environment()
import jax
print(json.dumps([warnings, {k: str(v) for k, v in jax.config.values.items()}]))
"""


def options_of_a_child(environ: dict[str, str]) -> tuple[list[str], dict[str, str]]:
    """What a process warns of, and JAX's options in it, with these environment variables too."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD],
        env={k: v for k, v in os.environ.items() if not k.startswith("JAX_")} | environ,
        capture_output=True,
        text=True,
        check=True,
    )
    warnings, options = json.loads(done.stdout)
    return warnings, options


def test_no_option_of_jax_comes_from_the_environment():
    """All that JAX knows, switched to what isn't its default, and JAX started behind chomp."""
    switches = {k.upper(): v for k, v in jax.config.values.items() if isinstance(v, bool)}
    environ = {name: str(int(not value)) for name, value in switches.items()} | OTHERS
    environ = {name: value for name, value in environ.items() if name.startswith("JAX_")}
    assert len(environ) > 50
    warnings, found = options_of_a_child(environ)
    heeded = {name for name in environ if name not in warnings[0]}
    # Reports, caches and connections.
    words = ("CACHE", "LOG", "DUMP", "INCLUDE", "SHARE_BINARY", "PROXY", "DISTRIBUTED", "PPRINT")
    assert all(any(word in name for word in words) for name in heeded), heeded
    # Not those of this process, in which other tests have set some.
    _, undisturbed = options_of_a_child({})
    differ = {name for name in found if found[name] != undisturbed[name]}
    assert not {name.upper() for name in differ} & (environ.keys() - heeded)


def test_options_that_say_where_it_runs_are_heeded():
    environ = {
        "JAX_PLATFORMS": "cpu",
        "JAX_COORDINATOR_ADDRESS": "a:1",
        "JAX_NUM_PROCESSES": "2",
        "JAX_PROCESS_ID": "1",
        "JAX_COMPILATION_CACHE_DIR": "x",
        "HOME": "/",
    }
    given = dict(environ)
    assert drop_jax_options(environ) == []
    assert environ == given
    environ["JAX_ENABLE_X64"] = "1"
    assert drop_jax_options(environ)[0].startswith("JAX_ENABLE_X64=1: not heeded")
    assert environ == given


@pytest.mark.parametrize(
    ("flags", "kept"),
    [
        ("--xla_cpu_enable_fast_math=true", "--xla_cpu_enable_fast_math=true"),
        ("--xla_b=2 --xla_a=1 --xla_b=3", "--xla_a=1 --xla_b=3"),
        ("--xla_force_host_platform_device_count=4 --xla_dump_to=x", None),
        ("--xla_gpu_deterministic_ops=true", None),  # as chomp has it
        ("--xla_gpu_deterministic_ops", None),
        ("--xla_gpu_deterministic_ops=false", "--xla_gpu_deterministic_ops=false"),
        ("", None),
    ],
)
def test_flags_of_xla_count_unless_they_change_no_number(
    flags: str, kept: str | None, tmp_path: Path
):
    expected = {"XLA_FLAGS": kept} if kept else {}
    assert computing_environment({"XLA_FLAGS": flags}, OWN) == expected
    file = tmp_path / "flags"
    file.write_text(flags.replace(" ", "\n"))
    assert computing_environment({"XLA_FLAGS": str(file)}, OWN) == expected


def test_variables_below_xla_count():
    environ = {"NVIDIA_TF32_OVERRIDE": "1", "LIBTPU_INIT_ARGS": ""}
    assert computing_environment(environ, OWN) == {"NVIDIA_TF32_OVERRIDE": "1"}


def test_a_resume_in_another_environment_is_refused(
    chomp: Any,
    config_file: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_config: Callable[..., Config],
):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    assert numeric_environment() == {}
    config, run = config_file(), tmp_path / "run"
    assert chomp("train", config, "--run-dir", run).code == 0
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    resume = ["train", config, "--run-dir", run, "--resume", "latest", "-o", "train.steps=5"]
    refused = chomp(*resume)
    assert refused.code == 2
    assert "environment.XLA_FLAGS: was None, now '--xla_cpu_enable_fast_math=true'" in refused.err
    assert "--allow-change environment.XLA_FLAGS" in refused.err
    allowed = chomp(*resume, "--allow-change", "environment.XLA_FLAGS")
    assert allowed.code == 0, allowed.err
    monkeypatch.delenv("XLA_FLAGS")
    again = ["train", config, "--run-dir", run, "--resume", "latest", "-o", "train.steps=6"]
    assert chomp(*again).code == 2
    assert chomp(*again, "--allow-change", "environment").code == 0


def test_a_checkpoint_that_knows_no_environment_goes_on(
    chomp: Any, config_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As those of earlier versions."""
    monkeypatch.setattr("chomp.trainer.callbacks.checkpoint.ENVIRONMENT", "not_known")
    config, run = config_file(), tmp_path / "run"
    assert chomp("train", config, "--run-dir", run).code == 0
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    done = chomp("train", config, "--run-dir", run, "--resume", "latest", "-o", "train.steps=5")
    assert done.code == 0, done.err


def test_a_resume_on_another_number_of_processors_computes_with_as_many_threads(
    chomp: Any, config_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """XLA cuts large sums on a CPU by the number of its threads."""
    monkeypatch.delenv("NPROC", raising=False)
    config, run = config_file(), tmp_path / "run"
    resume = ["train", config, "--run-dir", run, "--resume", "latest", "-o"]
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    assert chomp("train", config, "--run-dir", run).code == 0
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    done = chomp(*resume, "train.steps=5")
    assert "threads    3, as before" in done.out
    assert os.environ["NPROC"] == "3"
    monkeypatch.setenv("NPROC", "64")  # the user's word
    assert "NPROC: was 3, now 64; results may differ" in chomp(*resume, "train.steps=6").out
    assert "NPROC" not in chomp(*resume, "train.steps=7").out


def test_xla_takes_its_number_of_threads_from_there():
    """What the test above relies on, on one processor."""
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "import jax, numpy as np\n"
        "a = np.random.default_rng(0).standard_normal((64, 4096)).astype('float32')\n"
        "print(float(jax.jit(jax.numpy.sum)(a)).hex())\n"
    )
    found = {}
    for threads in ("1", "4"):
        env = os.environ | {"NPROC": threads, "JAX_PLATFORMS": "cpu"}
        command = [sys.executable, "-c", code]
        found[threads] = subprocess.run(command, env=env, capture_output=True, check=True).stdout
    assert found["1"] != found["4"]

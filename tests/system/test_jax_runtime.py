import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from chomp.system.jax_runtime import cpu_compiler_options, gpu_compiler_options, memory_readings

TRITON_OFF = "--xla_gpu_enable_triton_gemm=false"
ADDED = f"--xla_gpu_deterministic_ops=true {TRITON_OFF}"

# What the commands do first, and what it left: warnings, flags, and whether JAX was there.
CHILD = """
import json, logging, os, sys
logging.basicConfig(level="DEBUG", stream=sys.stderr)
from chomp.system.jax_runtime import prepare_environment
warnings = prepare_environment()
print(json.dumps([warnings, os.environ.get("XLA_FLAGS"), "jax" in sys.modules]))
"""


@pytest.fixture
def path_with(tmp_path: Path) -> Callable[[str | None], dict[str, str]]:
    """Make a PATH whose nvidia-smi is a script with this body; None: there is none."""

    def make(body: str | None) -> dict[str, str]:
        tools = tmp_path / "tools"
        tools.mkdir(exist_ok=True)
        if body is not None:
            script = tools / "nvidia-smi"
            script.write_text(f"#!/bin/sh\n{body}\n")
            script.chmod(0o755)
        environ = {k: v for k, v in os.environ.items() if not k.startswith("XLA_")}
        return environ | {"PATH": f"{tools}:/nowhere"}

    return make


def prepare(environ: dict[str, str]) -> tuple[list[str], str | None, str]:
    done = subprocess.run(
        [sys.executable, "-c", CHILD], env=environ, capture_output=True, text=True, check=True
    )
    warnings, flags, has_jax = json.loads(done.stdout)
    assert not has_jax
    return warnings, flags, done.stderr


def smi(name: str) -> str:
    """A stand-in that answers the question for names, and fails at any other."""
    return f'[ "$*" = "--query-gpu=name --format=csv,noheader" ] || exit 6\necho "{name}"'


def test_a_5090_gets_the_flag_behind_those_that_are_set(path_with: Any):
    environ = path_with(smi("NVIDIA GeForce RTX 5090"))
    environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
    warnings, flags, _ = prepare(environ)
    assert flags == f"--xla_force_host_platform_device_count=2 {ADDED}"
    assert len(warnings) == 2
    assert "RTX 5090" in warnings[0] and TRITON_OFF in warnings[0]
    assert "XLA_PYTHON_CLIENT_PREALLOCATE=false" in warnings[1]


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA GeForce RTX 5070 Ti",
        "NVIDIA GeForce RTX 5060 Laptop GPU",
        "NVIDIA RTX 5090",
        "NVIDIA GeForce RTX 5090D",
    ],
)
def test_other_cards_of_the_series_get_it_too(path_with: Any, name: str):
    warnings, flags, _ = prepare(path_with(smi(name)))
    assert flags == ADDED
    assert warnings[0] == f"{name}: added {TRITON_OFF} to XLA_FLAGS"


@pytest.mark.parametrize("value", ["false", "False", "0", "true", "FALSE", ""])
def test_preallocation_is_mentioned_unless_it_is_off(path_with: Any, value: str):
    environ = path_with(smi("NVIDIA GeForce RTX 5080"))
    environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = value
    warnings, *_ = prepare(environ)
    assert any("PREALLOCATE" in line for line in warnings) == (
        value not in ("false", "False", "0")  # what JAX takes for false
    )


def test_a_flag_that_the_user_has_set_stays_with_a_warning(path_with: Any):
    environ = path_with(smi("NVIDIA GeForce RTX 5090"))
    environ["XLA_FLAGS"] = "--xla_gpu_enable_triton_gemm=true"
    warnings, flags, _ = prepare(environ)
    assert flags == "--xla_gpu_enable_triton_gemm=true --xla_gpu_deterministic_ops=true"
    assert "--xla_gpu_enable_triton_gemm=true, which stays" in warnings[0]
    assert "CUDA_ERROR_OUT_OF_MEMORY" in warnings[0] and TRITON_OFF in warnings[0]


def test_a_flag_whose_name_begins_alike_is_another(path_with: Any):
    environ = path_with(smi("NVIDIA H100 80GB HBM3"))
    environ["XLA_FLAGS"] = "--xla_gpu_enable_triton_gemm_any=true"
    assert prepare(environ)[1] == f"--xla_gpu_enable_triton_gemm_any=true {ADDED}"


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        # Products are timed then, and Triton's may win; on an RTX 50xx they may not.
        ("NVIDIA H200", "--xla_gpu_deterministic_ops=false"),
        (
            "NVIDIA GeForce RTX 5080",
            f"--xla_gpu_deterministic_ops=false {TRITON_OFF}",
        ),
    ],
)
def test_who_wants_no_determinism_gets_none(path_with: Any, name: str, flags: str):
    environ = path_with(smi(name)) | {"XLA_FLAGS": "--xla_gpu_deterministic_ops=false"}
    assert prepare(environ)[1] == flags


def test_flags_in_a_file_are_left_alone(path_with: Any):
    for name, expected in (("NVIDIA H200", 0), ("NVIDIA GeForce RTX 5090", 2)):
        environ = path_with(smi(name)) | {"XLA_FLAGS": "flags.txt"}
        warnings, flags, _ = prepare(environ)
        assert (flags, len(warnings)) == ("flags.txt", expected)


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA GeForce RTX 4090",
        "NVIDIA H200",
        "NVIDIA RTX 5000 Ada Generation",
        "Quadro RTX 5000",
        "NVIDIA RTX PRO 5000 Blackwell",
    ],
)
def test_other_gpus_get_the_flags_quietly(path_with: Any, name: str):
    warnings, flags, log = prepare(path_with(smi(name)))
    assert (warnings, flags) == ([], ADDED)
    assert f"DEBUG:chomp.system.jax_runtime:{name}: added {ADDED} to XLA_FLAGS" in log
    assert all(line.startswith("DEBUG:chomp.system.jax_runtime:") for line in log.splitlines())


@pytest.mark.parametrize(
    "body",
    ["echo NVIDIA GeForce RTX 5090; exit 9", "exit 0", None],
    ids=["failing", "silent", "missing"],
)
def test_machines_without_a_gpu_are_left_alone(path_with: Any, body: str | None):
    warnings, flags, log = prepare(path_with(body))
    assert (warnings, flags) == ([], None)
    assert log.splitlines()
    assert all(line.startswith("DEBUG:chomp.system.jax_runtime:") for line in log.splitlines())


def test_one_of_several_cards_is_enough(path_with: Any):
    body = smi("NVIDIA GeForce RTX 4090\nNVIDIA GeForce RTX 5090")
    warnings, flags, _ = prepare(path_with(body))
    assert flags == ADDED
    assert warnings[0].startswith("NVIDIA GeForce RTX 5090: added")


def test_a_command_sets_the_flags_before_jax_is_imported(
    path_with: Any, config_file: Any, tmp_path: Path
):
    """The whole command: JAX starts with the flag, and the user reads why."""
    spy = """
import os, sys
class Spy:
    def find_spec(self, name, path=None, target=None):
        if name == "jax" and self in sys.meta_path:
            sys.meta_path.remove(self)
            print("JAX COMES WITH", os.environ.get("XLA_FLAGS"), file=sys.stderr)
sys.meta_path.insert(0, Spy())
from chomp.cli import main
main(sys.argv[1:])
"""
    environ = path_with(smi("NVIDIA GeForce RTX 5090"))
    command = [sys.executable, "-c", spy, "train", config_file(), "--dry-run"]
    done = subprocess.run(
        command, env=environ, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert f"JAX COMES WITH {ADDED}\n" in done.stderr
    assert "warning: NVIDIA GeForce RTX 5090: added" in done.stderr
    assert "dry run: nothing was written" in done.stdout


def test_the_log_file_tells_what_was_done_before_there_was_one(
    path_with: Any, config_file: Any, tmp_path: Path
):
    environ = path_with(smi("NVIDIA H200"))
    config = config_file(logging={"level": "DEBUG"})
    command = [sys.executable, "-m", "chomp", "train", config, "--run-dir", tmp_path / "run"]
    done = subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    log = (tmp_path / "run" / "train.log").read_text("utf-8")
    assert f"chomp.system.jax_runtime: NVIDIA H200: added {ADDED} to XLA_FLAGS" in log


def test_flags_are_known_to_xla():
    """XLA ends a process whose flags it doesn't know."""
    flags = " ".join(
        f"--{name}={json.dumps(value)}" for name, value in gpu_compiler_options().items()
    )
    assert flags == ADDED
    done = start({"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags})
    assert done.stdout.startswith("1 x "), done.stderr


def test_memory_is_read(tmp_path: Path):
    readings = memory_readings()
    assert set(readings) == {"peak_memory_gb", "device_memory_gb"}
    assert 0.01 < readings["device_memory_gb"] <= readings["peak_memory_gb"] * 1.01 < 1000


def start(environ: dict[str, str], cache: str | None = None) -> subprocess.CompletedProcess[str]:
    script = f"""
from chomp.errors import ConfigError
from chomp.system.jax_runtime import start_jax
try:
    print(start_jax(allow_cpu=True, compile_cache={cache!r}))
except ConfigError as error:
    print("refused:", error)
"""
    command = [sys.executable, "-c", script]
    return subprocess.run(command, env=os.environ | environ, capture_output=True, text=True)


@pytest.mark.parametrize("platform", ["cuda", "gup"])
def test_a_platform_that_is_not_there_is_refused_by_the_name_of_its_variable(platform: str):
    done = start({"JAX_PLATFORMS": platform, "CUDA_VISIBLE_DEVICES": ""})
    assert done.stdout.startswith("refused: JAX doesn't start"), done.stderr
    assert f"JAX_PLATFORMS is '{platform}'" in done.stdout


def test_a_compile_cache_that_can_not_be_made_is_a_warning(tmp_path: Path):
    file = tmp_path / "file"
    file.write_text("")
    done = start({"JAX_PLATFORMS": "cpu"}, cache=str(file / "cache"))
    assert done.stdout.startswith("1 x "), done.stderr
    assert done.stderr.startswith("warning: runtime.compile_cache: ")


def test_products_of_narrow_models_are_eigen_s_on_a_cpu(monkeypatch):
    def fusions(width: int) -> int:
        product = jax.jit(
            lambda a, b: jnp.tanh(a @ b), compiler_options=cpu_compiler_options(width)
        )
        x = jnp.ones((64, 64))
        return product.lower(x, x).compile().as_text().count("__ynn_fusion")

    monkeypatch.delenv("XLA_FLAGS", raising=False)
    assert fusions(128) == 0
    assert fusions(512) == 1
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_experimental_ynn_fusion_type=-reduce")
    assert cpu_compiler_options(128) == {}  # the user's flag stays

"""The process around JAX: flags, devices, compile cache, memory.

`prepare_environment` must run before JAX is imported, so nothing here imports it at the top.
"""

import importlib.metadata
import logging
import os
import re
import resource
import subprocess
import sys
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from chomp.errors import ConfigError
from chomp.system.compile_cache import cache_folder, trim
from chomp.system.environment import computing_environment, drop_jax_options, xla_flags
from chomp.system.memory import compute_in_calling_thread, keep_freed_memory

log = logging.getLogger(__name__)

GIB = 1 << 30
GPU_COMPILER = "jax-cuda13-pjrt"
GPU_PLUGIN = "jax_plugins.xla_cuda13"
"""The module of `GPU_COMPILER`, which JAX imports wherever it is installed, and its logger."""
CAN_RUN = ("jax-cuda12-plugin", "jax-cuda13-plugin", "libtpu")
"""Packages that let JAX use an accelerator."""
DETERMINISTIC, TRITON = "xla_gpu_deterministic_ops", "xla_gpu_enable_triton_gemm"
YNNPACK = "xla_cpu_experimental_ynn_fusion_type"
NARROW = 256
"""Channels up to which a model is narrow."""
# Not "Quadro RTX 5000" and "RTX 5000 Ada Generation", which are older designs.
_BLACKWELL = re.compile(r"\bRTX\s*50[5-9]\d(?!\d)", re.IGNORECASE)

NO_ACCELERATOR = (
    "train.allow_cpu: JAX found no accelerator, only a CPU; set it to true to train there, or "
    "install JAX for your GPU (pip install 'chomp[cuda]')"
)

OFF = ("false", "False", "0")
"""Words that JAX takes for false in this variable; any other is true to it."""

LEAST_SECONDS = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
"""Variable with the seconds of compiling from which on JAX keeps a program."""
THREADS = "NPROC"
"""Variable in which XLA looks for the number of threads, before it counts the processors."""

_notes: list[str] = []
"""Log lines of the time before there was a log file."""


def gpu_compiler_options() -> dict[str, bool | str | int]:
    """Return the settings of XLA that a run on NVIDIA GPUs has unless its user decides otherwise.

    They can be compiler options of `jax.stages.Lowered.compile`, or flags of `XLA_FLAGS` with two
    dashes in front. docs/gpu.md has what each of them changes, and what it costs.
    """
    return {
        # A resumed run repeats a straight one bit for bit only if sums don't depend on which
        # thread comes first, and kernels not on which of them was faster at this start.
        DETERMINISTIC: True,
        # Where none is timed XLA takes Triton's first kernel for every product, of 32 x 32 tiles,
        # and without Triton the one that cuBLAS itself recommends. On an RTX 50xx, besides,
        # Triton's can end in CUDA_ERROR_OUT_OF_MEMORY.
        TRITON: False,
    }


def cpu_compiler_options(width: int) -> dict[str, str | bool]:
    """Return the settings of XLA that a run on a CPU has unless `XLA_FLAGS` decides otherwise.

    XLA has YNNPACK compute sums and products. In the step of a narrow model, whose products are
    small, Eigen's products are faster: docs/step.md has the figures.

    Args:
        width: channels of the model.
    """
    given = _given_flags(xla_flags(os.environ))
    if width > NARROW or YNNPACK in given:
        return {}
    return {YNNPACK: "LIBRARY_FUSION_TYPE_REDUCE"}


CPU_ONCE: dict[str, str | bool] = {
    "xla_backend_optimization_level": "0",
    "xla_cpu_use_fusion_emitters": False,
}
"""Settings of XLA on a CPU for a program that runs once: initial values compile in a fifth of the
time."""


def prepare_environment(environ: MutableMapping[str, str] | None = None) -> list[str]:
    """Set the flags that must stand before JAX starts; return warnings for the user.

    Where an NVIDIA GPU is seen they are `gpu_compiler_options`, without those that the user has
    set. Options of JAX that would change what is computed are taken out. Warnings are about those
    and RTX 50xx alone; all else is for the log (`log_environment`).
    """
    environ = os.environ if environ is None else environ
    dropped = drop_jax_options(environ)
    # The data pipeline guarantees the ranges that the model would check at run time: the checks
    # are host callbacks, which cost time in each step and keep programs out of the compile cache.
    environ.setdefault("EQX_ON_ERROR", "off")
    environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    on_cpu = not any(map(is_installed, CAN_RUN))
    if on_cpu or environ.get("JAX_PLATFORMS") == "cpu":
        keep_freed_memory()
    if is_installed(GPU_COMPILER) and on_cpu:
        # JAX would take the compiler of the extra `plan` for a GPU's, and report an error.
        environ.setdefault("JAX_PLATFORMS", "cpu")
        # Nor is it news that the half of it that would run programs isn't there.
        logging.getLogger(GPU_PLUGIN).setLevel(logging.ERROR)
    _notes.clear()
    names = gpu_names(environ)
    if not names:
        _note("no NVIDIA GPU: XLA_FLAGS left as they are")
        return dropped
    blackwell = next(filter(_BLACKWELL.search, names), None)
    warnings = _add_flags(environ, names[0], blackwell)
    if blackwell and environ.get("XLA_PYTHON_CLIENT_PREALLOCATE", "") not in OFF:
        warnings.append(
            f"{blackwell}: set XLA_PYTHON_CLIENT_PREALLOCATE=false, "
            "or JAX reserves most of the GPU's memory at the start"
        )
    return dropped + warnings


def numeric_environment() -> dict[str, str]:
    """Return the variables that may change a run's numbers, with what of them the user has set."""
    return computing_environment(os.environ, gpu_compiler_options())


def is_installed(distribution: str) -> bool:
    """Say whether a package is, by its name in the registry; without importing it."""
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _add_flags(environ: MutableMapping[str, str], gpu: str, blackwell: str | None) -> list[str]:
    """Add what the user hasn't set to `XLA_FLAGS`; return warnings about Triton on an RTX 50xx."""
    text = environ.get("XLA_FLAGS", "")
    if text.strip() and not text.lstrip().startswith("--"):
        _note(f"XLA_FLAGS names a file, {text}: no flag added")
        file = f"{blackwell}: XLA_FLAGS names a file; add {_flag(TRITON, False)} to it"
        return [file] if blackwell else []
    given = _given_flags(text)
    wanted = gpu_compiler_options()
    if not given.get(DETERMINISTIC, True) and not blackwell:
        del wanted[TRITON]  # kernels are timed then, and Triton's win where they are faster
    added = [_flag(name, value) for name, value in wanted.items() if name not in given]
    environ["XLA_FLAGS"] = " ".join([*text.split(), *added])
    for name in wanted.keys() & given.keys():
        _note(f"{gpu}: {_flag(name, given[name])} stays as XLA_FLAGS has it")
    if added:
        _note(f"{gpu}: added {' '.join(added)} to XLA_FLAGS, for exact resumes")
    if not blackwell:
        return []
    if given.get(TRITON):
        return [
            f"{blackwell}: XLA_FLAGS has {_flag(TRITON, True)}, which stays; if products end in "
            f"CUDA_ERROR_OUT_OF_MEMORY, set {_flag(TRITON, False)}"
        ]
    off = _flag(TRITON, False)
    return [f"{blackwell}: added {off} to XLA_FLAGS"] if off in added else []


def _given_flags(text: str) -> dict[str, bool]:
    """Return the flags in a text, and whether each is on; given twice, the last counts."""
    pairs = (word.lstrip("-").partition("=") for word in text.split())
    return {name: value.lower() not in ("false", "0") for name, _, value in pairs}


def _flag(name: str, value: bool | str | int) -> str:
    return f"--{name}={str(value).lower() if isinstance(value, bool) else value}"


def _note(line: str) -> None:
    log.debug(line)
    _notes.append(line)


def log_environment() -> None:
    """Log what `prepare_environment` did, now that there is a log file."""
    for line in _notes:
        log.debug(line)
    log.debug("XLA_FLAGS: %s", os.environ.get("XLA_FLAGS", "not set"))


def gpu_names(environ: Mapping[str, str]) -> list[str]:
    """Return the names of the NVIDIA GPUs that the driver sees."""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=10, env=dict(environ), check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        _note(f"no GPU names from nvidia-smi: {error}")
        return []
    return [line.strip() for line in answer.stdout.splitlines() if line.strip()]


def start_jax(
    *, allow_cpu: bool, compile_cache: str | None, compile_cache_gb: float | None = None
) -> str:
    """Configure JAX and return a description of the device.

    Args:
        allow_cpu: whether a machine without an accelerator is good enough.
        compile_cache: folder of compiled programs, as `runtime.compile_cache`; None: no cache.
        compile_cache_gb: what it may hold; None: any amount.

    Raises:
        ConfigError: JAX doesn't start, or there is only a CPU and `allow_cpu` is false.
    """
    import jax

    log_environment()
    compute_in_calling_thread()
    if compile_cache is not None and (folder := _cache_folder(compile_cache)):
        if compile_cache_gb is not None and (gone := trim(folder, compile_cache_gb * 1e9)).programs:
            log.info("compile cache: deleted %d programs, %d bytes", *gone)
        jax.config.update("jax_compilation_cache_dir", str(folder))
        if LEAST_SECONDS not in os.environ:
            jax.config.update(LEAST_SECONDS.lower(), 0.2)
    try:
        device = jax.devices()[0]
    except (RuntimeError, AssertionError) as error:  # the latter for `cuda` without its plugin
        wanted = os.environ.get("JAX_PLATFORMS", "")
        reason = str(error).split("\n")[0] or "there is no such device, or no JAX for it"
        raise ConfigError(
            [
                f"JAX doesn't start: {reason}; the environment variable JAX_PLATFORMS is "
                f"{wanted!r}: unset it, or install JAX for your GPU (pip install 'chomp[cuda]')"
            ]
        ) from error
    if device.platform == "cpu" and not allow_cpu:
        raise ConfigError([NO_ACCELERATOR])
    return f"{jax.device_count()} x {device.device_kind}"


def _cache_folder(name: str) -> Path | None:
    """Make the folder; say so where it can't be, as the run goes on without."""
    folder = name
    try:
        folder = cache_folder(name)
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
        reason = "it can't be written to"
    except (OSError, RuntimeError) as error:  # the latter without a home folder
        reason = error.strerror if isinstance(error, OSError) else str(error)
    print(
        f"warning: runtime.compile_cache: no folder {folder} ({reason}); "
        "programs are compiled anew at each start",
        file=sys.stderr,
    )
    return None


def cpu_threads() -> int:
    """Return how many threads XLA computes with on a CPU: its large sums depend on that."""
    given = os.environ.get(THREADS, "")
    if given.isdecimal() and int(given):
        return int(given)
    has_affinity = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1


def keep_cpu_threads(before: int | None) -> str | None:
    """Have XLA compute with as many threads as before, unless the user says otherwise.

    Works before JAX starts. Returns a line for the user where the number is another than it would
    be; None where all is as before, or where it wasn't on a CPU.
    """
    here = cpu_threads()
    if before is None or before == here:
        return None
    if THREADS in os.environ:
        return (
            f"warning: {THREADS}: was {before}, now {here}; results may differ in their last bits "
            "from here on"
        )
    os.environ[THREADS] = str(before)
    return (
        f"threads    {before}, as before, so that sums are the same (this machine has {here}; "
        f"{THREADS}={here} in the environment uses them)"
    )


def memory_readings() -> dict[str, float]:
    """Return `peak_memory_gb` and `device_memory_gb` in GiB.

    On an accelerator both are the device's own counts; on a CPU they are the process's resident
    memory. A reading that the platform doesn't offer is left out.
    """
    import jax

    stats = jax.local_devices()[0].memory_stats()
    if stats:
        names = {"peak_memory_gb": "peak_bytes_in_use", "device_memory_gb": "bytes_in_use"}
        return {ours: stats[theirs] / GIB for ours, theirs in names.items() if theirs in stats}
    import psutil

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak_bytes = peak if sys.platform == "darwin" else peak * 1024
    return {
        "peak_memory_gb": peak_bytes / GIB,
        "device_memory_gb": psutil.Process().memory_info().rss / GIB,
    }

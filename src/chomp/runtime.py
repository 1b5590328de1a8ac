"""The process around JAX: flags, devices, compile cache, memory.

`prepare_environment` must run before JAX is imported, so nothing here imports it at the top.
"""

import logging
import os
import re
import resource
import subprocess
import sys
from collections.abc import MutableMapping
from pathlib import Path

from chomp.errors import ConfigError

log = logging.getLogger(__name__)

TRITON_GEMM_OFF = "--xla_gpu_enable_triton_gemm=false"
GIB = 1 << 30
# GeForce, since "Quadro RTX 5000" and "RTX 5000 Ada" are older designs.
_BLACKWELL = re.compile(r"\bGeForce\s+RTX\s*50\d\d\b", re.IGNORECASE)


def prepare_environment(environ: MutableMapping[str, str] | None = None) -> list[str]:
    """Set the flags that must stand before JAX starts; return warnings for the user.

    On a GeForce RTX 50xx, Triton's matrix products can end in `CUDA_ERROR_OUT_OF_MEMORY`, so
    they are switched off there; other machines are left alone.
    """
    environ = os.environ if environ is None else environ
    # The data pipeline guarantees the ranges that the model would check at run time: the checks
    # are host callbacks, which cost time in each step and keep programs out of the compile cache.
    environ.setdefault("EQX_ON_ERROR", "off")
    environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    names = _gpu_names(environ)
    blackwell = [name for name in names if _BLACKWELL.search(name)]
    if not blackwell:
        log.debug("no RTX 50xx among the GPUs %s: XLA_FLAGS left as they are", names)
        return []
    warnings = []
    flags = environ.get("XLA_FLAGS", "")
    if "--xla_gpu_enable_triton_gemm" not in flags:
        environ["XLA_FLAGS"] = f"{flags} {TRITON_GEMM_OFF}".strip()
        warnings.append(f"{blackwell[0]}: added {TRITON_GEMM_OFF} to XLA_FLAGS")
    if environ.get("XLA_PYTHON_CLIENT_PREALLOCATE", "").lower() != "false":
        warnings.append(
            f"{blackwell[0]}: set XLA_PYTHON_CLIENT_PREALLOCATE=false, "
            "or JAX reserves most of the GPU's memory at the start"
        )
    return warnings


def _gpu_names(environ: MutableMapping[str, str]) -> list[str]:
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=10, env=dict(environ), check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        log.debug("no GPU names from nvidia-smi: %s", error)
        return []
    return [line.strip() for line in answer.stdout.splitlines() if line.strip()]


def start_jax(*, allow_cpu: bool, compile_cache: str | None) -> str:
    """Configure JAX and return a description of the device.

    Args:
        allow_cpu: whether a machine without an accelerator is good enough.
        compile_cache: folder of compiled programs (`~` is the home folder); None: no cache.

    Raises:
        ConfigError: JAX doesn't start, or there is only a CPU and `allow_cpu` is false.
    """
    import jax

    # When `prepare_environment` set it there was no log file yet.
    log.debug("XLA_FLAGS: %s", os.environ.get("XLA_FLAGS", "not set"))
    if compile_cache is not None and (folder := _cache_folder(compile_cache)):
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
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
        raise ConfigError(
            [
                "train.allow_cpu: JAX found no accelerator, only a CPU; set it to true to train "
                "there, or install JAX for your GPU (pip install 'chomp[cuda]')"
            ]
        )
    return f"{jax.device_count()} x {device.device_kind}"


def _cache_folder(name: str) -> Path | None:
    """Make the folder; say so where it can't be, as the run goes on without."""
    try:
        folder = Path(name).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
        reason = "it can't be written to"
    except (OSError, RuntimeError) as error:  # the latter without a home folder
        reason = error.strerror if isinstance(error, OSError) else str(error)
    print(
        f"warning: runtime.compile_cache: no folder {name} ({reason}); "
        "programs are compiled anew at each start",
        file=sys.stderr,
    )
    return None


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

"""Environment variables that change what a run computes: those not heeded, those that count."""

import re
from collections.abc import Mapping, MutableMapping
from pathlib import Path

# Options of JAX that say where it runs, with whom, and what it reports: all that is left to the
# environment. Every other one, those of later versions too, may change numbers or end a step.
_HEEDED = re.compile(
    r"JAX_(PLATFORMS|PLATFORM_NAME|NUM_CPU_DEVICES|(CUDA|ROCM|ONEAPI)_VISIBLE_DEVICES"
    r"|COORDINATOR_\w+|NUM_PROCESSES|PROCESS_ID|LOCAL_DEVICE_IDS|CLUSTER_\w+|MOCK_\w+"
    r"|CPU_COLLECTIVES_\w+|CPU_GET_\w+|DISTRIBUTED_\w+|CROSS_HOST_\w+|SHARE_BINARY_\w+"
    r"|PJRT_\w+|CHECK_PROXY_ENVS|BACKEND_TARGET|XLA_BACKEND"
    r"|COMPILATION_CACHE_\w+|PERSISTENT_CACHE_\w+|ENABLE_COMPILATION_CACHE|RAISE_PERSISTENT_\w+"
    r"|EXPLAIN_\w+|LOG_\w+|LOGGING_\w+|DEBUG_LOG_MODULES|DUMP_\w+|INCLUDE_\w+|TRACEBACK_\w+"
    r"|TRACER_ERROR_\w+|COMPILER_DETAILED_\w+|CAPTURED_CONSTANTS_\w+|PPRINT_\w+"
    r"|XLA_PROFILE_VERSION|SOURCE_URL_\w+|HLO_SOURCE_\w+)"
)

# Flags of XLA that change no number: where it writes what, and how many devices a CPU shows.
_HARMLESS_FLAG = re.compile(
    r"xla_(dump_\w+|force_host_platform_device_count|hlo_profile|hlo_graph_\w+|log_\w+"
    r"|cpu_parallel_codegen_split_count|gpu_per_fusion_autotune_cache_dir"
    r"|gpu_dump_\w+|gpu_force_compilation_parallelism)"
)
# What the libraries below XLA take from the environment.
_OTHERS = ("LIBTPU_INIT_ARGS", "NVIDIA_TF32_OVERRIDE", "NCCL_ALGO", "NCCL_PROTO")


def drop_jax_options(environ: MutableMapping[str, str]) -> list[str]:
    """Take the options of JAX that change what is computed out of the environment.

    JAX reads them when it is imported. Returns a warning where there were any.
    """
    dropped = [name for name in environ if name.startswith("JAX_") and not _HEEDED.fullmatch(name)]
    shown = ", ".join(f"{name}={environ.pop(name)}" for name in sorted(dropped))
    return [f"{shown}: not heeded, as it may change what a run computes; unset it"] * bool(shown)


def computing_environment(
    environ: Mapping[str, str], own: Mapping[str, bool | str | int]
) -> dict[str, str]:
    """Return what in the environment may change the numbers of a run, by variable.

    Args:
        environ: environment variables.
        own: flags of XLA that chomp sets itself, with their values.
    """
    values = {name: environ[name] for name in _OTHERS if environ.get(name)}
    pairs = (flag.lstrip("-").partition("=") for flag in xla_flags(environ).split())
    flags = {name: value or "true" for name, _, value in pairs}  # given twice, the last counts
    kept = [
        f"--{name}={value}"
        for name, value in sorted(flags.items())
        if not _HARMLESS_FLAG.fullmatch(name) and str(own.get(name)).lower() != value.lower()
    ]
    return values | ({"XLA_FLAGS": " ".join(kept)} if kept else {})


def xla_flags(environ: Mapping[str, str]) -> str:
    """Return the flags of XLA, from the file that they are in where there is one."""
    text = environ.get("XLA_FLAGS", "").strip()
    if text and not text.startswith("--"):
        try:
            return Path(text).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return text  # XLA itself will say that there is no such file
    return text

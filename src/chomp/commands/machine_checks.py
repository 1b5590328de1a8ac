"""Checks of the machine and the installation, for `chomp doctor`."""

import netrc
import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from chomp.checkpoint.compatibility import package_versions
from chomp.commands.check import Check, ok, problem, warning
from chomp.config import LoggingConfig, Sections
from chomp.data import explain_unreachable
from chomp.errors import ConfigError
from chomp.system.compile_cache import cache_folder, held
from chomp.system.extras import EXTRAS, is_importable
from chomp.system.jax_runtime import CAN_RUN, GPU_COMPILER, gpu_names, is_installed, start_jax

GB = 1e9
LEAST_MEMORY, LEAST_DISK = 2 * GB, 5 * GB
"""Free bytes below which there is a warning."""
WANDB_SERVICE = "https://api.wandb.ai"


def machine_checks(config: Sections | None) -> Iterator[Check]:
    """Look at the machine and the installation; each finding comes when it is known.

    Args:
        config: what the machine is to run; None: nothing in particular.
    """
    versions = package_versions()
    named = ", ".join(f"{name} {number}" for name, number in versions.items())
    yield ok("versions", f"Python {platform.python_version()}, {named}")
    yield ok("extras", _extras())
    yield _device(config)
    yield _memory()
    settings = config or Sections()
    yield _disk(Path(settings.logging.run_dir or "runs"))
    yield _cache(settings.runtime.compile_cache)
    yield _hub(needed=config is not None and _names_a_dataset(config))
    yield _wandb(settings.logging)


def _names_a_dataset(config: Sections) -> bool:
    sources = config.data.by_source().values() or [config.data]
    return any(source.backend == "hf" for source in sources)


def _extras() -> str:
    there = {extra for package, extra in EXTRAS.items() if is_importable(package)}
    there -= {EXTRAS[package] for package in EXTRAS if not is_importable(package)}
    there |= {"cuda"} if any(map(is_installed, CAN_RUN)) else set()
    there |= {"plan"} if is_installed(GPU_COMPILER) else set()
    missing = {"cuda", "plan", *EXTRAS.values()} - there
    return f"{', '.join(sorted(there)) or 'none'}; not installed: {', '.join(sorted(missing))}"


def _device(config: Sections | None) -> Check:
    try:
        found = start_jax(allow_cpu=True, compile_cache=None)
    except ConfigError as error:
        return problem("device", str(error))
    import jax

    if jax.default_backend() != "cpu":
        return ok("device", found)
    install = "install JAX for it: pip install 'chomp[cuda]'"
    if names := gpu_names(os.environ):
        return problem("device", f"JAX sees only the CPU, but there is a {names[0]}", install)
    if config is not None and config.train.allow_cpu:
        return ok("device", f"{found}, as train.allow_cpu allows")
    allow = "set train.allow_cpu: true to train on it; with a GPU, " + install
    return (problem if config else warning)("device", "no accelerator, only a CPU", allow)


def _memory() -> Check:
    memory = psutil.virtual_memory()
    found = (
        f"{os.cpu_count()} processors, {memory.available / GB:.1f} GB of memory free "
        f"of {memory.total / GB:.1f}"
    )
    if memory.available < LEAST_MEMORY:
        return warning("memory", found, "end other programs, or train a smaller model")
    return ok("memory", found)


def _disk(folder: Path) -> Check:
    there = _existing(folder)
    found = f"{shutil.disk_usage(there).free / GB:.1f} GB free for run folders in {folder}"
    if not os.access(there, os.W_OK):
        return problem("disk", f"{there} can't be written to", "give another folder: --run-dir")
    if shutil.disk_usage(there).free < LEAST_DISK:
        return warning("disk", found, "make room, or set checkpoint.max_to_keep lower")
    return ok("disk", found)


def _cache(name: str | None) -> Check:
    if name is None:
        return ok("cache", "none (runtime.compile_cache: null)")
    another = "set runtime.compile_cache to a folder that can be; else each start compiles anew"
    try:
        folder = cache_folder(name)
    except RuntimeError as error:
        return warning("cache", str(error), another)
    there = _existing(folder)
    if not os.access(there, os.W_OK):
        return warning("cache", f"{there} can't be written to", another)
    count = held(folder)
    free = shutil.disk_usage(there).free / GB
    size = f"{count.programs:,} compiled programs, {count.bytes / 1e6:,.1f} MB"
    return ok("cache", f"{folder}: {size}, {free:.1f} GB free")


def _existing(folder: Path) -> Path:
    """Return the folder, or the innermost one above it that is there."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())


def _hub(*, needed: bool) -> Check:
    if reason := explain_unreachable():
        fix = "check the network and its proxy; local files and data need none"
        return (problem if needed else warning)("network", reason, fix)
    return ok("network", "the Hugging Face Hub answers")


def _wandb(config: LoggingConfig) -> Check:
    wanted = config.wandb.enabled
    if not is_importable("wandb"):
        missing = "not installed"
        if wanted:
            return problem("W&B", missing, "run pip install 'chomp[wandb]'")
        return ok("W&B", f"{missing}, not needed")
    if _logged_in():
        return ok("W&B", "installed, logged in")
    mode = config.wandb.mode or os.environ.get("WANDB_MODE", "online")
    if wanted and mode == "online":
        return problem(
            "W&B", "not logged in", "run wandb login, or set logging.wandb.mode: offline"
        )
    return ok("W&B", "installed, not logged in, not needed")


def _logged_in() -> bool:
    """Whether there is a key where W&B looks for one; it isn't read any further."""
    host = urlsplit(os.environ.get("WANDB_BASE_URL", WANDB_SERVICE)).hostname or ""
    try:
        return "WANDB_API_KEY" in os.environ or host in netrc.netrc().hosts
    except (OSError, netrc.NetrcParseError):
        return False

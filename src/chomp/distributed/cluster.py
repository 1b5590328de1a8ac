"""This process's number in its run, as its launcher says it."""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn

from chomp.errors import ConfigError

COORDINATOR, SIZE, INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
OPTIONS = {COORDINATOR: "--coordinator", SIZE: "--processes", INDEX: "--process-id"}


class ProcessInfo(NamedTuple):
    """A process's number in its run, and where the others are."""

    coordinator: str
    """`host:port` at which process 0 lets the others meet."""
    size: int
    """Number of processes."""
    number: int
    """Of this process, from 0."""
    devices: tuple[int, ...] | None = None
    """The GPUs of this host that are this process's; None: all of them."""


def find_process(
    coordinator: str | None,
    size: int | None,
    index: int | None,
    environ: Mapping[str, str] | None = None,
) -> ProcessInfo | None:
    """Return this process's info; None: it is alone.

    What an option doesn't say is taken from JAX's environment variables, and what these don't say
    from a launcher that JAX knows: SLURM, Open MPI, Kubernetes, Cloud TPU.

    Args:
        coordinator: `host:port`.
        size: number of processes.
        index: this process's number.
        environ: environment variables; None: those of the process.

    Raises:
        ConfigError: something is missing or makes no sense.
    """
    environ = os.environ if environ is None else environ
    coordinator = coordinator or environ.get(COORDINATOR) or None
    size = _number(SIZE, environ) if size is None else size
    index = _number(INDEX, environ) if index is None else index
    if size == 1:
        return None if index in (None, 0) else _wrong_index(1, index)
    devices = None
    given = {COORDINATOR: coordinator, SIZE: size, INDEX: index}
    if None in given.values():
        found = _launched(environ)
        if found is None:
            return _alone_if_nothing(given)
        devices = found.devices
        coordinator = coordinator or found.coordinator
        size = found.size if size is None else size
        index = found.number if index is None else index
    assert coordinator is not None and size is not None and index is not None
    if size < 1:
        raise ConfigError([f"{OPTIONS[SIZE]}: must be at least 1 (got {size})"])
    if not 0 <= index < size:
        _wrong_index(size, index)
    if size == 1:
        return None
    check_address(coordinator)
    return ProcessInfo(coordinator, size, index, devices)


def _wrong_index(size: int, index: int) -> NoReturn:
    raise ConfigError(
        [
            f"{OPTIONS[INDEX]}: must be from 0 to {size - 1}, as there are {size} processes "
            f"(got {index})"
        ]
    )


def check_address(address: str) -> tuple[str, int]:
    """Return host and port of `host:port`.

    Raises:
        ConfigError: it isn't of this form.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise ConfigError(
            [
                f"{OPTIONS[COORDINATOR]}: must be HOST:PORT, the host of process 0 and a free port "
                f"there (got {address!r})"
            ]
        )
    return host.strip("[]"), int(port)


def _number(name: str, environ: Mapping[str, str]) -> int | None:
    text = environ.get(name, "")
    if not text:
        return None
    if not text.isdecimal():
        raise ConfigError([f"{name}: must be a number (got {text!r} in the environment)"])
    return int(text)


def _alone_if_nothing(given: dict[str, Any]) -> None:
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == len(given):
        return
    wanted = " and ".join(f"{OPTIONS[name]} (or {name})" for name in missing)
    raise ConfigError(
        [
            f"several processes need {wanted} as well: there is no SLURM, Open MPI or Kubernetes "
            "here that would tell"
        ]
    )


def _launched(environ: Mapping[str, str]) -> ProcessInfo | None:
    """Return what a launcher that JAX knows says; None where there is none, or one process."""
    _check_srun(environ)
    # A pod that isn't part of an indexed job is alone; JAX would ask the cluster about its job.
    if "KUBERNETES_SERVICE_HOST" in environ and "JOB_COMPLETION_INDEX" not in environ:
        return None
    from jax._src.clusters import ClusterEnv

    kinds = [kind for kind in ClusterEnv._cluster_types if not kind.opt_in_only_method]
    kind = next((kind for kind in kinds if kind.is_env_present()), None)
    if kind is None:
        return None
    try:
        size = kind.get_process_count()
        if size == 1:
            return None
        address = kind.get_coordinator_address(60, environ.get("JAX_COORDINATOR_PORT"))
        local = kind.get_local_process_id()
        return ProcessInfo(address, size, kind.get_process_id(), _own_devices(local, size, environ))
    except (RuntimeError, OSError, KeyError, ValueError) as error:
        name = kind.name or kind.__name__
        raise ConfigError(
            [
                f"{name} doesn't tell which process this is ({error}); give --coordinator, "
                "--processes and --process-id"
            ]
        ) from error


def _check_srun(environ: Mapping[str, str]) -> None:
    """Check that a job of several tasks has been started as such.

    Raises:
        ConfigError: this is the job's script, or a shell in its allocation, which SLURM runs once.
    """
    if "SLURM_JOB_ID" not in environ or "SLURM_STEP_ID" in environ:
        return
    if "OMPI_COMM_WORLD_SIZE" in environ:  # mpirun in a job
        return
    for name, things in ("SLURM_NTASKS", "tasks"), ("SLURM_JOB_NUM_NODES", "nodes"):
        number = environ.get(name, "")
        if number not in ("", "1"):
            raise ConfigError(
                [
                    f"SLURM: the job has {number} {things} ({name}), but this process was not "
                    "started by srun, and so is the only one: write `srun chomp train ...` in the "
                    "job's script, or --processes 1 for one process alone"
                ]
            )


def _own_devices(
    local: int | None, size: int, environ: Mapping[str, str]
) -> tuple[int, ...] | None:
    """Return the GPU of a process that shares its host with others; one by itself has them all."""
    hosts = environ.get("SLURM_STEP_NUM_NODES") or environ.get("SLURM_NNODES") or ""
    alone = hosts == str(size) or environ.get("OMPI_COMM_WORLD_LOCAL_SIZE") == "1"
    return None if local is None or alone or environ.get("JAX_LOCAL_DEVICE_IDS") else (local,)

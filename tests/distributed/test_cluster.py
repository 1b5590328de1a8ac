import pytest

from chomp.distributed.cluster import ProcessInfo, find_process
from chomp.errors import ConfigError

SLURM = {
    "SLURM_JOB_ID": "4097",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NODELIST": "node[07-08]",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0",
    "SLURM_STEP_NUM_NODES": "2",
}
OPEN_MPI = {
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1:34911",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
}


@pytest.fixture
def under(monkeypatch: pytest.MonkeyPatch):
    """Be started with these environment variables."""

    def set_all(variables: dict[str, str]) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_all


def test_without_options_and_launcher_a_process_is_alone() -> None:
    assert find_process(None, None, None) is None


def test_options_come_before_the_environment() -> None:
    environ = {
        "JAX_COORDINATOR_ADDRESS": "a:1",
        "JAX_NUM_PROCESSES": "4",
        "JAX_PROCESS_ID": "3",
    }
    assert find_process(None, None, None, environ) == ProcessInfo("a:1", 4, 3)
    assert find_process("[::1]:2", None, 1, environ) == ProcessInfo("[::1]:2", 4, 1)
    assert find_process("a:1", 1, 0, {}) is None


@pytest.mark.parametrize(
    ("given", "environ", "words"),
    [
        ((None, 2, None), {}, r"need --coordinator .* and --process-id"),
        (("a:1", 2, 2), {}, r"--process-id: must be from 0 to 1"),
        (("a:1", 0, 0), {}, r"--processes: must be at least 1"),
        (("nohost", 2, 0), {}, r"must be HOST:PORT"),
        (("a:99999", 2, 0), {}, r"must be HOST:PORT"),
        ((None, None, None), {"JAX_PROCESS_ID": "first"}, r"JAX_PROCESS_ID: must be a number"),
    ],
)
def test_what_makes_no_sense_is_refused(given, environ: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        find_process(*given, environ)


def test_slurm_with_a_process_for_each_host(under) -> None:
    under(SLURM)
    place = find_process(None, None, None)
    # 61440 + the job's number modulo 4096, as JAX has it.
    assert place == ProcessInfo("node07:61441", 2, 1, devices=None)


def test_slurm_with_a_process_for_each_gpu(under) -> None:
    under(SLURM | {"SLURM_NTASKS": "16", "SLURM_PROCID": "13", "SLURM_LOCALID": "5"})
    assert find_process(None, None, None) == ProcessInfo("node07:61441", 16, 13, devices=(5,))


def test_one_task_of_slurm_is_alone(under) -> None:
    under(SLURM | {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"})
    assert find_process(None, None, None) is None


def test_open_mpi(under) -> None:
    under(OPEN_MPI)
    place = find_process(None, None, None)
    assert place is not None
    assert (place.size, place.number, place.devices) == (4, 3, (1,))
    assert place.coordinator.startswith("10.96.0.1:")


def test_a_pod_outside_of_a_job_is_alone(under) -> None:
    under({"KUBERNETES_SERVICE_HOST": "10.0.0.1"})
    assert find_process(None, None, None) is None


@pytest.mark.parametrize("left_out", [["SLURM_STEP_ID"], ["SLURM_STEP_ID", "SLURM_STEP_NODELIST"]])
def test_a_job_of_several_tasks_needs_srun(left_out: list[str]) -> None:
    """In its script and in a shell of its allocation there is one process, whatever SLURM says."""
    script = {name: value for name, value in SLURM.items() if name not in left_out}
    with pytest.raises(ConfigError, match=r"^SLURM: the job has 2 tasks .*`srun chomp train"):
        find_process(None, None, None, script)
    assert find_process(None, 1, None, script) is None
    assert find_process("a:1", 2, 0, script) == ProcessInfo("a:1", 2, 0)
    assert find_process(None, None, None, script | {"SLURM_NTASKS": "1"}) is None

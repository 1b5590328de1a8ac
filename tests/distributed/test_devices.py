import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent / "eight_devices"


def test_on_eight_devices(tmp_path: Path):
    """The tests in the folder, in a process that has eight devices."""
    # It is no worker of pytest-xdist, as this process may be: its compile cache is its own.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_XDIST")}
    environment["JAX_NUM_CPU_DEVICES"] = "8"
    options = ["-q", "-x", "-n0", "--basetemp", tmp_path / "base"]
    command = [sys.executable, "-m", "pytest", *options, FOLDER]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout[-8000:] + ended.stderr[-2000:]
    assert " passed" in ended.stdout

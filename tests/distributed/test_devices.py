import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent / "eight_devices"


def test_on_eight_devices():
    """The tests in the folder, in a process that has eight devices."""
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "8"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n0", str(FOLDER)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout[-8000:] + ended.stderr[-2000:]
    assert " passed" in ended.stdout

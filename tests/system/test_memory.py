import platform
import subprocess
import sys

import pytest

# Page faults of the second of two large blocks that are allocated, filled and freed.
FAULTS = """
import resource, sys
import numpy as np
from chomp.system.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def fill():
    np.ones(1 << 23).sum()
fill()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
fill()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="how glibc treats freed memory")
def test_freed_memory_is_there_for_the_next_allocation():
    def faults(what: str) -> int:
        command = [sys.executable, "-c", FAULTS, what]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    # 64 MiB in pages of 4 KiB, or in large ones where the kernel gives some.
    assert faults("keep") * 10 < faults("leave")

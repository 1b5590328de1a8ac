import os

EIGHT = {"JAX_NUM_CPU_DEVICES": "8"}
# These need eight devices, which a process gets when it starts JAX: `test_devices.py` runs them.
collect_ignore = [] if EIGHT.items() <= os.environ.items() else ["eight_devices"]

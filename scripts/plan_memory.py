"""Compare the memory that `chomp plan` predicts with what the step then takes, on CPU devices.

    python scripts/plan_memory.py scripts/bench_configs/20m.yaml

Each case is a process of its own. It compiles the planned program and takes a step, so that code
and threads are there; deletes all arrays and notes its resident memory; makes state and batch anew,
takes two steps, and reads the highest resident memory of the second (Linux: /proc/self/clear_refs
resets it). What is above the note is measured; predicted is the plan's total for one device times
the devices. Ends with 1 if they differ by more than a tenth.
"""

import argparse
import ctypes
import gc
import json
import subprocess
import sys
from pathlib import Path

CASES = (
    (1, ("train.batch_size=2",)),
    (1, ("train.batch_size=4", "train.grad_accum=2")),
    (1, ("train.batch_size=2", "model.use_checkpoint=true", "train.deterministic=false")),
    (2, ("train.batch_size=4",)),
    (4, ("train.batch_size=4", "parallel.fsdp=4")),
    (4, ("train.batch_size=4", "parallel.fsdp=2", "parallel.gather=layer")),
)
ALLOWED = 0.1
GB = 1e9


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("config")
    parser.add_argument("--case", nargs="*", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        print(json.dumps(measure_case(args.config, int(args.case[0]), args.case[1:])))
        return 0
    print("| devices | overrides | predicted GB | measured GB | measured / predicted |")
    print("|---|---|---|---|---|")
    worst = 0.0
    for devices, overrides in CASES:
        command = [sys.executable, __file__, args.config, "--case", str(devices), *overrides]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            print(done.stderr, file=sys.stderr)
            return 1
        predicted, measured = json.loads(done.stdout)
        ratio = measured / predicted
        worst = max(worst, abs(ratio - 1))
        cells = (devices, " ".join(overrides), *(f"{n / GB:.3f}" for n in (predicted, measured)))
        print(f"| {' | '.join(map(str, cells))} | {ratio:.3f} |", flush=True)
    return int(worst > ALLOWED)


def measure_case(config_path: str, devices: int, overrides: list[str]) -> tuple[int, int]:
    """Return bytes predicted and measured, of all devices together."""
    from chomp.system.jax_runtime import prepare_environment

    prepare_environment()
    import jax
    import numpy as np

    from chomp.config import load_config
    from chomp.plan.sizes import compile_planned, memory_of
    from chomp.trainer.accelerator_program import use_virtual_devices
    from chomp.trainer.components import open_tokenizer
    from chomp.types import Batch

    use_virtual_devices(devices)
    config, _ = open_tokenizer(load_config(Path(config_path), overrides), None)
    train = config.train
    train_program, program = compile_planned(config, train.batch_size)
    predicted = (
        memory_of(config, train.batch_size, train_program, program.memory_analysis()).total
        * devices
    )
    train_program.prepare()
    rng = np.random.default_rng(0)
    shape = (train.grad_accum, train.batch_size, train.seq_len)
    ids = rng.integers(3, config.model.vocab_size, shape, np.int32)
    batch = Batch(ids, ids, 1 + np.arange(shape[2], dtype=np.int32) // 256 + 0 * ids, ids > 0)
    state, _ = program(train_program.init(), train_program.sharding.put_batch(batch))
    jax.block_until_ready(state)
    del state
    trim()
    base = status("VmRSS")
    state = train_program.init()
    placed = train_program.sharding.put_batch(batch)
    for _ in range(2):
        jax.block_until_ready(state)
        trim()
        Path("/proc/self/clear_refs").write_text("5")
        state, _ = program(state, placed)
    jax.block_until_ready(state)
    return predicted, status("VmHWM") - base


def trim() -> None:
    """Give freed memory back to the system."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    sys.exit(main())

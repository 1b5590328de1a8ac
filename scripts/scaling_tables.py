"""What a device holds and sends on meshes of eight devices: the tables of docs/scaling.md.

    python scripts/scaling_tables.py configs/megalodon-100m.yaml

Compiles the training step for virtual devices; nothing is allocated. Ends with 1 if parameters or
optimizer state don't fall as 1 / fsdp to within 5%, or if the step sends more than 1.05 times the
least that its mesh allows.
"""

import argparse
import sys
from collections import Counter
from itertools import product
from pathlib import Path

from chomp.system.jax_runtime import prepare_environment

prepare_environment()

import jax  # noqa: E402
import numpy as np  # noqa: E402

from chomp.config import Config, load_config  # noqa: E402
from chomp.optim import Group  # noqa: E402
from chomp.plan.sizes import FLOAT32, Sizes, measure  # noqa: E402
from chomp.trainer.accelerator_program import use_virtual_devices  # noqa: E402
from chomp.trainer.components import TrainProgram  # noqa: E402

DEVICES = 8
MESHES = ((1, "step"), (2, "step"), (4, "step"), (8, "step"), (2, "layer"), (8, "layer"))
"""fsdp and gather."""
OPTIMIZERS = ("adamw", "muon")
ROUNDING, SLACK = 0.05, 1.05
MB = 1e6


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("config", type=Path)
    parser.add_argument("-o", "--override", action="append", default=[])
    args = parser.parse_args()
    use_virtual_devices(DEVICES)
    held, sent, good = [], [], True
    for optimizer, (fsdp, gather) in product(OPTIMIZERS, MESHES):
        mesh = (f"parallel.fsdp={fsdp}", f"parallel.gather={gather}", "parallel.data=-1")
        config = load_config(args.config, [*args.override, f"optim.name={optimizer}", *mesh])
        program, sizes = measure(config, config.train.batch_size)
        memory = sizes.memory
        names = f"| {optimizer} | {DEVICES // fsdp} x {fsdp} | {gather} "
        if gather == "step":
            whole = [sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
                     for tree in (program.shapes.params, program.shapes.opt_state)]  # fmt: skip
            pieces = (memory.parameters, memory.optimizer)
            off = [part * fsdp / all_ - 1 for part, all_ in zip(pieces, whole, strict=True)]
            good &= max(map(abs, off)) < ROUNDING
            held.append(
                f"{names.rsplit('|', 1)[0]}| {memory.parameters / MB:.1f} | {off[0]:+.2%} | "
                f"{memory.optimizer / MB:.1f} | {off[1]:+.2%} |"
            )
        total = sum(one.times * one.sent for one in sizes.collectives)
        least = least_bytes(config, program)
        good &= total <= SLACK * least
        sent.append(
            f"{names}| {kinds(sizes)} | {total / MB:.1f} | {least / MB:.1f} | {total / least:.3f} |"
        )
        print(f"{sent[-1]} {sizes.seconds:.0f} s", file=sys.stderr)
    print("| optimizer | data x fsdp | parameters MB | off 1/fsdp | optimizer MB | off 1/fsdp |")
    print("|---|---|---|---|---|---|", *held, sep="\n", end="\n\n")
    print("| optimizer | data x fsdp | gather | times a step | MB sent | least MB | ratio |")
    print("|---|---|---|---|---|---|---|", *sent, sep="\n")
    return int(not good)


def least_bytes(config: Config, program: TrainProgram) -> float:
    """Return the bytes that a device has to send in a step, with rings.

    Over `fsdp` parameters are fetched once, in the dtype that the model casts them to, and the
    sums of their gradients shared out once. With `gather: layer` each microbatch fetches those of
    the layers twice, the others once, and shares out gradients. Over `data` each device's share of
    the gradients is summed once. Muon's matrices go to one device each, and back, in float32.

    Args:
        config: with the mesh.
        learner: with the parameters' shapes.
    """
    params, mesh = program.shapes.params, program.sharding.mesh.shape
    data, fsdp = mesh["data"], mesh["fsdp"]
    reduced = np.dtype(config.parallel.reduce_dtype).itemsize
    by_layer = config.parallel.gather == "layer"
    passed = summed = exchanged = 0.0
    leaves = jax.tree_util.tree_leaves_with_path(params)
    casts, groups = jax.tree.leaves(program.model.cast_dtypes(params)), program.groups
    for (path, leaf), cast, group in zip(leaves, casts, jax.tree.leaves(groups), strict=True):
        fetched = min(leaf.dtype.itemsize, np.dtype(cast).itemsize)
        times = 1 + (by_layer and ".layers" in jax.tree_util.keystr(path))
        passed += leaf.size * (times * fetched + reduced)
        summed += 2 * leaf.size * reduced
        exchanged += 2 * leaf.size * FLOAT32 * (group is Group.MUON)
    passed *= config.train.grad_accum if by_layer else 1
    sent_in_group = (passed + exchanged / fsdp) * (fsdp - 1) / fsdp
    return sent_in_group + summed / fsdp * (data - 1) / data


def kinds(sizes: Sizes) -> str:
    """Return how often each kind of collective runs in a step."""
    times: Counter[str] = Counter()
    for one in sizes.collectives:
        times[one.kind] += one.times
    return ", ".join(f"{count} {kind}" for kind, count in sorted(times.items()))


if __name__ == "__main__":
    sys.exit(main())

"""How far bfloat16 on accelerators is from float32, against the library's own bfloat16.

    python scripts/numerics.py                                   # random small models
    python scripts/numerics.py --train configs/quickstart.yaml   # 500 steps on real text

Both run on a CPU what accelerators would run: programs for `gpu`, compiled for this processor,
which rounds to bfloat16 where they do.

Models: each draws its sizes, its documents and the options that are on or off, the second of a
pair those that are off in the first. Loss and gradient of the accelerators' path, and of the
library's own in bfloat16 (`model.fast_ops: false`), are compared with the library's in float32.
Ends with 1 if the path is further from it than the library's bfloat16, over all models by more than
5%.

Training: the model of a config, smaller, learns the same batches from several seeds on both paths.
Ends with 1 if the means of the final losses differ by more than the seeds do (one standard
deviation).
"""

import argparse
import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chomp.system.jax_runtime import prepare_environment

prepare_environment()

import jax  # noqa: E402
import numpy as np  # noqa: E402

from chomp.config import Config, ModelConfig, config_from_mapping, load_config  # noqa: E402
from chomp.models import build_model  # noqa: E402
from chomp.trainer.components import build_components  # noqa: E402
from chomp.trainer.program import build_program, lower_step  # noqa: E402
from chomp.types import IGNORE_LABEL, Batch  # noqa: E402

SWITCHES = ("swiglu", "rescale_nffn", "scale_emb", "share_emb", "norm_affine", "use_checkpoint")
ALLOWED = 1.05
"""Of the error of the library's bfloat16."""
ROWS = 2
SMALLER = (
    *("model.compute_dtype=bfloat16", "model.model_dim=64", "model.z_dim=64"),
    *("model.value_dim=128", "model.ffn_hidden_dim=128", "model.chunk_size=64"),
    *("train.seq_len=128", "train.batch_size=8", "optim.warmup_steps=40", "optim.lr=3e-3"),
)
LAST = 50
"""Steps over which the final loss is averaged."""


@dataclass(frozen=True)
class Case:
    """A random model and what it reads."""

    model: ModelConfig
    isolated: bool
    batch: Batch
    seed: int

    @property
    def name(self) -> str:
        on = [switch for switch in SWITCHES if getattr(self.model, switch)]
        return " ".join([*on, *["isolated"] * self.isolated]) or "none"


@dataclass(frozen=True)
class Errors:
    """Distances from the library in float32, relative to it."""

    loss: float
    grad: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train", type=Path, metavar="CONFIG")
    parser.add_argument("-o", "--override", action="append", default=[])
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=4)
    args = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    if args.train:
        overrides = [*SMALLER, f"train.steps={args.steps}", *args.override]
        return compare_training(load_config(args.train, overrides), args.seeds)
    return compare_models(list(draw_cases(args.models, args.seed)))


def draw_cases(count: int, seed: int) -> Iterator[Case]:
    """Yield random models; the second of each pair has the opposite options of the first."""
    rng = np.random.default_rng(seed)
    options: list[bool] = []
    for number in range(count):
        draw = rng.random(len(SWITCHES) + 1) < 0.5
        options = [not on for on in options] if number % 2 else draw.tolist()
        yield draw_case(rng, options, seed + number)


def draw_case(rng: np.random.Generator, options: Sequence[bool], seed: int) -> Case:
    """Return a model with these options: of `SWITCHES`, and whether documents are isolated."""
    heads = int(rng.choice([1, 2]))
    values = {
        "backend": "megalodon",
        "vocab_size": 256,
        "model_dim": 32 * heads * int(rng.choice([1, 2])),
        "num_layers": int(rng.choice([1, 2, 3])),
        "num_heads": heads,
        "z_dim": 32 * heads,
        "value_dim": 64 * heads,
        "ffn_hidden_dim": 96,
        "cema_ndim": int(rng.choice([4, 16])),
        "chunk_size": int(rng.choice([16, 32])),
        "norm_num_groups": int(rng.choice([4, 16])),
        "compute_dtype": "bfloat16",
        **dict(zip(SWITCHES, options[:-1], strict=True)),
    }
    time = values["chunk_size"] * int(rng.choice([2, 4]))
    ids = rng.integers(0, 256, (ROWS, time)).astype(np.int32)
    segments = np.cumsum(rng.random(ids.shape) < 0.05, axis=-1, dtype=np.int32) + 1
    segments[-1, time - int(rng.integers(1, time // 2)) :] = 0
    labels = np.where(segments > 0, ids, IGNORE_LABEL).astype(np.int32)
    batch = Batch(ids, labels, segments, segments > 0)
    return Case(ModelConfig(**values), options[-1], batch, seed)


def errors(case: Case) -> tuple[Errors, Errors]:
    """Return those of the accelerators' path and of the library's bfloat16."""
    library = case.model.model_copy(update={"fast_ops": False})
    exact = library.model_copy(update={"compute_dtype": "float32"})
    loss, grad = loss_and_gradient(case, exact)
    found = []
    for model in (case.model, library):
        other_loss, other_grad = loss_and_gradient(case, model)
        off = float(np.linalg.norm(other_grad - grad) / np.linalg.norm(grad))
        found.append(Errors(abs(other_loss - loss) / loss, off))
    return found[0], found[1]


def loss_and_gradient(case: Case, config: ModelConfig) -> tuple[float, np.ndarray]:
    """Return the loss of a target and the gradient of all parameters, in float64."""
    model = build_model(config, isolate_documents=case.isolated, platform="gpu")
    # Dropout is off at rate 0; a key lets `use_checkpoint` work.
    key = jax.random.PRNGKey(1) if config.use_checkpoint else None
    params = jax.jit(model.init)(jax.random.PRNGKey(case.seed))
    step = jax.jit(jax.value_and_grad(lambda p: model.loss(p, case.batch, key), has_aux=True))
    (loss, targets), grads = step(params)
    parts = [np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(grads)]
    return float(loss) / int(targets), np.concatenate(parts)


def compare_models(cases: Sequence[Case]) -> int:
    """Print a line for each model, and say whether the path is as near as the library."""
    print("| options | loss | library's | gradient | library's | gradient, ratio |")
    print("|---|---|---|---|---|---|")
    ours, theirs = [], []
    for case in cases:
        our, their = errors(case)
        ours.append(our)
        theirs.append(their)
        row = (f"{our.loss:.1e}", f"{their.loss:.1e}", f"{our.grad:.2e}", f"{their.grad:.2e}")
        print(f"| {case.name} | {' | '.join(row)} | {our.grad / their.grad:.2f} |", flush=True)
    loss, grad = (
        root_mean_square([getattr(each, what) for each in ours])
        / root_mean_square([getattr(each, what) for each in theirs])
        for what in ("loss", "grad")
    )
    print(f"\nerror against the library's in bfloat16: loss {loss:.3f}, gradient {grad:.3f} times")
    return int(max(loss, grad) > ALLOWED)


def root_mean_square(values: Sequence[float]) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def compare_training(config: Config, seeds: int) -> int:
    """Print the final loss of each seed on both paths, and say whether they are alike."""
    setup = build_components(config, None)
    try:
        steps = config.train.steps
        batches = [jax.device_get(each.batch) for each in itertools.islice(setup.data.train, steps)]
    finally:
        setup.data.close()
    values = setup.config.model_dump(mode="json")
    print("| seed | " + " | ".join(("accelerators' path", "library's")) + " | difference |")
    print("|---|---|---|---|")
    paths = [final_losses(values, fast, batches, seeds) for fast in (True, False)]
    for seed, (ours, theirs) in enumerate(zip(*paths, strict=True)):
        print(f"| {seed} | {ours:.4f} | {theirs:.4f} | {ours - theirs:+.4f} |")
    means = [float(np.mean(path)) for path in paths]
    spread = float(np.sqrt(np.mean([np.var(path, ddof=1) for path in paths])))
    print(f"\nmeans differ by {means[0] - means[1]:+.4f}; seeds by {spread:.4f} (one deviation)")
    return int(abs(means[0] - means[1]) > spread)


def final_losses(
    values: dict[str, Any], fast: bool, batches: Sequence[Batch], seeds: int
) -> list[float]:
    """Train from each seed; return the mean loss of the last steps of each."""
    config = config_from_mapping(values | {"model": values["model"] | {"fast_ops": fast}})
    program = lower_step(build_program(config, "gpu", jax.devices()[:1]), config.train).compile()
    found = []
    for seed in range(seeds):
        train = config.train.model_copy(update={"seed": seed})
        train_program = build_program(config.model_copy(update={"train": train}), "gpu")
        state, losses = train_program.init(), []
        for batch in batches:
            inputs = train_program.sharding.put_batch(batch), train_program.rates
            state, metrics = program(state, *inputs)
            losses.append(float(metrics.loss))
        found.append(float(np.mean(losses[-LAST:])))
        print(f"{'fast' if fast else 'library'} seed {seed}: {found[-1]:.4f}", file=sys.stderr)
    return found


if __name__ == "__main__":
    sys.exit(main())

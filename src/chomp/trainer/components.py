"""The parts of a run, built from its configuration."""

import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from chomp.config import Config, config_from_mapping, is_deterministic
from chomp.data import Data, SpecialIds, Tokenizer, lanes_at_start, load_tokenizer, open_data
from chomp.distributed import FSDP, DataParallel, MeshSharding, distribute_matrices, make_mesh
from chomp.errors import ConfigError, DataError
from chomp.models import build_model
from chomp.optim import (
    build_optimizer,
    decay_steps,
    in_stacks,
    parameter_groups,
    warmup_cosine,
)
from chomp.trainer import init_state
from chomp.types import Batch, LanguageModel, TrainState

log = logging.getLogger(__name__)

# Values of the `model` section that the tokenizer decides.
FITTED = {"vocab_size", "pad_token_id", "bos_token_id", "eos_token_id"}


def fit_to_tokenizer(config: Config, tokenizer: Tokenizer) -> Config:
    """Return `config` with a vocabulary that holds the tokenizer's, and its special tokens.

    Raises:
        ConfigError: the fitted values break another rule.
    """
    multiple = config.data.tokenizer.vocab_size_multiple
    size = max(config.model.vocab_size, tokenizer.vocab_size)
    values = config.model_dump(mode="json")
    values["model"]["vocab_size"] = -(-size // multiple) * multiple
    if config.data.tokenizer.auto_set_special_tokens:
        ids = {"pad": tokenizer.pad_id, "bos": tokenizer.bos_id, "eos": tokenizer.eos_id}
        values["model"] |= {f"{name}_token_id": i for name, i in ids.items() if i is not None}
    fitted = config_from_mapping(values)
    if fitted.model.output_size not in (-1, fitted.model.vocab_size):
        raise ConfigError(
            [
                f"model.output_size: must be -1 or the vocabulary size {fitted.model.vocab_size}, "
                f"which the tokenizer leads to (got {fitted.model.output_size})"
            ]
        )
    return fitted


def open_tokenizer(config: Config, snapshot: Path | None) -> tuple[Config, Tokenizer]:
    """Load the tokenizer, and return it with the configuration fitted to it.

    Args:
        config: as the user wrote it.
        snapshot: the run's own copy of the tokenizer; used if it is there.
    """
    there = snapshot if snapshot is not None and snapshot.is_dir() else None
    model = config.model
    special = SpecialIds(model.pad_token_id, model.bos_token_id, model.eos_token_id)
    tokenizer = load_tokenizer(config.data.tokenizer, there, special=special)
    return fit_to_tokenizer(config, tokenizer), tokenizer


@dataclass(frozen=True)
class TrainProgram:
    """Model and optimizer with what was decided about them.

    Attributes:
        model: makes parameters and losses.
        optimizer: makes updates.
        groups: a tree like the parameters with each one's `Group`.
        schedules: learning rate by update count, under its name in the metrics.
        placement: which device holds what.
        spread: has all devices work on a batch.
        shapes: shapes, dtypes and places of the training state; nothing is allocated.
        deterministic: dropout is off.
        seed: of the initial parameters.
    """

    model: LanguageModel
    optimizer: optax.GradientTransformation
    groups: Any
    schedules: dict[str, optax.Schedule]
    placement: MeshSharding
    spread: DataParallel
    shapes: TrainState
    deterministic: bool
    seed: int

    @property
    def parameters(self) -> int:
        """Number of trainable scalars."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.shapes.params))

    @functools.cached_property
    def _program(self) -> Callable[[], TrainState]:
        make = functools.partial(init_state, self.model, self.optimizer, self.seed)
        places = self.placement.shardings(self.shapes)
        return jax.jit(make, out_shardings=places).lower().compile()

    def prepare(self) -> None:
        """Compile what `init` runs."""
        _ = self._program

    def init(self) -> TrainState:
        """Make the state before the first step, in one compiled program."""
        return self._program()


def build_program(
    config: Config, platform: str | None = None, devices: Sequence[Any] | None = None
) -> TrainProgram:
    """Build model and optimizer; no array is made.

    Args:
        config: fitted to the tokenizer.
        platform: that the step is for; None: the one that JAX runs on.
        devices: to use; None: all devices of all processes.

    Raises:
        ConfigError: the config's mesh doesn't fit them.
    """
    model = build_model(
        config.model, isolate_documents=config.data.isolate_documents, platform=platform
    )
    optim, train = config.optim, config.train
    horizon = decay_steps(train.steps, optim.warmup_steps, optim.decay_steps)
    schedule = warmup_cosine(
        optim.lr,
        warmup_steps=optim.warmup_steps,
        decay_steps=horizon,
        min_ratio=optim.min_lr_ratio,
    )
    muon = optim.name == "muon"
    params = jax.eval_shape(model.init, jax.random.PRNGKey(0))
    groups = parameter_groups(
        params,
        muon=muon,
        all_2d=optim.muon.allow_all_2d,
        tied_embed=optim.muon.allow_tied_embed and config.model.share_emb,
    )
    schedules: dict[str, optax.Schedule] = {"lr": schedule}
    if muon:
        schedules["lr_muon"] = lambda count: schedule(count) * optim.muon.lr_scale
    placement = MeshSharding(make_mesh(config.parallel, train.batch_size, devices))
    spread = DataParallel(
        placement,
        by_layer=config.parallel.gather == "layer",
        cast_dtypes=model.cast_dtypes,
        reduce_dtype=np.dtype(config.parallel.reduce_dtype),
    )
    together = None
    if placement.mesh.shape[FSDP] > 1:
        together = functools.partial(distribute_matrices, placement)
    elif (platform or jax.default_backend()) != "cpu":
        together = in_stacks
    optimizer = build_optimizer(optim, groups, schedule, together)
    return TrainProgram(
        model,
        optimizer,
        groups,
        schedules,
        placement,
        spread,
        placement.place_shapes(jax.eval_shape(lambda: init_state(model, optimizer, train.seed))),
        is_deterministic(config),
        train.seed,
    )


@dataclass(frozen=True)
class Components:
    """Everything that a run is made of, ready to start.

    Attributes:
        given: the configuration as the user wrote it.
        config: fitted to the tokenizer.
        tokenizer: of the run.
        data: the opened streams.
        learner: model and optimizer.
        start: the data's place before anything was drawn.
    """

    given: Config
    config: Config
    tokenizer: Tokenizer
    data: Data
    learner: TrainProgram
    start: dict[str, Any]

    @property
    def identity(self) -> dict[str, Any]:
        """What the contents of data and tokenizer are, for the comparison at a resume."""
        return {"data": {"content": self.data.fingerprint, "tokens": self.tokenizer.fingerprint}}


def build_components(
    config: Config,
    snapshot: Path | None,
    lanes: int | None = None,
    warn: Callable[[str], None] = log.warning,
) -> Components:
    """Build every part of a run; its training batches come placed on the device.

    Args:
        config: as the user wrote it.
        snapshot: the run's own copy of the tokenizer; used if it is there.
        lanes: that the run's data has; None: it is a new run.
        warn: takes a line for the user about the data, from any thread.
    """
    given = config
    config, tokenizer = open_tokenizer(given, snapshot)
    train = config.train
    learner = build_program(config)
    if lanes is None:
        lanes = lanes_at_start(config.data, train.batch_size, jax.process_count())
    data = open_data(
        config.data,
        tokenizer,
        accum=train.grad_accum,
        batch=train.batch_size,
        time=train.seq_len,
        pad_id=config.model.pad_token_id,
        eos_id=config.model.eos_token_id,
        evaluate=train.eval_every > 0,
        lanes=lanes,
        rows=learner.placement.rows_here(train.batch_size),
        warn=warn,
    )
    data.train.place = functools.partial(
        place, vocab=config.model.vocab_size, placement=learner.placement
    )
    return Components(given, config, tokenizer, data, learner, data.get_state())


def place(batch: Batch, *, vocab: int, placement: MeshSharding) -> Batch:
    """Start the copy of a batch from the host to the devices, so that no step waits for it.

    Here, in the thread of the feed, is also the check that the compiled step goes without: a
    token id outside the vocabulary would be read as another one there.

    Raises:
        DataError: a token id is not below `vocab`, or negative.
    """
    ids = np.asarray(batch.input_ids)
    least, largest = ids.min(), ids.max()
    if least < 0 or largest >= vocab:
        raise DataError(
            f"the data holds token {largest if largest >= vocab else least}, but ids must be from "
            f"0 to {vocab - 1} (model.vocab_size is {vocab}); chomp data verify finds damage in "
            "prepared tokens"
        )
    return placement.place_batch(batch)


def derived_values(setup: Components) -> dict[str, Any]:
    """Return what follows from the configuration, for `config_resolved.json`."""
    train, optim = setup.config.train, setup.config.optim
    per_step = train.grad_accum * train.batch_size * train.seq_len
    horizon = decay_steps(train.steps, optim.warmup_steps, optim.decay_steps)
    return {
        "model": {
            "parameters": setup.learner.parameters,
            **setup.config.model.model_dump(include=FITTED),
        },
        "optim": {
            "decay_steps_effective": optim.warmup_steps + horizon,
            "decay_steps_after_warmup": horizon,
        },
        "train": {
            "deterministic_effective": setup.learner.deterministic,
            "tokens_per_step": per_step,
            "tokens_planned": per_step * train.steps,
        },
    }

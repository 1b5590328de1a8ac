"""What a run is made of, built from its configuration: tokenizer, data, program."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from chomp.config import Config, config_from_mapping
from chomp.data import (
    BatchSpec,
    Data,
    SpecialIds,
    Tokenizer,
    lanes_at_start,
    load_tokenizer,
    open_data,
)
from chomp.distributed import MeshSharding
from chomp.errors import ConfigError, DataError
from chomp.system.console import LOG, Console
from chomp.trainer.program import TrainProgram
from chomp.trainer.shared_programs import SharedPrograms
from chomp.types import Batch

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
class Components:
    """Everything that a run is made of, ready to start.

    Attributes:
        given: the configuration as the user wrote it.
        config: fitted to the tokenizer.
        tokenizer: of the run.
        data: the opened streams.
        program: model and optimizer.
        start: the data's place before anything was drawn.
    """

    given: Config
    config: Config
    tokenizer: Tokenizer
    data: Data
    program: TrainProgram
    start: dict[str, Any]

    @property
    def identity(self) -> dict[str, Any]:
        """What the contents of data and tokenizer are, for the comparison at a resume."""
        return {"data": {"content": self.data.fingerprint, "tokens": self.tokenizer.fingerprint}}


def build_components(
    config: Config,
    snapshot: Path | None,
    lanes: int | None = None,
    console: Console = LOG,
    programs: SharedPrograms | None = None,
) -> Components:
    """Build every part of a run; its training batches come placed on the device.

    Args:
        config: as the user wrote it.
        snapshot: the run's own copy of the tokenizer; used if it is there.
        lanes: that the run's data has; None: it is a new run.
        console: shows warnings about the data, from any thread.
        programs: of the runs before it in this process; None: it shares none.
    """
    given = config
    config, tokenizer = open_tokenizer(given, snapshot)
    train = config.train
    program = (programs or SharedPrograms()).of(config)
    if lanes is None:
        lanes = lanes_at_start(config.data, train.batch_size, jax.process_count())
    data = open_data(
        config.data,
        tokenizer,
        batch_spec(config),
        evaluate=train.eval_every > 0,
        lanes=lanes,
        rows=program.sharding.rows_here(train.batch_size),
        console=console,
    )
    data.train.place = functools.partial(
        put_checked, vocab=config.model.vocab_size, sharding=program.sharding
    )
    return Components(given, config, tokenizer, data, program, data.get_state())


def batch_spec(config: Config) -> BatchSpec:
    """Return the layout of a run's batches."""
    train, model = config.train, config.model
    shape = (train.grad_accum, train.batch_size, train.seq_len)
    return BatchSpec.of(config.data, shape, pad_id=model.pad_token_id, eos_id=model.eos_token_id)


def put_checked(batch: Batch, *, vocab: int, sharding: MeshSharding) -> Batch:
    """Start the copy of a batch from the host to the devices, so that no step waits for it.

    Here, in the thread of the loader, is also the check that the compiled step goes without: a
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
    return sharding.put_batch(batch)


def derived_values(components: Components) -> dict[str, Any]:
    """Return what follows from the configuration, for `config_resolved.json`."""
    config, program = components.config, components.program
    train, optim = config.train, config.optim
    decay = optim.decay_length(train.steps)
    return {
        "model": {
            "parameters": program.parameters,
            "flops_per_token": program.model.flops_per_token,
            **config.model.model_dump(include=FITTED),
        },
        "optim": {
            "decay_steps_effective": optim.warmup_steps + decay,
            "decay_steps_after_warmup": decay,
        },
        "train": {
            "deterministic_effective": program.deterministic,
            "tokens_per_step": train.tokens_per_step,
            "tokens_planned": train.tokens_per_step * train.steps,
        },
    }

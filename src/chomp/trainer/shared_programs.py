"""Programs that the runs of a process share: those of runs that differ only in rates and seeds."""

import json

from chomp.config import Config, is_deterministic
from chomp.optim import Rates
from chomp.trainer.program import TrainProgram, build_program

OF_TRAIN = ("batch_size", "seq_len", "grad_accum", "jit")
"""Keys of the section `train` that a program depends on."""


class SharedPrograms:
    """Builds the programs of runs that follow each other, each of them once."""

    def __init__(self):
        self._built: dict[str, TrainProgram] = {}

    def of(self, config: Config) -> TrainProgram:
        """Return the program of a run, with what has been compiled of it.

        Args:
            config: fitted to the tokenizer.

        Raises:
            ConfigError: the config's mesh doesn't fit the devices.
        """
        key = program_key(config)
        if key not in self._built:
            self._built[key] = build_program(config)
        train = config.train
        rates = Rates.of(config.optim, train.steps, train.tokens_per_step)
        return self._built[key].with_rates(rates)


def program_key(config: Config) -> str:
    """Return all of a configuration that its program depends on: equal keys, equal programs."""
    return json.dumps(
        {
            "model": config.model.model_dump(mode="json"),
            "parallel": config.parallel.model_dump(mode="json"),
            "optim": config.optim.without_rates(),
            "train": config.train.model_dump(mode="json", include=set(OF_TRAIN)),
            "isolate_documents": config.data.isolate_documents,
            "deterministic": is_deterministic(config),
            "average": config.train.ema is not None,
        },
        sort_keys=True,
    )

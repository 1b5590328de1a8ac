"""The configuration of a proof's runs, and what a straight run of it shows."""

import itertools
import statistics
from typing import Any

from chomp.config import Config, config_from_mapping
from chomp.proof.kills import Known, Times
from chomp.proof.trial import Trial
from chomp.run.heartbeat import Phase, read_heartbeat

EVALUATION_DOCUMENTS = 8
SMALL_MODEL = {
    "model_dim": 64,
    "num_layers": 2,
    "num_heads": 1,
    "z_dim": 32,
    "value_dim": 64,
    "ffn_hidden_dim": 96,
    "cema_ndim": 4,
    "norm_num_groups": 8,
}


def save_every(steps: int) -> int:
    """Return the steps between the checkpoints of a run of so many."""
    return max(2, steps // 7)


def trial_values(config: Config, *, steps: int, small: bool) -> dict[str, Any]:
    """Return the configuration's values, with a short run's steps and frequent periodic work.

    Raises:
        ConfigError: what results isn't a valid configuration.
    """
    values = config.model_dump(mode="json")
    train, optim, data = values["train"], values["optim"], values["data"]
    if optim["decay_steps"] is None:
        # The schedule that the config's own run would have.
        optim["decay_steps"] = max(1, train["steps"] - optim["warmup_steps"])
    optim["warmup_steps"] = min(optim["warmup_steps"], steps - 1)
    train |= {"steps": steps, "log_every": 1, "profile": False}
    train |= {name: max(2, steps // 3) for name in ("eval_every", "generate_every") if train[name]}
    asked = data["max_eval_samples"] or EVALUATION_DOCUMENTS
    data["max_eval_samples"] = min(asked, EVALUATION_DOCUMENTS)
    values["checkpoint"] |= {"enabled": True, "root_dir": None, "save_every": save_every(steps)}
    values["checkpoint"]["save_every_minutes"] = None
    values["logging"] |= {"metrics_file": "metrics.jsonl", "ledger_every": 1, "run_dir": None}
    values["logging"]["wandb"]["enabled"] = False
    values["logging"]["trackers"] = []
    if small:
        values["model"] |= SMALL_MODEL
    config_from_mapping(values)  # a problem is the user's to know before a run starts
    return values


def observe(trial: Trial, every: int) -> Known:
    """Return when the moments of a finished run were, and how long they lasted.

    Args:
        trial: the run.
        every: steps between its checkpoints.
    """
    rows = trial.rows("metrics.jsonl")
    reading = read_heartbeat(trial.folder.heartbeat)
    assert rows and reading is not None
    steps, seconds = rows[-1]["step"], reading.times.seconds
    evaluations = [row["step"] for row in rows if "eval_loss" in row]
    samples = [row["step"] for row in trial.rows("samples.jsonl")]
    return Known(
        steps,
        statistics.median(row["step_time_s"] for row in rows),
        Times.of(evaluations, seconds[Phase.EVALUATING]),
        Times.of(samples, seconds[Phase.SAMPLING]),
        Times.of(range(every, steps + 1, every), seconds[Phase.SAVING]),
        every,
        [row["step"] for before, row in itertools.pairwise(rows) if row["epoch"] > before["epoch"]],
        seconds[Phase.STARTING],
    )

"""The proof: a straight run, runs that are killed and resumed, and their comparison."""

import itertools
import shutil
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from chomp.config import Config, config_from_mapping
from chomp.history.heartbeat import Phase, read_heartbeat
from chomp.history.record import read_record
from chomp.proof.kills import Kill, Known, Moment, plan_kills
from chomp.proof.trial import Killed, Trial
from chomp.proof.verdict import differences

SHOWN_DIFFERENCES = 10
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


class Settings(NamedTuple):
    """How much to prove."""

    steps: int
    kills: int
    seed: int
    small: bool
    work_dir: Path | None


def prove(config: Config, settings: Settings, say: Callable[[str], None]) -> bool:
    """Run the proof and tell how it goes; return whether everything was equal.

    Raises:
        ChompError: a run failed by itself.
    """
    work = settings.work_dir or Path(tempfile.mkdtemp(prefix="chomp-prove-"))
    work.mkdir(parents=True, exist_ok=True)
    path = work / "config.yaml"
    path.write_text(yaml.safe_dump(trial_values(config, settings)), encoding="utf-8")
    straight = Trial(path, work / "straight")
    straight.finish()
    known = observe(straight, settings.steps)
    say(
        f"straight    {settings.steps} steps, {len(known.saves)} checkpoints, "
        f"{len(known.evaluations)} evaluations, {len(known.samples)} samples, "
        f"{len(known.epoch_ends)} ends of an epoch"
    )
    equal = True
    kills = plan_kills(settings.kills, known, settings.seed)
    done: list[Killed] = []
    laps = 0
    while kills:
        laps += 1
        killed = Trial(path, work / f"killed-{laps}")
        kills = _lap(killed, kills, done, say)
        found = list(differences(straight, killed))
        equal = equal and not found
        say(f"run {laps:<7} {_comparison(found)}")
    _summarize(done, laps, equal, say)
    if settings.work_dir is None and equal:
        shutil.rmtree(work)
    else:
        say(f"runs        {work}")
    return equal


def trial_values(config: Config, settings: Settings) -> dict[str, Any]:
    """Return the configuration's values, with a short run's steps and frequent periodic work."""
    values = config.model_dump(mode="json")
    steps, train, optim = settings.steps, values["train"], values["optim"]
    if optim["decay_steps"] is None:
        # The schedule that the config's own run would have.
        optim["decay_steps"] = max(1, train["steps"] - optim["warmup_steps"])
    optim["warmup_steps"] = min(optim["warmup_steps"], steps - 1)
    train |= {"steps": steps, "log_every": 1, "profile": False}
    train |= {name: max(2, steps // 3) for name in ("eval_every", "generate_every") if train[name]}
    data = values["data"]
    data["max_eval_samples"] = min(data["max_eval_samples"], EVALUATION_DOCUMENTS)
    values["checkpoint"] |= {"enabled": True, "root_dir": None, "save_every": max(2, steps // 7)}
    values["logging"] |= {"metrics_file": "metrics.jsonl", "ledger_every": 1, "run_dir": None}
    values["logging"]["wandb"]["enabled"] = False
    if settings.small:
        values["model"] |= SMALL_MODEL
    config_from_mapping(values)  # a problem is the user's to know before a run starts
    return values


def observe(trial: Trial, steps: int) -> Known:
    """Return when the moments of a finished run were, and how long they lasted."""
    rows = trial.rows("metrics.jsonl")
    beat = read_heartbeat(trial.folder.heartbeat)
    record = read_record(trial.folder.record)
    assert beat is not None and record is not None
    seconds = beat.seconds
    evaluations = [row["step"] for row in rows if "eval_loss" in row]
    samples = [row["step"] for row in trial.rows("samples.jsonl")]
    every = yaml.safe_load(trial.config.read_text(encoding="utf-8"))["checkpoint"]["save_every"]
    saves = [step for step in range(1, steps + 1) if step % every == 0]
    return Known(
        steps,
        statistics.median(row["step_time_s"] for row in rows),
        evaluations,
        seconds[Phase.EVALUATING] / max(1, len(evaluations)),
        samples,
        seconds[Phase.SAMPLING] / max(1, len(samples)),
        saves,
        seconds[Phase.SAVING] / max(1, len(saves)),
        [row["step"] for before, row in itertools.pairwise(rows) if row["epoch"] > before["epoch"]],
        sum(seconds[p] for p in (Phase.STARTING, Phase.COMPILING, Phase.RESTORING)),
    )


def _lap(
    trial: Trial, kills: list[Kill], done: list[Killed], say: Callable[[str], None]
) -> list[Kill]:
    """Kill one run as often as it can be, and let it finish; return the kills that are left."""
    placed = sorted((kill for kill in kills if not kill.follows), key=lambda kill: kill.step)
    following = [kill for kill in kills if kill.follows]
    while placed:
        killed = _killed(trial, placed[0], done, say)
        if killed is None:
            return placed[1:] + following
        placed.pop(0)
        if following and not _killed(trial, following.pop(0)._replace(step=killed.step), done, say):
            return placed + following
    trial.finish()
    return following


def _killed(
    trial: Trial, kill: Kill, done: list[Killed], say: Callable[[str], None]
) -> Killed | None:
    killed = trial.kill(kill)
    if killed is None:
        say(f"            missed: {kill.moment}, after step {kill.step}: the run ended before")
        return None
    done.append(killed)
    say(
        f"kill {len(done):<6} {kill.moment:<32} after step {killed.step:<5} ({killed.phase}), "
        f"resumes at {killed.resumed}"
    )
    return killed


def _comparison(found: list[str]) -> str:
    if not found:
        return "equal bit for bit: batches, losses, gradient norms, samples, final state"
    shown = "".join(f"\n  {line}" for line in found[:SHOWN_DIFFERENCES])
    more = len(found) - SHOWN_DIFFERENCES
    return f"DIFFERS{shown}" + (f"\n  and {more} more" if more > 0 else "")


def _summarize(done: list[Killed], laps: int, equal: bool, say: Callable[[str], None]) -> None:
    for moment in Moment:
        of_kind = [killed for killed in done if killed.kill.moment is moment]
        if of_kind:
            replayed = sum(max(0, killed.step - killed.resumed) for killed in of_kind)
            say(f"  {len(of_kind):>4} {moment:<32} {replayed:>5} steps done again")
    verdict = "all came back exactly" if equal else "NOT all came back exactly"
    say(f"{'proved' if equal else 'FAILED':<11} {len(done)} kills in {laps} run(s): {verdict}")

"""The proof: a straight run, runs that are killed and resumed, and their comparison."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import yaml

from chomp.config import Config
from chomp.errors import ConfigError
from chomp.proof.kills import TRIES, Kill, Known, Moment, in_order, plan_kills
from chomp.proof.trial import Killed, Trial
from chomp.proof.trial_config import observe, save_every, trial_values
from chomp.proof.verdict import differences
from chomp.proof.work_folder import work_folder
from chomp.system.console import Console

LEAST_STEPS = 8
SHOWN_DIFFERENCES = 10


class Settings(NamedTuple):
    """Settings of a proof."""

    steps: int
    kills: int
    seed: int
    small: bool
    work_dir: Path | None


class Proof(NamedTuple):
    """The outcome of a proof."""

    kills: list[Killed]
    """All that were delivered, in their moment or not."""
    missed: list[Kill]
    """Kills that never came in their moment, in all their tries."""
    differences: list[str]
    """Differences of killed runs from the straight one."""

    @property
    def proved(self) -> bool:
        """Whether every kill that was asked for came back exactly."""
        return not self.missed and not self.differences


def prove(config: Config, settings: Settings, console: Console) -> Proof:
    """Run the proof and tell how it goes.

    The runs' folder is deleted only if all is proved and the user didn't name it; else it is told.

    Raises:
        ConfigError: the configuration can't be run so, or `work_dir` holds something.
        ChompError: a run failed by itself; the message has its last lines.
    """
    values = trial_values(config, steps=settings.steps, small=settings.small)
    work = work_folder(settings.work_dir)
    kept = True
    try:
        (work / "config.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
        proof = _prove(work, settings, console)
        kept = settings.work_dir is not None or not proof.proved
    finally:
        if kept:
            console.message(f"runs        kept in {work}")
        else:
            shutil.rmtree(work)
    return proof


def _prove(work: Path, settings: Settings, console: Console) -> Proof:
    path = work / "config.yaml"
    straight = Trial(path, work / "straight")
    straight.finish()
    known = observe(straight, save_every(settings.steps))
    if known.steps < LEAST_STEPS:
        raise ConfigError(
            [
                f"data.repeat: the documents are used up after {known.steps} steps, which is too "
                "few for a proof; set it to true (-o data.repeat=true)"
            ]
        )
    console.message(_seen(known))
    kills = plan_kills(settings.kills, known, settings.seed)
    proof = Proof([], [], [])
    laps = 0
    # Ends: a lap after which kills are left has used up a try of one of them.
    while kills:
        laps += 1
        killed = Trial(path, work / f"killed-{laps}")
        kills = _lap(killed, kills, proof, console)
        found = list(differences(straight, killed))
        proof.differences.extend(found)
        console.message(f"run {laps:<7} {_comparison(found)}")
    for line in _summary(proof, laps):
        console.message(line)
    return proof


def _lap(trial: Trial, kills: list[Kill], proof: Proof, console: Console) -> list[Kill]:
    """Kill one run as often as it can be, and let it finish; return the kills that are left."""
    order, left = in_order(kills), []
    while order:
        kill = order.pop(0)
        killed = trial.kill(kill)
        if killed:
            proof.kills.append(killed)
            console.message(f"kill {len(proof.kills):<6} {_landing(killed)}")
        else:
            console.message(
                f"            {kill.moment}: none after step {kill.step} before the run ended"
            )
        if not (killed and killed.hit):
            again = kill.again()
            if again.tries >= TRIES:
                proof.missed.append(again)
            elif killed:  # the moment comes again: the checkpoint is from before it
                order.insert(0, again)
            else:
                left.append(again)
        if not killed:
            return left + order
    trial.finish()
    return left


def _seen(known: Known) -> str:
    return (
        f"straight    {known.steps} steps, {len(known.saves.steps)} checkpoints, "
        f"{len(known.evaluations.steps)} evaluations, {len(known.samples.steps)} samples, "
        f"{len(known.epoch_ends)} ends of an epoch"
    )


def _landing(killed: Killed) -> str:
    reading = killed.view.reading
    doing = reading.phase.value + (", checkpoint being written" if killed.view.writing else "")
    late = "" if killed.hit else "; too late for its moment"
    return (
        f"{killed.kill.moment:<32} {reading.finished:>4} steps finished ({doing}), "
        f"goes on from {killed.resumes}{late}"
    )


def _comparison(found: list[str]) -> str:
    if not found:
        return "equal bit for bit: batches, losses, gradient norms, samples, final state"
    shown = "".join(f"\n  {line}" for line in found[:SHOWN_DIFFERENCES])
    more = len(found) - SHOWN_DIFFERENCES
    return f"DIFFERS, first in {found[0]}{shown}" + (f"\n  and {more} more" if more > 0 else "")


def _summary(proof: Proof, laps: int) -> Iterator[str]:
    for moment in Moment:
        hits = [killed for killed in proof.kills if killed.kill.moment is moment and killed.hit]
        if hits:
            replayed = sum(killed.replayed for killed in hits)
            yield f"  {len(hits):>4} {moment:<32} {replayed:>5} steps done again"
    late = sum(not killed.hit for killed in proof.kills)
    if late:
        yield f"  {late:>4} at other moments than meant"
    saved = sum(killed.resumes > 0 for killed in proof.kills)
    total = f"{len(proof.kills)} kills in {laps} run(s), {saved} of them after a checkpoint"
    if proof.differences:
        yield f"FAILED      {total}: NOT all came back exactly"
    elif proof.missed:
        missed = ", ".join(dict.fromkeys(kill.moment.value for kill in proof.missed))
        yield (
            f"NOT PROVED  {total}: all came back exactly, but {len(proof.missed)} of those asked "
            f"for found no such moment in {TRIES} tries ({missed}); more --steps or a larger "
            "model make moments longer"
        )
    else:
        yield f"proved      {total}: all came back exactly"

"""Stops runs of a config with SIGTERM at random moments, and compares them with a straight run.

    python scripts/stop_signals.py configs/quickstart.yaml --small > docs/results/stop-signals.md

Each stop is resumed. After each the exit code must be 143, and the newest checkpoint good and of
the last finished step; at the end of each run its metrics, ledger, samples and final state must
be those of a run that was never stopped. Prints a table in Markdown, with the time from the
signal to the end of the process; ends with 1 if anything is wrong.

The run is a short one with the config's own data, tokenizer, model and optimizer, and frequent
evaluations, samples and checkpoints: that of `chomp prove-resume`.
"""

import argparse
import json
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import yaml
from result_page import print_head

from chomp.config import load_config
from chomp.proof.kills import Kill, plan_kills
from chomp.proof.trial import POLL_SECONDS, Trial
from chomp.proof.trial_config import observe, save_every, trial_values
from chomp.proof.verdict import differences
from chomp.run.heartbeat import Phase, read_heartbeat


class Stop(NamedTuple):
    phase: Phase
    """What the run was doing when the signal came."""
    saving: bool
    """A checkpoint was being written meanwhile."""
    seconds: float
    """From the signal to the end of the process."""
    step: int
    lost: int
    wrong: list[str]


class StoppedTrial(Trial):
    step = 0
    """The last finished step of all starts."""

    def stop(self, moment: Kill) -> Stop | None:
        """Start, and send SIGTERM when the moment has come; None if the run ended before."""
        process = self._start()
        phase, saving, sent = Phase.STARTING, False, 0.0
        while process.poll() is None and not sent:
            if self._is_now(moment, process):
                time.sleep(moment.delay)
                view = self._view(process)
                assert view is not None
                phase, saving, sent = view.reading.phase, view.writing, time.perf_counter()
                process.send_signal(signal.SIGTERM)
            time.sleep(POLL_SECONDS)
        code = process.wait()
        seconds = time.perf_counter() - sent
        if code == 0:  # it had nothing left to do
            return None
        if not sent:
            raise self._failure(process)
        beat, newest = read_heartbeat(self.folder.heartbeat), self.checkpoints.newest_good()
        assert beat is not None
        self._resumed = newest.step or 0
        right = {128 + signal.SIGTERM}
        if phase is Phase.ENDED:  # of the process before: this one still reads its modules
            right.add(-signal.SIGTERM)
        wrong = [f"exit code {code}"] if code not in right else []
        wrong += [f"checkpoint of step {step}: {what}" for step, what in newest.rejected]
        self.step = max(self.step, beat.finished)
        if lost := self.step - (newest.step or 0):
            wrong.append(f"step {self.step} finished, {newest.step} saved")
        return Stop(phase, saving, seconds, self.step, lost, wrong)

    def interrupted_sample(self) -> bool:
        """Whether the last checkpoint was saved by a stop before that step's sample was drawn."""
        step = self.checkpoints.steps()[-1]
        record = json.loads((self.checkpoints.path(step) / "run.json").read_text(encoding="utf-8"))
        return "sample" in record["meta"]["unfinished"]["actions"]


def stop_often(trial: StoppedTrial, moments: list[Kill], stops: list[Stop]) -> list[Kill]:
    """Stop one run as often as it can be, and let it finish; return the moments that are left."""
    while moments:
        moment = moments.pop(0)
        stop = trial.stop(moment)
        if stop is None:
            return moments
        stops.append(stop)
        print(
            f"stop {len(stops):<4} {moment.moment:<30} {stop.phase:<16} after step {stop.step:<4} "
            f"{stop.seconds:5.2f} s  {'; '.join(stop.wrong) or 'good'}",
            file=sys.stderr,
        )
    trial.finish()
    return moments


def table(stops: list[Stop]) -> str:
    lines = [
        "| what the run did | stops | seconds to the end, median | longest | steps lost |",
        "|---|---|---|---|---|",
    ]
    groups = {str(phase): [stop for stop in stops if stop.phase is phase] for phase in Phase}
    groups["while a checkpoint was written in the background, any of these"] = [
        stop for stop in stops if stop.saving
    ]
    groups["all"] = stops
    for name, group in groups.items():
        if group:
            seconds = [stop.seconds for stop in group]
            lines.append(
                f"| {name} | {len(group)} | {statistics.median(seconds):.2f} | {max(seconds):.2f} "
                f"| {sum(stop.lost for stop in group)} |"
            )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("-o", "--override", action="append", default=[])
    parser.add_argument("--stops", type=int, default=100)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--small", action="store_true", help="shrink the model")
    options = parser.parse_args()
    config = load_config(options.config, options.override)
    stops: list[Stop] = []
    unequal, runs = [], 0
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        path = work / "config.yaml"
        values = trial_values(config, steps=options.steps, small=options.small)
        path.write_text(yaml.safe_dump(values), encoding="utf-8")
        straight = Trial(path, work / "straight")
        straight.finish()
        known = observe(straight, save_every(options.steps))
        while (missing := options.stops - len(stops)) > 0:
            runs += 1
            moments = plan_kills(missing, known, options.seed + runs)
            moments.sort(key=lambda moment: moment.step)
            trial = StoppedTrial(path, work / f"stopped-{runs}")
            if stop_often(trial, moments, stops):
                print("the run ended before the other moments", file=sys.stderr)
            found = list(differences(straight, trial))
            if trial.interrupted_sample():
                found = [line for line in found if "data place samples" not in line]
            unequal += found
    good = sum(not stop.wrong for stop in stops)
    print_head("Stop signals", "stop-signals")
    print(table(stops))
    print(f"\n{good} of {len(stops)} stops: exit code 143, the newest checkpoint good and of the")
    print(f"last finished step. {runs} run(s), compared with one that was never stopped:")
    print("\n".join(unequal[:10]) or "all rows, ledgers, samples and final states are equal.")
    return int(good < len(stops) or bool(unequal))


if __name__ == "__main__":
    sys.exit(main())

"""`chomp bench startup`: from the command to its first finished step, in fresh processes."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from chomp.bench.spread import Spread
from chomp.errors import ChompError
from chomp.system.console import SILENT, Console
from chomp.system.plugins import plugin_options

Values = dict[str, object]
TEMPERATURES = ("cold", "warm")
PARTS = (
    *("imports", "tokenizer", "model", "data", "compile"),
    *("initial_state", "first_batch", "first_step"),
)


def bench_startup(
    config: Path,
    overrides: Sequence[str],
    *,
    rounds: int,
    console: Console = SILENT,
) -> Values:
    """Start training again and again, each time first with an empty compile cache, then warm.

    Returns:
        For `cold` and `warm` the seconds from the process's start to the end of the first step,
        and those of its parts: `python` is the time before chomp's heavy imports, `initial_state`
        and `first_batch` what is left to wait for once the step is compiled.

    Args:
        config: the file.
        overrides: its overrides.
        rounds: how often.
        console: shows what is going on.

    Raises:
        ChompError: the run failed; the message has its last lines.
    """
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="chomp-bench-") as name:
        for number in range(rounds):
            console.message(f"round {number + 1} of {rounds}")
            cache = Path(name) / f"cache{number}"
            for temperature in TEMPERATURES:
                folder = Path(name) / f"{temperature}{number}"
                for part, seconds in _start(config, overrides, folder, cache).items():
                    found.setdefault(f"{temperature}_{part}_seconds", []).append(seconds)
    return {name: Spread.of(seconds) for name, seconds in found.items()}


def _start(config: Path, overrides: Sequence[str], folder: Path, cache: Path) -> dict[str, float]:
    """Train to the first step; return the seconds of the whole and of its parts."""
    marks = folder.with_suffix(".json")
    own = (f"runtime.compile_cache={cache}", "logging.wandb.enabled=false", "logging.trackers=[]")
    options = [part for override in (*overrides, *own) for part in ("-o", override)]
    command = [sys.executable, "-m", "chomp.bench.first_step", str(marks)]
    command += ["train", str(config), "--run-dir", str(folder), *options, *plugin_options()]
    began = time.time()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode or not marks.exists():
        raise ChompError(f"the run failed:\n{(done.stderr or done.stdout)[-2000:]}")
    spans: dict[str, tuple[float, float]] = json.loads(marks.read_text(encoding="utf-8"))
    return _parts(began, spans)


def _parts(began: float, spans: dict[str, tuple[float, float]]) -> dict[str, float]:
    # Between the end of the compilation and the loop the state is made and files are opened.
    spans["initial_state"] = (spans["compile"][1], spans["first_batch"][0])
    parts = {"start": spans["first_step"][1] - began, "python": spans["imports"][0] - began}
    return parts | {name: spans[name][1] - spans[name][0] for name in PARTS}

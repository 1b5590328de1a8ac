"""Train a config at every combination of some values, and print what each reached.

python scripts/sweep.py configs/quickstart.yaml train.steps=300 optim.lr=3e-3,6e-3,1.2e-2

Each value is given as an override `key=value`, several of them with commas between. Runs that are
in the folder already (runs/sweep, or --runs) aren't made again; one that was cut off goes on.
"""

import argparse
import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("config", type=Path)
    parser.add_argument("values", nargs="+", help="key=value or key=value,value,...")
    parser.add_argument("--runs", type=Path, default=Path("runs/sweep"))
    args = parser.parse_args()
    axes = [value.partition("=")[::2] for value in args.values]
    axes = [(key, values.split(",")) for key, values in axes]
    swept = [key for key, values in axes if len(values) > 1]
    print(f"| {' | '.join(swept)} | bits per byte | evaluation loss | training loss |")
    print("|" + "---|" * (len(swept) + 3), flush=True)
    for combination in itertools.product(*(values for _, values in axes)):
        setting = dict(zip((key for key, _ in axes), combination, strict=True))
        row = train(args.config, setting, args.runs)
        reached = (row.get(k) for k in ("eval_bits_per_byte", "eval_loss", "loss"))
        figures = ["-" if value is None else f"{value:.4f}" for value in reached]
        print("| " + " | ".join([*(setting[key] for key in swept), *figures]) + " |", flush=True)
    return 0


def train(config: Path, setting: dict[str, str], runs: Path) -> dict[str, Any]:
    """Return the last row of a run with these values, be it finished or not."""
    run = runs / (",".join(f"{key}={value}" for key, value in setting.items()).replace("/", "_"))
    command = [sys.executable, "-m", "chomp", "train", str(config), "--run-dir", str(run)]
    command += [part for key, value in setting.items() for part in ("-o", f"{key}={value}")]
    command += ["--resume", "latest"] if run.exists() else []
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(f"{run}: {done.stderr.strip()}", file=sys.stderr)
    try:
        lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    return json.loads(lines[-1]) if lines else {}


if __name__ == "__main__":
    sys.exit(main())

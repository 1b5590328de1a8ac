"""Command lines that ask for what can't be."""

import shutil
from contextlib import ExitStack
from pathlib import Path

from bad_input.case import RESUME, TRAIN, Case, files
from chomp.run.run_folder import RunFolder


def _busy(place: Path, held: ExitStack) -> None:
    held.enter_context(RunFolder(place / "run").lock())


def _only_foreign(place: Path, _: ExitStack) -> None:
    shutil.rmtree(place / "run")
    (place / "run").mkdir()
    (place / "run" / "thesis.tex").write_text("years of work")


COMMAND_LINES = (
    Case("no command that exists", "trian", ("No such command 'trian'", "train")),
    Case("no option that exists", "train config.yaml --rundir x", ("--rundir", "--run-dir")),
    Case("`chomp train` alone", "train", "configs/quickstart.yaml"),
    Case("two configs", "train config.yaml config.yaml", "unexpected extra argument"),
    Case("`--resume` without `--run-dir`", "train --resume latest", "--resume needs --run-dir"),
    Case("`--resume` without its value", "train --run-dir run --resume", "requires an argument"),
    Case(
        "`--run-dir` of a run, without CONFIG and `--resume`",
        "train --run-dir run",
        "--resume latest",
    ),
    Case("`--resume first`", "train --run-dir run --resume first", ("'first'", "latest")),
    Case("`--resume -2`", "train --run-dir run --resume -2", ("'-2'", "2, 4")),
    Case(
        "resume at a step that wasn't saved", "train --run-dir run --resume 3", "saved steps: 2, 4"
    ),
    Case("resume where there is no run", "train --run-dir none --resume latest", "holds no run"),
    Case(
        "resume with another learning rate", RESUME + " -o optim.lr=0.5", "optim.lr: was", lines=1
    ),
    Case(
        "`--allow-change` without `--resume`",
        TRAIN + " --allow-change optim.lr",
        "goes with --resume",
    ),
    Case(
        "`--allow-change` of an unknown key",
        RESUME + " --allow-change optim.rl",
        ("optim.rl", "optim.lr"),
    ),
    Case(
        "`--allow-change` with a value",
        RESUME + " --allow-change optim.lr=0.5",
        ("optim.lr=0.5", "-o"),
    ),
    Case(
        "new run in the folder of one",
        "train config.yaml --run-dir run",
        ("already holds a run", "--resume latest"),
    ),
    Case(
        "new run in a folder of other files (they stay)",
        "train config.yaml --run-dir run",
        prepare=_only_foreign,
        code=0,
    ),
    Case("`--run-dir` is a file", "train config.yaml --run-dir config.yaml", "another --run-dir"),
    Case(
        "`--run-dir` below a file", "train config.yaml --run-dir config.yaml/x", "another --run-dir"
    ),
    Case(
        "`--run-dir` can't be made",
        "train config.yaml --run-dir /proc/chomp/run",
        "another --run-dir",
    ),
    Case(
        "`--run-dir` can't be written to",
        "train config.yaml --run-dir /proc/self/fdinfo",
        "another --run-dir",
    ),
    Case("`--run-dir` is empty", "train config.yaml", "--run-dir", words=("--run-dir", "")),
    Case(
        "`--run-dir` has a name of 300 letters",
        "train config.yaml",
        "File name too long",
        words=("--run-dir", "x" * 300),
    ),
    Case("another process trains there", RESUME, "another process is training", prepare=_busy),
    Case(
        "`logging.run_dir` is a file",
        "train config.yaml",
        "config.yaml can't be made",
        {"logging.run_dir": "config.yaml"},
    ),
    Case(
        "a log in a folder that can't be made",
        TRAIN,
        "logging.log_file",
        {"logging.log_file": "/proc/chomp/train.log"},
    ),
    Case("a log that is a folder", TRAIN, "logging.log_file", {"logging.log_file": "/tmp"}),
    Case(
        "metrics that can't be written",
        TRAIN,
        "logging.metrics_file",
        {"logging.metrics_file": "/proc/chomp/metrics.jsonl"},
    ),
    Case(
        "resume with `checkpoint.enabled: false`",
        RESUME + " -o checkpoint.enabled=false",
        "checkpoint.enabled",
    ),
    Case(
        "resume with fewer steps than done",
        RESUME + " -o train.steps=3",
        "train.steps",
    ),
    Case("`generate` without a run", "generate none", "holds no run", stdin="x"),
    Case("`generate` from the dummy model", "generate run --prompt x", "can't generate"),
    Case("`generate` of 0 tokens", "generate run --prompt x --max-tokens 0", "--max-tokens"),
    Case(
        "`generate` at temperature -1", "generate run --prompt x --temperature -1", "--temperature"
    ),
    Case(
        "`generate` at a temperature of nan",
        "generate run --prompt x --temperature nan",
        "--temperature",
    ),
    Case("`generate` with top p of 2", "generate run --prompt x --top-p 2", "--top-p"),
    Case("`generate` with a seed of text", "generate run --prompt x --seed x", "--seed"),
    Case("`generate` with a huge seed", f"generate run --prompt x --seed {10**30}", "--seed"),
    Case("`generate` from a file", "generate config.yaml --prompt x", "config.yaml"),
    Case("`generate` with no run named", "generate", "RUN[:STEP]"),
    Case("`config show` of a missing file", "config show nothing.yaml", "can't be read"),
    Case(
        "a text file for a config",
        "config show notes.txt",
        "must be a mapping",
        prepare=files(notes__txt="just words\n"),
    ),
)

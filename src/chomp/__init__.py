"""chomp: pretrain small Megalodon language models, with runs that resume bit for bit."""

import functools
import sys
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chomp.commands.open_run import Run
    from chomp.config import Config
    from chomp.trainer.callback import Callback

__version__ = "0.1.0"
__all__ = ["Callback", "Config", "__version__", "open_run", "train"]


def train(
    config: "str | PathLike[str] | Mapping[str, Any] | Config",
    *,
    run_dir: "str | PathLike[str] | None" = None,
    callbacks: "Sequence[Callback]" = (),
    resume: str | int | None = None,
    allow_change: Sequence[str] = (),
) -> int:
    """Train a model, in this process, as `chomp train` does.

    Args:
        config: a YAML file's path, a mapping of its sections, or a `Config`.
        run_dir: the run folder; None: a new one in `runs/`.
        callbacks: work after some of the steps, besides what the configuration asks for.
        resume: `latest`, or a saved step of the run in `run_dir`; None: a new run.
        allow_change: keys that may differ from the saved run's.

    Returns:
        The exit code: 0, or 128 + the signal that stopped the run.

    Raises:
        ChompError: what ended the run.
    """
    _prepare_environment()
    from chomp.trainer.from_python import train as start

    return start(
        config, run_dir=run_dir, callbacks=callbacks, resume=resume, allow_change=allow_change
    )


def open_run(
    path: "str | PathLike[str]", *, trust_remote_code: bool = False, ema: bool = False
) -> "Run":
    """Open a saved run: its parameters, tokenizer and metrics, to generate and to score.

    Args:
        path: the run folder, or `RUN:STEP`; by default the newest good checkpoint.
        trust_remote_code: run the Python code that comes with the run's tokenizer.
        ema: take the average of the parameters (`train.ema`) instead of the newest ones.

    Raises:
        ResumeError: the folder holds no run.
    """
    _prepare_environment()
    from chomp.commands.open_run import Run

    return Run(str(path), trust_remote_code=trust_remote_code, ema=ema)


@functools.cache
def _prepare_environment() -> None:
    """Set what must stand before JAX is imported."""
    from chomp.system.jax_runtime import prepare_environment

    for warning in prepare_environment():
        print(f"warning: {warning}", file=sys.stderr)


def __getattr__(name: str) -> Any:
    # JAX, which the class's module imports, takes seconds.
    if name == "Callback":
        _prepare_environment()
        from chomp.trainer.callback import Callback

        return Callback
    if name == "Config":
        from chomp.config import Config

        return Config
    raise AttributeError(f"module 'chomp' has no attribute {name!r}")

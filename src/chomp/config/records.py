"""The sections `checkpoint`, `logging`, `debug` and `runtime`."""

from typing import Annotated, Literal

from pydantic import Field

from chomp.config.base import Count, CountOrZero, Name, Positive, Section, Texts
from chomp.config.registry import TrackerName


class CheckpointConfig(Section):
    """When the state is saved, where, and how much of it is kept."""

    enabled: bool = True
    """Save checkpoints. `false`: the run can't be resumed."""
    root_dir: Name | None = None
    """Folder of the checkpoints; a relative path counts from the run folder. `null`:
    `checkpoints` in the run folder."""
    save_every: Count = 5000
    """Steps between checkpoints; the last step and a stopped run are saved as well."""
    save_every_minutes: Positive | None = None
    """Minutes between checkpoints, besides those by steps. `null`: by steps only."""
    max_to_keep: Count = 3
    """Newest checkpoints to keep; older ones are deleted."""
    keep_every: CountOrZero = 0
    """Checkpoints of steps divisible by this are kept for good, beside the newest ones. 0: none."""
    async_save: bool = True
    """Write checkpoints in the background while training goes on."""


class WandbConfig(Section):
    """Weights & Biases: the rows of the metrics file, sent there too."""

    enabled: bool = False
    """Send metrics to Weights & Biases (install `chomp[wandb]`), as `wandb` among
    `logging.trackers` does."""
    project: Name | None = None
    """Its project. `null`: `logging.project`."""
    entity: Name | None = None
    """Its user or team. `null`: your default one."""
    run_name: Name | None = None
    """The run's name there. `null`: the run folder's name."""
    mode: Literal["online", "offline", "disabled"] | None = None
    """`offline` keeps everything in `./wandb` (or `WANDB_DIR`) and needs no network. `null`: as
    `WANDB_MODE` says, else `online`."""
    tags: Texts = ()
    """Labels of the run there."""


class MlflowConfig(Section):
    """MLflow, with `mlflow` among `logging.trackers`."""

    tracking_uri: Name | None = None
    """Its server, or a database: `sqlite:///mlflow.db`. `null`: as `MLFLOW_TRACKING_URI` says, else
    MLflow's own default."""
    experiment: Name | None = None
    """Its experiment. `null`: as `MLFLOW_EXPERIMENT_NAME` says, else `logging.project`."""
    run_name: Name | None = None
    """The run's name there. `null`: the run folder's name."""


class LoggingConfig(Section):
    """Where the run writes what happened."""

    project: Name = "chomp"
    """Name of the project the run belongs to."""
    run_dir: Name | None = None
    """The run folder; `--run-dir` goes first. `null`: a new one under `runs/`, with date and name
    of the config."""
    metrics_file: Name = "metrics.jsonl"
    """File of metrics in the run folder, one JSON object a line."""
    ledger_every: CountOrZero = 1
    """Steps between lines of `ledger.jsonl`, which says what documents a step was trained on; the
    last step has one as well. 0: none."""
    peak_tflops: Positive | None = None
    """The device's peak rate for matrix products in TFLOP/s, which `mfu` in the metrics is
    measured against. `null`: by the data sheet of the GPUs that are known (dense bfloat16); with
    other devices one large product is timed, and the metrics have `fraction_of_matmul_bound`."""
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "INFO"
    """Least severe log lines to keep."""
    console_use_rich: bool = True
    """Progress bar, colours and panels. `false`: plain lines."""
    log_file: Name | None = "train.log"
    """File in the run folder for log lines, other libraries' included; or `/dev/stderr`. `null`:
    none."""
    watch: bool = False
    """Every `train.log_every` steps the row of metrics has the norms of each layer's gradient,
    update and parameters (`grad_norm/layers.0.attn`, `update_norm/...`, `param_norm/...`). Each
    time takes as long as a step."""
    trackers: Annotated[tuple[TrackerName, ...], Field(strict=False)] = ()
    """Who gets the rows of the metrics file and the samples as well: `tensorboard`, `mlflow`,
    `wandb` (each comes with the extra of its name), or trackers that your own module registers
    (`--plugin`). `jsonl`, the metrics file itself, is always written."""
    mlflow: MlflowConfig = Field(default_factory=MlflowConfig)
    """MLflow."""
    wandb: WandbConfig = Field(default_factory=WandbConfig)
    """Weights & Biases."""


class DebugConfig(Section):
    """Checks while training."""

    nan_check: bool = True
    """Look whether loss and gradients are finite, at each row and before each checkpoint, and do
    what `train.on_divergence` says. `false`: updates that aren't finite are left out and counted
    (`updates_rejected`), and nothing else happens."""
    check_device_every: CountOrZero = 100
    """Steps between checks that the training state is still on its device. 0: never."""


class RuntimeConfig(Section):
    """How JAX is started, and the process watched."""

    compile_cache: Name | None = "auto"
    """Folder of compiled programs: the next start of the same model compiles nothing. `auto`: in
    the platform's folder for caches (`~/.cache/chomp/jax` on Linux, or in `XDG_CACHE_HOME`).
    `null`: none."""
    compile_cache_gb: Positive = 4.0
    """Size of that folder, in 10^9 bytes, above which a start deletes the programs that were not
    used for longest."""
    watchdog_seconds: CountOrZero = 300
    """Seconds without any progress after which the stacks of all threads go to the log and a line
    to the console. 0: never."""

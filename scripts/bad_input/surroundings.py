"""The machine and its environment: devices, flags, home folder, services."""

from bad_input.case import Case

DEFAULT_CACHE = {"runtime.compile_cache": "~/.cache/chomp/jax"}
DRY_RUN = "train config.yaml --dry-run"
WANDB = {"logging.wandb.enabled": True, "logging.project": "chomp"}

SURROUNDINGS = (
    Case(
        "no accelerator, without `train.allow_cpu`",
        says="train.allow_cpu",
        change={"train.allow_cpu": False},
        env={"JAX_PLATFORMS": "cpu"},
        alone=True,
    ),
    Case(
        "`JAX_PLATFORMS` without such a platform, `--dry-run`",
        DRY_RUN,
        says="JAX_PLATFORMS",
        env={"JAX_PLATFORMS": "cuda"},
        alone=True,
    ),
    Case(
        "`JAX_PLATFORMS` misspelt, `--dry-run`",
        DRY_RUN,
        says="JAX_PLATFORMS",
        env={"JAX_PLATFORMS": "gup"},
        alone=True,
    ),
    Case(
        "`JAX_PLATFORMS` misspelt",
        says="JAX_PLATFORMS",
        env={"JAX_PLATFORMS": "gup"},
        alone=True,
    ),
    Case(
        "`XLA_FLAGS` with an unknown flag",
        says="XLA_FLAGS",
        env={"XLA_FLAGS": "--xla_nonsense=true"},
        alone=True,
        foreign=True,
        code=1,
    ),
    Case(
        "`XLA_FLAGS` with words",
        says="XLA_FLAGS",
        env={"XLA_FLAGS": "fast please"},
        alone=True,
        foreign=True,
        code=1,
    ),
    Case("no HOME", change=DEFAULT_CACHE, env={"HOME": None}, alone=True, code=0),
    Case(
        "HOME can't be written to",
        says="runtime.compile_cache",
        change=DEFAULT_CACHE,
        env={"HOME": "/proc/chomp"},
        alone=True,
        code=0,
    ),
    Case(
        "compile cache is a file",
        says="runtime.compile_cache",
        change={"runtime.compile_cache": "config.yaml"},
        alone=True,
        code=0,
    ),
    Case(
        "compile cache of an unknown user",
        says="runtime.compile_cache",
        change={"runtime.compile_cache": "~nobody_here/cache"},
        alone=True,
        code=0,
    ),
    Case(
        "W&B without login",
        says="logging.wandb",
        change=WANDB,
        env={"WANDB_API_KEY": None, "HOME": "/proc/chomp", "NETRC": "/nothing"},
        alone=True,
    ),
    Case(
        "W&B with a key that isn't one",
        says="logging.wandb",
        change=WANDB,
        env={"WANDB_API_KEY": "secret"},
        alone=True,
    ),
    Case(
        "W&B unreachable",
        says="logging.wandb",
        change=WANDB,
        alone=True,
        env={"WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9"},
    ),
    Case(
        "W&B with an odd project name",
        says="logging.wandb",
        alone=True,
        change=WANDB | {"logging.project": "a/b:c", "logging.wandb.mode": "offline"},
    ),
)

"""Names of what is in a run folder whatever its configuration."""

from pathlib import PurePath

RUN_FILES = (
    "config_original.yaml",
    "config_resolved.json",
    "samples.jsonl",
    "ledger.jsonl",
    "run.json",
    "run.events.jsonl",
    "heartbeat",
    "tokenizer",
    "wandb_id",
    "mlflow_id",
    "tensorboard",
    ".lock",
)
"""Names in the run folder that no key changes."""
DRAFTS = tuple(f"{name}.tmp" for name in RUN_FILES)
"""Names under which new ones are written, before they take the place of the old."""


def beside(place: PurePath) -> tuple[PurePath, ...]:
    """Return where a run may write, or delete, beside a file of lines: drafts, rows taken out."""
    return place.with_name(f"{place.name}.tmp"), place.with_suffix(".replaced.jsonl")


RUN_PLACES = tuple(
    dict.fromkeys(
        PurePath(path)
        for name in (*RUN_FILES, *DRAFTS)
        for path in (name, *beside(PurePath(name)) * name.endswith(".jsonl"))
    )
)
"""All that is in a run folder whatever the configuration."""
UNFINISHED_BRANCH = ".unfinished-branch-"
"""In front of the name of a folder in which a branch is being made."""

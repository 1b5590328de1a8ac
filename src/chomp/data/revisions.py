"""The commits that a run's datasets on the hub had: whoever goes on with the run reads these."""

import re
from collections.abc import Mapping
from typing import Any, TypeVar

from chomp.config.data import DataConfig
from chomp.config.sources import EvaluationSetConfig, SourceConfig
from chomp.data.all_sources import EVALUATION, source_key

Named = TypeVar("Named", DataConfig, SourceConfig, EvaluationSetConfig)


def at_commits(config: DataConfig, fingerprint: Mapping[str, Any]) -> DataConfig:
    """Return the section with the commit of each dataset that it names without a revision.

    Args:
        config: the section `data`.
        fingerprint: of the data as it was read; says nothing of datasets that it doesn't know.
    """

    def pinned(named: Named, prefix: str) -> Named:
        commit = re.fullmatch(r"[^@]*@([0-9a-f]{40})", str(fingerprint.get(f"{prefix}revision")))
        same = fingerprint.get(f"{prefix}dataset") == named.hf_dataset
        if named.hf_revision is not None or not commit or not same:
            return named
        return named.model_copy(update={"hf_revision": commit[1]})

    sets = {
        "sources": tuple(pinned(each, source_key(each.name or "")) for each in config.sources),
        "eval_sets": tuple(
            pinned(each, f"{EVALUATION}set {each.name} ") for each in config.eval_sets
        ),
    }
    return pinned(config.model_copy(update=sets), "")

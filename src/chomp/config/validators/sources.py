"""The rules of mixtures: what a source is, its name, and the weights."""

from collections import Counter
from collections.abc import Iterator

from chomp.config.registry import SOURCES
from chomp.config.sections import Sections
from chomp.config.sources import KINDS
from chomp.config.validators.base import Problem, rule


@rule("data.sources")
def sources_are_something(config: Sections) -> Iterator[Problem]:
    """Each of `data.sources` has exactly one of `files`, `hf_dataset`, `tokens_dir`, `builtin` and
    `backend`, and not all weights are 0.
    """
    for number, source in enumerate(config.data.sources):
        if len(source.kinds) != 1:
            got = " and ".join(source.kinds) or "none"
            yield Problem(
                f"data.sources.{number}", f"must have one of {', '.join(KINDS)} (got {got})"
            )
        elif source.backend in SOURCES.own:
            yield Problem(
                f"data.sources.{number}.backend",
                "must be a source that your own module registers; for others give "
                f"{', '.join(KINDS[:-1])} (got {source.backend!r})",
            )
        elif source.hf_dataset and source.hf_split == source.hf_eval_split:
            yield Problem(
                f"data.sources.{number}.hf_eval_split",
                f"must be another split than hf_split (got {source.hf_split!r}); null holds "
                "documents of it out of training",
            )
    if config.data.sources and not any(source.weight for source in config.data.sources):
        yield Problem("data.sources", "must not all have weight 0")


@rule("data.sources", "data.eval_sets")
def names_differ(config: Sections) -> Iterator[Problem]:
    """The names of `data.sources` and `data.eval_sets` are all different."""
    names = [each.name for each in (*config.data.sources, *config.data.eval_sets)]
    for name, count in Counter(names).items():
        if count > 1:
            yield Problem(
                "data.sources" if config.data.sources else "data.eval_sets",
                f"{count} of these and data.eval_sets are called {name!r}; give each a name: of "
                "its own",
            )


@rule("data.sources", "data.stages")
def stages_have_all_weights(config: Sections) -> Iterator[Problem]:
    """Each of `data.stages` begins after the one before, with a weight for each of `data.sources`,
    not all of them 0.
    """
    names, last = [str(source.name) for source in config.data.sources], 0
    if config.data.stages and not names:
        yield Problem("data.stages", "need data.sources (got none)")
        return
    for number, stage in enumerate(config.data.stages):
        path = f"data.stages.{number}"
        if stage.from_step <= last:
            yield Problem(
                f"{path}.from_step",
                f"must be greater than the stage's before, which is {last} (got {stage.from_step})",
            )
        last = stage.from_step
        if missing := [name for name in names if name not in stage.weights]:
            yield Problem(
                f"{path}.weights",
                f"must name each source (missing: {', '.join(missing)}); 0 leaves one out",
            )
        if unknown := [name for name in stage.weights if name not in names]:
            yield Problem(
                f"{path}.weights",
                f"no source is called {', '.join(unknown)}; there are {', '.join(names)}",
            )
        elif not any(stage.weights.values()):
            yield Problem(f"{path}.weights", "must not all be 0")


@rule("data.eval_sets")
def evaluation_sets_are_something(config: Sections) -> Iterator[Problem]:
    """Each of `data.eval_sets` has either `files` or `hf_dataset`."""
    for number, each in enumerate(config.data.eval_sets):
        if bool(each.files) == bool(each.hf_dataset):
            got = "both" if each.files else "none"
            yield Problem(
                f"data.eval_sets.{number}", f"must have one of files, hf_dataset (got {got})"
            )

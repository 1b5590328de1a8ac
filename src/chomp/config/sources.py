"""Entries of lists in the `data` section: files, sources of a mixture, evaluation sets."""

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    PlainSerializer,
    StringConstraints,
    Tag,
    WithJsonSchema,
)

from chomp.config.base import Count, Name, NotNegative, Section
from chomp.config.options import FrozenOptions, Options
from chomp.config.registry import SourceName


class FileSource(Section):
    """Files whose texts have a key of their own."""

    path: Name
    """A path, folder or glob."""
    text_key: Name | None = None
    """The column or key that holds a document's text there. `null`: `data.text_key`."""


PLAIN, KEYED = "a path", "a mapping"
"""Names of the two forms of an entry of files."""


def _form(entry: Any) -> str:
    return KEYED if isinstance(entry, dict | FileSource) else PLAIN


Files = Annotated[
    tuple[
        Annotated[
            Annotated[Name, Tag(PLAIN)] | Annotated[FileSource, Tag(KEYED)], Discriminator(_form)
        ],
        ...,
    ],
    Field(strict=False),
]

Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=64)]
"""A name that metrics carry: letters, digits, `_`, `.` and `-`."""
KINDS = ("files", "hf_dataset", "tokens_dir", "builtin", "backend")
"""Keys of a source of which one says what it is."""


class SourceConfig(Section):
    """One source of a mixture: one of `files`, `hf_dataset`, `tokens_dir`, `builtin` and `backend`,
    its weight, and keys that mean what they mean in `data`.
    """

    name: Label | None = None
    """What metrics call it. `null`: the last part of its path or dataset."""
    weight: NotNegative = 1.0
    """Its share of the targets, beside the other sources' weights."""
    files: Files = ()
    """Paths, folders or globs."""
    hf_dataset: Name | None = None
    """A Hugging Face dataset, streamed."""
    tokens_dir: Name | None = None
    """A folder that `chomp data prepare` wrote."""
    builtin: Literal["python-stdlib"] | None = None
    """Text that every machine has."""
    backend: SourceName | None = None
    """A source that your own module registers (`--plugin`)."""
    options: Options = Field(default={}, validate_default=True)
    """Values for a source of your own."""
    text_key: Name | None = None
    """The column or key of a document's text. `null`: `data.text_key`."""
    document_separator: Name | None = None
    """For text files: what stands between two documents. `null`: `data.document_separator`."""
    eval_files: Files = ()
    """For `files`: files to evaluate on. Empty: documents of the source are held out."""
    hf_name: Name | None = None
    """For `hf_dataset`: its configuration. `null`: its default."""
    hf_split: Name = "train"
    """For `hf_dataset`: the split to train on."""
    hf_revision: Name | None = None
    """For `hf_dataset`: its version on the hub. `null`: the newest when the run begins."""
    hf_eval_split: Name | None = None
    """For `hf_dataset`: the split to evaluate on. `null`: documents are held out."""
    max_eval_samples: Count | None = None
    """Documents of its evaluation set. `null`: `data.max_eval_samples`."""

    @property
    def kinds(self) -> list[str]:
        """The keys given that say what it is; in a valid source it is one."""
        return [key for key in KINDS if getattr(self, key)]

    def alone(self) -> dict[str, Any]:
        """Return the values that the section `data` has for this source alone."""
        own = {"hf_dataset": "hf", "tokens_dir": "tokens"}
        backend = next((self.backend or own.get(kind, kind) for kind in self.kinds), "files")
        shared = ("text_key", "document_separator", "max_eval_samples", "hf_dataset", "builtin")
        values = {
            key: value
            for key in type(self).model_fields
            if (value := getattr(self, key)) is not None or key not in shared
        }
        del values["name"], values["weight"]
        return values | {"backend": backend}


def _what(source: SourceConfig) -> str:
    if source.files:
        first = source.files[0]
        path = PurePath(first.path if isinstance(first, FileSource) else first)
        fixed = [part for part in path.parts if not re.search(r"[*?\[]", part)]
        return fixed[-1].partition(".")[0] or fixed[-1] if fixed else "files"
    named = source.hf_dataset or source.tokens_dir or source.builtin or source.backend
    return PurePath(named or "source").name


def _label(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-._")[:64] or "source"


def _named(sources: Sequence[SourceConfig]) -> tuple[SourceConfig, ...]:
    """Give each source without a name one that is made of what it reads."""
    return tuple(
        source if source.name else source.model_copy(update={"name": _label(_what(source))})
        for source in sources
    )


Sources = Annotated[tuple[SourceConfig, ...], Field(strict=False), AfterValidator(_named)]
Weights = Annotated[
    Mapping[str, NotNegative],
    AfterValidator(FrozenOptions),
    PlainSerializer(dict),
    WithJsonSchema({"type": "object", "additionalProperties": {"type": "number", "minimum": 0}}),
]


class Stage(Section):
    """Weights of all sources from a step on, until the next stage."""

    from_step: Count
    """The first step that is trained with them, counted from 1. It is counted by batches: one that
    a rewind leaves out counts as well."""
    weights: Weights
    """The weight of each source by its name; 0 for one that isn't used any more."""


class EvaluationSetConfig(Section):
    """Texts to evaluate on, beside those of the training data: `files` or `hf_dataset`.

    Metrics call their loss `eval_loss/NAME`; it doesn't count in `eval_loss`.
    """

    name: Label
    """What metrics call them."""
    files: Files = ()
    """Paths, folders or globs; these files are never trained on."""
    hf_dataset: Name | None = None
    """A Hugging Face dataset."""
    hf_name: Name | None = None
    """For `hf_dataset`: its configuration. `null`: its default."""
    hf_split: Name = "test"
    """For `hf_dataset`: the split."""
    hf_revision: Name | None = None
    """For `hf_dataset`: its version on the hub. `null`: the newest when the run begins."""
    text_key: Name | None = None
    """The column or key of a document's text. `null`: `data.text_key`."""
    document_separator: Name | None = None
    """For text files: what stands between two documents. `null`: `data.document_separator`."""
    max_samples: Count | None = None
    """Documents to evaluate on, from the first on. `null`: at most 1,000."""

"""The `data` section: documents, their tokens, and how these fill the rows of a batch."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from chomp.config.base import (
    Count,
    CountOrZero,
    Name,
    NotNegative,
    Positive,
    Section,
    Seed,
    Texts,
    TokenId,
)
from chomp.config.options import Options
from chomp.config.registry import SourceName
from chomp.config.sources import EvaluationSetConfig, Files, Sources, Stage


def _one_text_is_a_list_of_one(value: Any) -> Any:
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list | tuple | None):
        return value
    raise PydanticCustomError("text_type", "must be text or a list of texts")


LocalText = Annotated[
    Texts,
    BeforeValidator(_one_text_is_a_list_of_one, json_schema_input_type=str | list[str]),
]


class TokenizerConfig(Section):
    """How a document's text becomes token ids."""

    kind: Literal["byte", "hf"] = "byte"
    """`byte`: one token per UTF-8 byte, nothing to download. `hf`: a Hugging Face tokenizer."""
    hf_name_or_path: Name | None = None
    """For `kind: hf`: a name on the Hugging Face Hub, a folder, or a `tokenizer.json`. A relative
    path counts from the current directory."""
    hf_trust_remote_code: bool = False
    """Let the tokenizer's repository run its own Python code here."""
    vocab_size_multiple: Count = 128
    """The vocabulary is rounded up to a multiple of this: round sizes make faster products."""
    auto_set_special_tokens: bool = True
    """For `kind: hf`: take pad, BOS and EOS ids from the tokenizer instead of from `model`."""
    byte_offset: TokenId = 0
    """For `kind: byte`: the id of byte 0. Ids below it are free for special tokens."""
    add_bos: bool = False
    """Put `model.bos_token_id` before each document (and before prompts)."""
    add_eos: bool = False
    """Put `model.eos_token_id` after each document."""
    max_doc_tokens: Count | None = None
    """Cut documents after this many tokens; the rest is not trained on (counted in
    `docs_truncated`). `null`: never cut; a document longer than a row goes on in other rows."""


class DataConfig(Section):
    """Where documents come from and how their tokens fill the rows of a batch."""

    backend: SourceName = "hf"
    """Where documents come from. `hf`: a Hugging Face dataset, streamed (the `hf_*` keys).
    `files`: your own files. `local_text`: text in this config. `builtin`: text that every machine
    has. `tokens`: any of these, tokenised before by `chomp data prepare`. Or the name of a source
    that your own module registers (`--plugin`)."""
    options: Options = Field(default={}, validate_default=True)
    """Values for a source of your own, which reads them as it likes."""
    sources: Sources = ()
    """Several sources to mix, each with a weight; `backend` and its keys are not used then. See
    [`data.sources`](#datasources)."""
    stages: Annotated[tuple[Stage, ...], Field(strict=False)] = ()
    """Other weights of the sources from given steps on. See [`data.stages`](#datastages)."""
    eval_sets: Annotated[tuple[EvaluationSetConfig, ...], Field(strict=False)] = ()
    """More texts to evaluate on, each by itself. See [`data.eval_sets`](#dataeval_sets)."""
    hf_dataset: Name = "Zyphra/Zyda-2"
    """For `backend: hf`: name on the Hugging Face Hub, or a local folder."""
    hf_name: Name | None = "sample-100BT"
    """For `backend: hf`: the dataset's configuration (subset). `null`: its default."""
    hf_split: Name = "train"
    """For `backend: hf`: the split to train on."""
    hf_revision: Name | None = None
    """For `backend: hf`: the dataset's version on the hub: a commit, branch or tag. `null`: the
    newest when the run begins; a resume stays with that commit."""
    hf_eval_split: Name | None = None
    """For `backend: hf`: the split to evaluate on. `null`: the first `max_eval_samples` documents
    of the shuffled training split are held out and never trained on."""
    text_key: Name = "text"
    """The column (Parquet, Hugging Face) or key (JSON lines) that holds a document's text."""
    files: Files = ()
    """For `backend: files`: paths, folders or globs of .txt, .md, .py (a file is a document, see
    `document_separator`), .jsonl, .jsonl.gz, .jsonl.zst, .parquet and .arrow (a row is a
    document). An entry may be a mapping `{path: ..., text_key: ...}`. Relative paths count from
    the current directory, not from this file."""
    eval_files: Files = ()
    """For `backend: files`: files to evaluate on, as in `files`; they are never trained on. Empty:
    documents are held out of `files`, as with `hf_eval_split: null`."""
    document_separator: Name | None = None
    """For text files: what stands between two documents, such as `<|endoftext|>`, or `"\\n\\n"` for
    blank lines. Line breaks around it belong to none. `null`: a file is a document."""
    local_text: LocalText | None = None
    """For `backend: local_text`: the text itself. One string is one document; a list of strings
    is a document each."""
    builtin: Literal["python-stdlib"] = "python-stdlib"
    """For `backend: builtin`: `python-stdlib` is the .py files of the running Python's standard
    library: real text on every machine, nothing to download."""
    tokens_dir: Name | None = None
    """For `backend: tokens`: the folder that `chomp data prepare` wrote. A relative path counts
    from the current directory."""
    shuffle: bool = True
    """Shuffle documents within a moving window; another order in each epoch. With `backend: tokens`
    the whole corpus is shuffled."""
    shuffle_buffer_size: Count = 10_000
    """Documents in the shuffling window. Not used with `backend: tokens`."""
    shuffle_buffer_bytes: Count | None = 2**28
    """Bytes of text (UTF-8) after which the window is full, however few documents it has: long ones
    would fill the memory. `null`: no limit, as in runs of earlier versions, which keep it."""
    seed: Seed = 0
    """Seed of the document order (the model's is `train.seed`)."""
    eval_seed: Seed | None = None
    """Seed of the order whose first documents are held out for evaluation. `null`: `data.seed`.
    With a value, runs with different `data.seed` are evaluated on the same documents."""
    repeat: bool = True
    """Start over when the documents are used up. `false`: the run ends after one epoch."""
    lanes: Count | None = None
    """Parts that the corpus is read in, each for rows of its own: a process reads only those of its
    devices. Fixed at a run's first start, so that another number of processes can go on with it.
    `null`: one for each process then (as far as that divides `train.batch_size`); one with
    `backend: tokens`, where no process reads tokens of other rows."""
    max_retries: CountOrZero = 3
    """Attempts after a network error while streaming, each from the exact position, before the
    run saves its state and stops."""
    retry_delay_sec: NotNegative = 1.0
    """Seconds before the first such attempt; doubled for each further one. Longer if the server
    asks for more time (up to two minutes)."""
    timeout_sec: Positive = 30.0
    """Seconds without a byte after which a connection counts as broken."""
    on_error: Literal["stop", "skip"] = "stop"
    """What a broken document does (a text that isn't a string, a bad JSON line or Parquet file):
    `stop` ends the run with file and line; `skip` leaves it out and counts it."""
    max_eval_samples: Count | None = None
    """Documents in the evaluation set. `null`: at most 1,000, and of documents that are held out
    of training at most one in twenty; the last twentieth of the text, if there is only one. So it
    is too, with a warning, if there are no more documents than this."""
    packing_mode: Literal["sequential", "bin"] = "bin"
    """`bin`: whole documents fitted into rows, padded at the end. `sequential`: documents one after
    the other, cut every `train.seq_len` tokens; no padding, but a batch of few rows is then of one
    document or two."""
    packing_buffer_docs: Count = 128
    """For `packing_mode: bin`: documents to choose from while rows are filled, or more where these
    are short. A larger number wastes less and costs memory."""
    packing_max_docs_per_bin: Count | None = None
    """For `packing_mode: bin`: most documents in one row. `null`: no limit."""
    mask_boundary_loss: bool = True
    """Don't train on a document's first token: it would be predicted from another document."""
    train_on_eos: bool = True
    """Train on EOS tokens. `false`: labels equal to `model.eos_token_id` don't count."""
    isolate_documents: bool = False
    """Restart attention, moving average, norms and positions at each document, so that a document
    in a shared row is treated as if it were alone. `false`: a row is one stream of text."""
    grain_prefetch: CountOrZero = 2
    """Batches prepared ahead in the background."""
    tokenizer: TokenizerConfig = Field(default_factory=TokenizerConfig)
    """How text becomes token ids."""

    @property
    def held_out_seed(self) -> int:
        """The seed that decides which documents are held out."""
        return self.seed if self.eval_seed is None else self.eval_seed

    def by_source(self) -> dict[str, "DataConfig"]:
        """Return for each entry of `sources` the section that it would be alone, by its name."""
        alone = self.model_copy(update={"sources": (), "stages": ()})
        return {
            source.name or "": alone.model_copy(update=source.alone()) for source in self.sources
        }

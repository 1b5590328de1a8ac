"""The model card: what the model is, what it was trained on and how, and how well it predicts."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from chomp.config import Config
from chomp.config.data import DataConfig
from chomp.data.all_sources import named_configs
from chomp.errors import ExportError
from chomp.types import Progress

ROWS = 12
"""Lines of the table of losses, at most."""
NO_LICENSE = "None was given. Ask who made this model before you use it."


class Facts(NamedTuple):
    """What a card tells of a run.

    Attributes:
        name: of the model.
        format: `hf`, `jax` or `upstream`.
        dtype: number format of the matrices, and whether the parameters are an average.
        config: of the run, fitted to the tokenizer.
        progress: of the run when the model was saved.
        parameters: number of them.
        rows: of metrics, up to the step, with evaluations of these parameters.
        versions: of the packages that trained it.
        checked: what the comparison with the original found.
    """

    name: str
    format: str
    dtype: str
    config: Config
    progress: Progress
    parameters: int
    rows: Sequence[dict[str, Any]]
    versions: dict[str, str]
    checked: str


USE = {
    "hf": """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("{name}", trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained("{name}", trust_remote_code=True)
inputs = tokenizer("The ", return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=50)[0]))
```

It needs transformers 5 or newer. The Python code in this folder is the model's: that of the package
megalodon-hf computes something else from the same weights.""",
    "jax": """```python
import jax
from megalodon_jax import load_checkpoint

model = load_checkpoint("{name}/model.safetensors", key=jax.random.PRNGKey(0))
```""",
    "upstream": """`consolidated.pth` has the names and layouts of the released PyTorch
implementation, for one model-parallel rank. In Python `load_upstream_checkpoint` of
`megalodon_jax.convert` loads it.""",
}


def check_license(identifier: str) -> None:
    """Check that a card can name a license so.

    Raises:
        ExportError: it is empty, or more than a line.
    """
    if not identifier.strip() or not identifier.isprintable():
        raise ExportError(
            f"--license: must be the name of a license, such as apache-2.0 (got {identifier!r})"
        )


def model_card(facts: Facts, license_id: str | None = None) -> str:
    """Return the text of the card.

    Args:
        facts: what it tells of the run.
        license_id: the model's license, as the Hub names it; None: the card says so.
    """
    config = facts.config
    sections = [
        _front(facts, license_id),
        f"# {facts.name}\n\nA Megalodon language model ([paper](https://arxiv.org/abs/2404.08801)) "
        f"of {facts.parameters:,} parameters, in {facts.dtype}, trained with chomp.",
        "## Use\n\n" + USE[facts.format].format(name=facts.name),
        "## How well it predicts\n\n" + _results(facts),
        "## Data\n\n" + _lines(_data(config)),
        "## Recipe\n\n" + _lines(_recipe(facts)),
        "## License\n\n" + (f"{license_id}." if license_id else NO_LICENSE),
        "## Made with\n\n" + _lines(facts.versions.items()),
        "`chomp_config.json` is the run's whole configuration, `metrics.jsonl` has its rows "
        f"up to this step.\n\nThis export: {facts.checked}.",
    ]
    return "\n\n".join(sections) + "\n"


def _front(facts: Facts, license_id: str | None) -> str:
    lines = [f"license: {json.dumps(license_id)}"] if license_id else []
    lines += ["tags:", "- megalodon", "- chomp"]
    if facts.format == "hf":
        lines += ["library_name: transformers", "pipeline_tag: text-generation"]
    public = [
        data.hf_dataset
        for data in named_configs(facts.config.data).values()
        if data.backend == "hf" and not Path(data.hf_dataset).exists()
    ]
    if public:
        lines += ["datasets:", *(f"- {json.dumps(name)}" for name in public)]
    return "\n".join(["---", *lines, "---"])


def _results(facts: Facts) -> str:
    evaluated = [row for row in facts.rows if row.get("eval_loss") is not None]
    text = "It was not evaluated."
    if evaluated:
        last = evaluated[-1]
        text = (
            f"Held-out documents, after step {last['step']:,}: "
            f"{last['eval_loss']:.4f} nats per token, **{last['eval_bits_per_byte']:.4f} bits per "
            "byte**."
        )
    rows = [row for row in facts.rows if row.get("loss") is not None]
    if not rows:
        return text
    head = ["| step | loss | held-out loss | bits per byte |", "|---:|---:|---:|---:|"]
    return "\n".join([text, "", *head, *map(_row, _spread(rows))])


def _row(row: dict[str, Any]) -> str:
    values = (row.get(name) for name in ("loss", "eval_loss", "eval_bits_per_byte"))
    cells = ["" if value is None else f"{value:.4f}" for value in values]
    return f"| {row['step']:,} | {' | '.join(cells)} |"


def _spread(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return some of the rows, at even distances, those with an evaluation before others."""
    evaluated = [row for row in rows if row.get("eval_loss") is not None]
    rows = evaluated if len(evaluated) >= ROWS else rows
    count = min(ROWS, len(rows))
    chosen = {round(i * (len(rows) - 1) / max(1, count - 1)) for i in range(count)}
    return [row for i, row in enumerate(rows) if i in chosen or row in evaluated[-1:]]


def _source(data: DataConfig) -> Any:
    sources: dict[str, Any] = {
        "hf": f"{data.hf_dataset} ({data.hf_name or 'default'}, {data.hf_split})",
        "files": ", ".join(Path(str(getattr(f, "path", f))).name for f in data.files),
        "builtin": data.builtin,
        "tokens": data.tokens_dir and Path(data.tokens_dir).name,
    }
    return sources.get(data.backend) or data.backend


def _data(config: Config) -> list[tuple[str, Any]]:
    data = config.data
    rows = [("source", _source(data))]
    if data.sources:
        named = zip(data.by_source().items(), data.sources, strict=True)
        rows = [
            (f"source {name}", f"{_source(alone)}, weight {source.weight:g}")
            for (name, alone), source in named
        ]
    rows += [
        (
            f"weights from step {stage.from_step:,}",
            ", ".join(f"{name} {weight:g}" for name, weight in stage.weights.items()),
        )
        for stage in data.stages
    ]
    return [
        *rows,
        ("tokenizer", data.tokenizer.hf_name_or_path or f"{data.tokenizer.kind}s of UTF-8"),
        ("vocabulary", f"{config.model.vocab_size:,}"),
        ("packing", data.packing_mode),
        ("documents isolated from each other", "yes" if data.isolate_documents else "no"),
    ]


def _recipe(facts: Facts) -> list[tuple[str, Any]]:
    train, optim, model = facts.config.train, facts.config.optim, facts.config.model
    batch = f"{train.grad_accum} x {train.batch_size} x {train.seq_len}"
    return [
        ("steps", f"{facts.progress.step:,} of {train.steps:,}"),
        ("tokens trained on", f"{facts.progress.tokens_seen:,}"),
        ("batch (accumulated x rows x tokens)", f"{batch} = {train.tokens_per_step:,} tokens"),
        ("optimizer", optim.name),
        ("learning rate", f"{optim.lr:g}, {optim.warmup_steps:,} steps of warm-up"),
        ("weight decay", f"{optim.weight_decay:g}"),
        ("width, layers, heads", f"{model.model_dim}, {model.num_layers}, {model.num_heads}"),
        ("attention chunk", f"{model.chunk_size:,} tokens"),
        ("matrices kept in, computed in", f"{model.param_dtype}, {model.compute_dtype}"),
        ("seed", train.seed),
    ]


def _lines(pairs: Iterable[tuple[str, Any]]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in pairs)])

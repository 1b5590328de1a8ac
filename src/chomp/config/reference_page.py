"""The reference page of all keys, generated from the schema."""

import json
from typing import Any

from chomp.config.base import INT32_MAX, Section
from chomp.config.error_messages import ENTRIES
from chomp.config.json_schema import Schema, plain_schema
from chomp.config.keys import RENAMED, RETIRED, section_class
from chomp.config.schema import Config
from chomp.config.validators.general import RULES

_INTRODUCTION = """\
<!-- Generated from src/chomp/config; a test compares them. To write it anew:
chomp config reference > docs/config-reference.md
-->

# Configuration reference

A run is described by one YAML file. Every key has a default, so a file holds only what differs:

```yaml
# yaml-language-server: $schema=../docs/config.schema.json
variables:
  context: 1024
model:
  chunk_size: 256
data:
  backend: files
  files: [texts/*.txt, code/*.py]
train:
  seq_len: ${variables.context}
  steps: 2000
optim:
  lr: 1e-3
  warmup_steps: 100
logging:
  wandb:
    tags: ["context ${variables.context}"]
```

The first line is for editors with a YAML language server: they then complete keys, show their
meaning, and mark mistakes while you type. The path counts from the config file.

**Checks.** Nothing is built before the whole config is valid. Unknown keys, wrong types, values
out of range and broken [rules between keys](#rules-between-keys) are reported all at once, one
line each:

```text
train.steps: must be greater than 0 (got 0)
unknown key 'train.stpes'; did you mean 'train.steps'?
```

Values are never converted silently: `"5"` and `5.0` are not the whole number 5.

**YAML.** Values are read as in YAML 1.2: `1e-3` is a number, and of `yes`, `no`, `true` and
`false` only the last two are not text. A key that is given twice is an error. Aliases (`*x`) and
tags such as `!!set` are not supported.

**Overrides.** `chomp train config.yaml -o train.steps=500 -o optim.lr=3e-4` changes single values;
what follows the `=` is read as YAML. A mapping sets the keys that it names and leaves the others:
`-o 'optim.muon={ns_steps: 4, momentum: 0.9}'`. Overrides come before references, so
`-o variables.context=2048` reaches every place that uses it.

**Lengths in tokens.** A length in steps may be given in tokens: `train.steps: 2.5B tokens`,
`optim.warmup_steps: 20M tokens`, `train.eval_every: 1e8 tokens`; also `train.log_every`,
`train.generate_every`, `train.ema_from`, `optim.decay_steps`, `optim.rewarm_steps`,
`checkpoint.save_every`, `checkpoint.keep_every` and a stage's `from_step`. It becomes the number of
steps that have at least so many tokens, `grad_accum * batch_size * seq_len` in each, padding
included: a run with another batch then has as many. The resolved config holds steps.

**References.** `${train.seq_len}` stands for the value of another key (its default, if the file
doesn't set it), `${variables.x}` for one of your own in the top-level mapping `variables`. If a
value is one reference and nothing else, it keeps its type; inside longer text the value is put
in. `$${` is a plain `${`. References can't do arithmetic, and circular ones are errors.

**Paths** (`data.files`, `data.eval_files`, a tokenizer's folder) are kept as written: relative ones
count from the directory in which you start chomp, not from the config file. Only
`checkpoint.root_dir`, `logging.metrics_file` and `logging.log_file` count from the run folder.
"""


def config_reference() -> str:
    """Write the reference page (Markdown)."""
    schema = plain_schema()
    definitions = schema["$defs"]
    parts = [_INTRODUCTION, *_sections(Config, schema, definitions, "")]
    for key, entry in ENTRIES.items():
        parts += _sections(entry, definitions[entry.__name__], definitions, key)
    parts += [_rules(), _retired()]
    return "\n".join(parts)


def _sections(section: type[Section], schema: Schema, definitions: Schema, path: str) -> list[str]:
    rows, inner_parts = [], []
    for name, field in section.model_fields.items():
        key = f"{path}.{name}".lstrip(".")
        inner = section_class(field)
        if inner is None:
            rows.append(_row(key, schema["properties"][name]))
        else:
            inner_parts += _sections(inner, definitions[inner.__name__], definitions, key)
    if not rows:
        return inner_parts
    head = [f"## `{path}`", "", (section.__doc__ or "").strip(), ""]
    table = ["| key | type | default | meaning |", "|---|---|---|---|", *rows, ""]
    return ["\n".join(_dedented(head) + table), *inner_parts]


def _dedented(lines: list[str]) -> list[str]:
    return [line.strip() for text in lines for line in text.split("\n")]


def _row(key: str, schema: Schema) -> str:
    default = json.dumps(schema["default"], ensure_ascii=False) if "default" in schema else ""
    meaning = " ".join(schema["description"].split())
    cells = (f"`{key}`", _type_text(schema), f"`{default}`" if default else "", meaning)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _type_text(schema: Schema) -> str:
    if "anyOf" in schema:
        return " or ".join(_type_text(choice) for choice in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    match schema["type"]:
        case "array" if "$ref" in schema["items"]:
            return "list of mappings"
        case "array" if "type" not in schema["items"]:
            return "list of texts, or of mappings"
        case "array":
            return "list of texts"
        case "string":
            return "text"
        case "boolean":
            return "`true`, `false`"
        case "null":
            return "`null`"
        case "object":
            return "mapping"
        case kind:
            return " ".join([kind, *_limits(schema)])


_LIMITS = (("exclusiveMinimum", ">"), ("minimum", "≥"), ("exclusiveMaximum", "<"), ("maximum", "≤"))


def _limits(schema: dict[str, Any]) -> list[str]:
    limits = [
        f"{sign} {schema[name]:g}"
        for name, sign in _LIMITS
        if name in schema and schema[name] < INT32_MAX
    ]
    return [", ".join(limits)] if limits else []


def _rules() -> str:
    lines = ["## Rules between keys", ""]
    lines += ["- " + rule.text for rule in RULES]
    lines += ["", "`float16` is refused everywhere: ComplexEMA, normalisation and the long-context"]
    lines += ["state are not stable in it.", ""]
    return "\n".join(lines)


def _retired() -> str:
    lines = ["## Keys of the earlier harness", "", "| written there | now |", "|---|---|"]
    lines += [f"| `{path}` | leave it out: {reason} |" for path, reason in RETIRED.items()]
    lines += [f"| `{old}` | `{new}` |" for old, new in RENAMED.items()]
    lines += [
        "| `model.init_mode: none` | `he` (the default), `gaussian`, `xavier` or `bert` |",
        "| `$variables.x`, `{$variables.x}` | `${variables.x}` |",
        "",
    ]
    return "\n".join(lines)

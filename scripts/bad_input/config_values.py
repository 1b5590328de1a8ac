"""Values that are wrong alone or together, in files and in overrides."""

from bad_input.case import SHOW, TRAIN, Case

LOOP = {"variables": {"a": "${variables.b}", "b": "${variables.a}"}}
DOUBLING = {f"v{i}": f"${{variables.v{i - 1}}}" * 10 for i in range(1, 12)} | {"v0": "x" * 10}
MEGALODON = {"model.backend": "megalodon"}


def override(name: str, text: str, says: str, args: str = SHOW, code: int = 2) -> Case:
    return Case(name, args, says, words=("-o", text), code=code)


CONFIG_VALUES = (
    Case("text for a number", SHOW, "must be a whole number (got 'ten')", {"train.steps": "ten"}),
    Case("a quoted number", SHOW, "write it without quotes", {"train.steps": "10"}),
    Case("a fraction for a count", SHOW, "must be a whole number (got 2.5)", {"train.steps": 2.5}),
    Case("`yes` for true", SHOW, "write true", "train: {allow_cpu: yes}\n"),
    Case("a list for a section", SHOW, "train: must be a section", "train: [steps, 3]\n"),
    Case("a text for a list", SHOW, "write ['a.txt']", {"data.files": "a.txt"}),
    Case("null for a number", SHOW, "leave the key out for its default", {"train.steps": None}),
    Case("zero steps", SHOW, "must be greater than 0 (got 0)", {"train.steps": 0}),
    Case("a negative rate", SHOW, "must be greater than 0 (got -1.0)", {"optim.lr": -1.0}),
    Case("a dropout of 1", SHOW, "must be less than 1", {"model.dropout": 1.0}),
    Case("`.nan`", SHOW, "must be a finite number", "optim: {lr: .nan}\n"),
    Case("10^40 steps", SHOW, "must be at most 2147483647", {"train.steps": 10**40}),
    Case(
        "a number of 10,000 digits", SHOW, "is not a number", f"train: {{steps: {'9' * 10000}}}\n"
    ),
    Case("a choice that isn't one", SHOW, "must be 'adamw' or 'muon'", {"optim.name": "sgd"}),
    Case("float16", SHOW, "float16 is not supported", {"model.compute_dtype": "float16"}),
    Case(
        "a reference to nothing",
        SHOW,
        "which does not exist; did you mean ${train.steps}?",
        {"train.log_every": "${train.step}"},
    ),
    Case("references in a circle", SHOW, "circular reference", LOOP, lines=1),
    Case(
        "references that grow tenfold eleven times",
        SHOW,
        "becomes longer than",
        {"variables": DOUBLING},
    ),
    Case(
        "a reference of the earlier kind",
        SHOW,
        "references are written ${variables.x}",
        {"train.steps": "{$variables.n}", "variables": {"n": 3}},
    ),
    Case("rows that aren't whole chunks", SHOW, "the nearest are 32 and 48", {"train.seq_len": 40}),
    Case(
        "a warm-up longer than the run",
        SHOW,
        "must be less than train.steps",
        {"optim.warmup_steps": 9},
    ),
    Case("bytes that don't fit the vocabulary", SHOW, "must be at least", {"model.vocab_size": 99}),
    Case(
        "add_eos, and all ids are bytes",
        SHOW,
        "byte_offset: 3",
        {"data.tokenizer": {"add_eos": True}},
    ),
    Case(
        "a width that the heads don't divide",
        SHOW,
        "must be a multiple of model.num_heads",
        MEGALODON | {"model.num_heads": 3, "model.z_dim": 66, "model.value_dim": 129},
    ),
    Case("heads of odd width", SHOW, "even width", MEGALODON | {"model.z_dim": 7}),
    Case(
        "a prompt longer than a row", SHOW, "generate_input_len", {"train.generate_input_len": 99}
    ),
    Case("top k above the vocabulary", SHOW, "train.generate_top_k", {"train.generate_top_k": 999}),
    Case(
        "metrics and log in one file",
        TRAIN,
        ("logging.log_file", "logging.metrics_file"),
        {"logging.metrics_file": "all.txt", "logging.log_file": "./all.txt"},
    ),
    Case(
        "metrics in the samples' file",
        TRAIN,
        "samples.jsonl",
        {"logging.metrics_file": "samples.jsonl"},
    ),
    Case(
        "metrics in the file of the resolved config",
        TRAIN,
        "config_resolved.json",
        {"logging.metrics_file": "config_resolved.json"},
    ),
    Case(
        "log in the file of the original config",
        TRAIN,
        "config_original.yaml",
        {"logging.log_file": "x/../config_original.yaml"},
    ),
    Case(
        "log inside the checkpoints",
        TRAIN,
        "checkpoint",
        {"logging.log_file": "checkpoints/log.txt"},
    ),
    Case("metrics in the file of the lock", TRAIN, ".lock", {"logging.metrics_file": ".lock"}),
    Case(
        "checkpoints in the metrics' place",
        TRAIN,
        "checkpoint.root_dir",
        {"checkpoint.root_dir": "metrics.jsonl"},
    ),
    Case(
        "checkpoints in the tokenizer's folder",
        TRAIN,
        "checkpoint.root_dir",
        {"checkpoint.root_dir": "tokenizer"},
    ),
    Case(
        "checkpoints in the run folder itself",
        TRAIN,
        "checkpoint.root_dir",
        {"checkpoint.root_dir": "."},
    ),
    Case(
        "profile among the checkpoints",
        TRAIN,
        "train.profile_dir",
        {"train.profile": True, "train.profile_dir": "checkpoints"},
    ),
    override("override without `=`", "train.steps", "must have the form section.key=value"),
    override("override without a key", "=3", "must have the form section.key=value"),
    override("override of an unknown key", "train.stpes=3", "did you mean 'train.steps'?"),
    override("override without its section", "steps=3", "did you mean 'train.steps'?"),
    override("override of a wrong type", "train.steps=many", "must be a whole number (got 'many')"),
    override("override without a value", "train.steps=", "must be a whole number (got null)"),
    override("a value for a section in an override", "train=3", "train: must be a section"),
    override("override below a value", "train.steps.x=3", "train.steps"),
    override("override that isn't YAML", "train.steps={", "is not valid YAML"),
    override("override with an alias", "train.steps=*x", "aliases"),
    override("blanks around an override", " train.steps = 30 ", "", code=0),
)

"""Config files that are no configuration, and odd ones that are."""

from pathlib import Path

from bad_input.case import SHOW, Case

BOMB = "a: &a [x, x]\n" + "".join(
    f"{new}: &{new} [*{old}, *{old}]\n" for old, new in zip("abcdefg", "bcdefgh", strict=True)
)
DEEP = "train: " + "[" * 5000
MANY = "".join(f"key_{i}: 1\n" for i in range(30))


def _no_config(place: Path, _: object) -> None:
    (place / "config.yaml").unlink()


def _folder(place: Path, _: object) -> None:
    (place / "config.yaml").unlink()
    (place / "config.yaml").mkdir()


CONFIG_FILES = (
    Case("missing file", says="config.yaml: can't be read: No such file", prepare=_no_config),
    Case("a folder", says="config.yaml: can't be read: Is a directory", prepare=_folder),
    Case("a program (binary)", says="not UTF-8", change=b"\x7fELF\x02\x01\x01\x00\xff\xfe" * 100),
    Case("control characters", says="character #x0000 is not allowed", change="train:\0 {}\n"),
    Case(
        "Latin-1, not UTF-8", says="not UTF-8", change="train: {} # Gr\xfc\xdfe".encode("latin-1")
    ),
    Case("UTF-16", says="not UTF-8", change="train: {}\n".encode("utf-16")),
    Case("a list", says="must be a mapping of sections (got a list)", change="- train\n- model\n"),
    Case("a sentence", says="must be a mapping of sections", change="train the model\n"),
    Case("two documents in one file", says="config.yaml:2:1", change="train: {}\n---\nmodel: {}\n"),
    Case(
        "a key given twice",
        SHOW,
        "train.steps: given twice, again in line 3",
        "train:\n  steps: 30\n  steps: 40\n",
    ),
    Case("a section given twice", SHOW, "train: given twice", "train: {}\ntrain: {}\n"),
    Case("tabs for indentation", says="config.yaml:2:1", change="train:\n\tsteps: 3\n"),
    Case("a brace left open", says="not valid YAML", change="train: {steps: 3\n"),
    Case("wrong indentation", says="config.yaml:3:", change="train:\n    steps: 3\n  seed: 1\n"),
    Case("a bomb of aliases", SHOW, "aliases (*name) are not supported", BOMB),
    Case("5,000 brackets", SHOW, "nested too deeply", DEEP),
    Case("a Python tag", SHOW, "is not supported", "train: !!python/object/apply:os.system [ls]\n"),
    Case("a list as a key", SHOW, "a key must be plain text", "? [a, b]\n: 1\n"),
    Case("`derived` in YAML", SHOW, "unknown key 'derived'", "derived: {}\n"),
    Case("an unknown section", SHOW, "did you mean 'model'?", "modle: {}\n"),
    Case("an unknown key", SHOW, "did you mean 'train.steps'?", {"train.stpes": 3}),
    Case("a key in the wrong section", SHOW, "did you mean 'train.seq_len'?", {"data.seq_len": 3}),
    Case("a dotted key in the file", SHOW, "dotted names are for overrides", "train.steps: 3\n"),
    Case("a retired key", SHOW, "no longer exists", {"model.gemm_backend": "x"}),
    Case("30 unknown keys", SHOW, ("key_0", "key_29"), MANY, lines=30),
    Case(
        "six mistakes of six kinds",
        SHOW,
        ("modle", "stpes", "seq_len", "optim.lr", "${", "LOUD"),
        "modle: {}\ntrain: {stpes: 1, seq_len: x}\noptim: {lr: -1, lr: 2}\n"
        "data: {hf_name: '${nowhere}'}\nlogging: {level: LOUD}\n",
        lines=6,
    ),
    Case("an empty file (all defaults)", SHOW, change="", code=0),
    Case("CRLF and a byte order mark", SHOW, change="\ufefftrain:\r\n  steps: 30\r\n", code=0),
    Case("an anchor", SHOW, change="train: &t\n  steps: 30\n", code=0),
    Case("`lr: 1e-3` (text in YAML 1.1)", SHOW, change="optim: {lr: 1e-3}\n", code=0),
)

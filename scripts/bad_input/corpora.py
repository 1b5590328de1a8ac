"""Data and tokenizers that aren't there, or aren't what the config says."""

import json

from bad_input.case import Case, files

FILES = {"data.backend": "files"}
HF = {"data.backend": "hf", "data.hf_name": None, "data.hf_dataset": "./set"}
ROWS = "".join(json.dumps({"text": f"Row {i} of a small file of text."}) + "\n" for i in range(40))


def named(path: str, **more: object) -> dict[str, object]:
    return {"data.tokenizer": {"kind": "hf", "hf_name_or_path": path, **more}}


WORDS = json.dumps(
    {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": {"?": 0, "a": 1, "text": 2}, "unk_token": "?"},
    }
)
UNREACHABLE = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": "./hub"}

CORPORA = (
    Case("a missing file", says="data.files", change=FILES | {"data.files": ["a.txt"]}),
    Case("a glob without match", says="data.files", change=FILES | {"data.files": ["x/*.txt"]}),
    Case("a URL", says="only local files", change=FILES | {"data.files": ["https://a.b/c.jsonl"]}),
    Case("a shell's variable", says="write the path", change=FILES | {"data.files": ["$X/a.txt"]}),
    Case("a shell's braces", says="each path", change=FILES | {"data.files": ["{a,b}.txt"]}),
    Case("two files in one text", says="each in", change=FILES | {"data.files": ["a.txt, b.txt"]}),
    Case("no files", says="data.files: must name", change=FILES),
    Case(
        "an unknown extension",
        says="a.doc",
        change=FILES | {"data.files": ["a.doc"]},
        prepare=files(a__doc="text"),
    ),
    Case("a folder for a file", says="data.files", change=FILES | {"data.files": ["run"]}),
    Case(
        "a wrong `text_key`",
        says=("data.text_key", "text"),
        change=FILES | {"data.files": ["a.jsonl"], "data.text_key": "body"},
        prepare=files(a__jsonl=ROWS),
    ),
    Case(
        "JSON lines that aren't JSON",
        says="a.jsonl",
        change=FILES | {"data.files": ["a.jsonl"]},
        prepare=files(a__jsonl="words\n" * 20),
        code=2,
    ),
    Case(
        "a Parquet file that isn't one",
        says="a.parquet",
        change=FILES | {"data.files": ["a.parquet"]},
        prepare=files(a__parquet="words"),
        code=2,
    ),
    Case(
        "a zst file that isn't one",
        says="a.jsonl.zst",
        change=FILES | {"data.files": ["a.jsonl.zst"]},
        prepare=files(a__jsonl__zst="words"),
    ),
    Case(
        "an empty file",
        says="the corpus holds no text",
        change=FILES | {"data.files": ["a.txt"]},
        prepare=files(a__txt=""),
    ),
    Case("only blanks as `local_text`", says="only blanks", change={"data.local_text": [" ", ""]}),
    Case(
        "too little text for the evaluation",
        says="too short to evaluate on its last part",
        change={"data.local_text": ["A short text."], "train.eval_every": 2},
    ),
    Case(
        "missing evaluation files",
        says="data.eval_files",
        change=FILES
        | {"data.files": ["a.jsonl"], "data.eval_files": ["b.jsonl"], "train.eval_every": 2},
        prepare=files(a__jsonl=ROWS),
    ),
    Case("a missing dataset folder", says="data.hf_dataset", change=HF),
    Case(
        "a dataset folder without data",
        says="data.hf_dataset",
        change=HF,
        prepare=files(set_in_README="nothing here"),
    ),
    Case(
        "a split that isn't there",
        says=("data.hf_split", "train"),
        change=HF | {"data.hf_split": "tarin"},
        prepare=files(set_in_train__jsonl=ROWS),
    ),
    Case(
        "a subset that isn't there",
        says=("data.hf_name", "default"),
        change=HF | {"data.hf_name": "tiny"},
        prepare=files(set_in_train__jsonl=ROWS),
    ),
    Case(
        "a revision of a folder",
        says=("data.hf_revision", "leave it out"),
        change=HF | {"data.hf_revision": "main"},
        prepare=files(set_in_train__jsonl=ROWS),
    ),
    Case(
        "a dataset on the hub, unreachable",
        says=("Hub", "can't be reached"),
        code=1,  # nothing is wrong with the input
        change=HF | {"data.hf_dataset": "Zyphra/Zyda-2"},
        env=UNREACHABLE,
        alone=True,
    ),
    Case(
        "a tokenizer on the hub, unreachable",
        says=("Hub", "can't be reached"),
        change=named("gpt2"),
        env=UNREACHABLE,
        alone=True,
    ),
    Case("a missing tokenizer.json", says="there is no file", change=named("my/tokenizer.json")),
    Case(
        "a broken tokenizer.json",
        says="is not a tokenizer.json",
        change=named("tokenizer.json"),
        prepare=files(tokenizer__json='{"model": 3}'),
    ),
    Case(
        "a tokenizer.json of bytes",
        says="is not a tokenizer.json",
        change=named("tokenizer.json"),
        prepare=files(tokenizer__json=b"\xff\xfe\x00"),
    ),
    Case(
        "a folder without a tokenizer",
        says="data.tokenizer.hf_name_or_path",
        change=named("./run/checkpoints"),
    ),
    Case(
        "a config for a tokenizer",
        says="data.tokenizer.hf_name_or_path",
        change=named("config.yaml"),
    ),
    Case(
        "add_eos without an EOS token",
        says="data.tokenizer.add_eos",
        change=named("tokenizer.json", add_eos=True),
        prepare=files(tokenizer__json=WORDS),
    ),
    Case(
        "hf tokenizer without a name",
        says="must name a tokenizer",
        change={"data.tokenizer": {"kind": "hf"}},
    ),
    Case(
        "an odd tokenizer_config.json",
        says="tokenizer_config.json",
        change=named("./words"),
        prepare=files(words_in_tokenizer__json=WORDS, words_in_tokenizer_config__json="{"),
    ),
)

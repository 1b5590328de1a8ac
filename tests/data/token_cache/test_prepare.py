import contextlib
import functools
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from chomp.config import DataConfig, TokenizerConfig
from chomp.config.parallel import ParallelConfig
from chomp.data import load_tokenizer
from chomp.data.token_cache.corpus import check_settings, open_token_corpus, read_manifest
from chomp.data.token_cache.files import KINDS, read_json, write_json
from chomp.data.token_cache.prepare import prepare
from chomp.distributed import MeshSharding, make_mesh
from chomp.errors import DataError, DiskError
from chomp.models.dummy import Dummy
from chomp.trainer.components import put_checked


def make(out: Path, *, evaluate=True, shard_tokens=10_000, progress=lambda done: None, **keys):
    keys = {"backend": "local_text", "max_eval_samples": 20, "tokenizer": TokenizerConfig()} | keys
    config = DataConfig(**keys)
    tokenizer = load_tokenizer(config.tokenizer)
    return prepare(
        config, tokenizer, out, evaluate=evaluate, shard_tokens=shard_tokens, progress=progress
    )


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def keys(tmp_path, paragraphs):
    path = tmp_path / "texts.jsonl"
    texts = [*paragraphs, "", "Grüße", ""]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return {"backend": "files", "files": [str(path)]}


def test_shards_hold_each_document_with_its_source_and_counts(tmp_path, keys, paragraphs):
    manifest = make(tmp_path / "out", **keys)
    assert len(manifest.shards) > 3 and len(manifest.evaluation) == 1
    assert manifest.skipped_at_end == 1
    found = {}
    for shard in manifest.all_shards:
        tokens, records = (np.load(tmp_path / "out" / shard.file(kind)) for kind in KINDS)
        assert tokens.dtype == np.uint16
        assert (len(records), len(tokens)) == (shard.documents, shard.tokens)
        for record in records:
            start, size = int(record["start"]), int(record["tokens"])
            found[int(record["source"])] = tokens[start : start + size].astype(np.uint8).tobytes()
            assert record["bytes"] == size
    assert found == {
        row: text.encode() for row, text in enumerate([*paragraphs, "", "Grüße"]) if text
    }
    assert sum(shard.bytes for shard in manifest.all_shards) == sum(map(len, found.values()))


KILLED = """
import os, signal, sys
from pathlib import Path
from test_prepare import make

def run(out, files, fatal):
    # In a child of its own: before event number `fatal` in the folder the kernel kills it.
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    left = fatal
    def watch(event, args):
        nonlocal left
        if event in ("open", "os.rename", "os.remove", "os.mkdir") and str(out) in str(args[0]):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(watch)
    make(out, backend="files", files=[files])
    os._exit(0)

base, files, step = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
fatal = 1
while run(base / str(fatal), files, fatal):
    assert run(base / str(fatal), files, 0) == 0, fatal
    fatal += step
# One that is killed again and again, ever later.
steps = 15
while run(base / "often", files, steps):
    steps += 7
print(fatal, steps)
"""


@pytest.mark.parametrize("step", [15, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_anywhere_and_started_again_it_ends_with_the_same_bytes(tmp_path, keys, step):
    make(tmp_path / "straight", **keys)
    expected = content(tmp_path / "straight")
    done = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path / "killed", *keys["files"], str(step)],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    last, steps = map(int, done.stdout.split())
    assert last > 50 and steps > 15, "it must have been killed often"
    for folder in (tmp_path / "killed").iterdir():
        assert content(folder) == expected, folder


def test_a_finished_corpus_stays_and_another_is_refused(tmp_path, keys, paragraphs):
    make(tmp_path / "out", **keys)
    before = content(tmp_path / "out")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    make(tmp_path / "out", **keys)
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    for other, named in (
        ({"max_eval_samples": 7}, "evaluation.max_eval_samples: there 20, now 7"),
        ({"seed": 3}, "evaluation.seed: there 0, now 3"),
        ({"evaluate": False}, "evaluation"),
        ({"tokenizer": TokenizerConfig(byte_offset=3, add_eos=True)}, "frame.add_eos"),
        ({"shard_tokens": 500}, "shard_tokens"),
        ({"backend": "local_text", "local_text": paragraphs}, "source.backend"),
    ):
        with pytest.raises(DataError, match=f"holds another corpus[^$]*{named}"):
            make(tmp_path / "out", **keys | other)
    assert content(tmp_path / "out") == before


def test_a_corpus_of_a_version_without_bytes_in_its_plan_stays(tmp_path, keys):
    make(tmp_path / "out", **keys)
    manifest = read_manifest(tmp_path / "out")
    assert manifest.plan["evaluation"].pop("shuffle_buffer_bytes") == 2**28
    write_json(tmp_path / "out" / "manifest.json", manifest.as_values())
    before = content(tmp_path / "out")
    make(tmp_path / "out", **keys)
    assert content(tmp_path / "out") == before


def test_a_folder_with_other_things_is_left_alone(tmp_path, keys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years")
    with pytest.raises(DataError, match=r"not empty \(it holds thesis.tex\)"):
        make(tmp_path / "out", **keys)
    assert content(tmp_path / "out") == {"thesis.tex": b"years"}
    with pytest.raises(DiskError, match=r"thesis.tex/in: can't be written: Not a directory"):
        make(tmp_path / "out" / "thesis.tex" / "in", **keys)


def test_a_full_disk_says_so_and_the_rest_comes_later(tmp_path, keys, files_of_at_most):
    make(tmp_path / "straight", **keys)
    with (
        files_of_at_most(20_500),  # the last shards' tokens don't fit
        pytest.raises(DiskError, match=r"train-0000\d.tokens.npy: can't be written: File too"),
    ):
        make(tmp_path / "out", **keys)
    assert not list((tmp_path / "out").rglob("*.tmp"))
    make(tmp_path / "out", **keys)
    assert content(tmp_path / "out") == content(tmp_path / "straight")


def test_a_broken_line_stops_it_and_skipping_goes_on(tmp_path, write_lines, paragraphs):
    lines = [{"text": text} for text in paragraphs]
    path = write_lines("texts.jsonl", *lines[:400], b'{"text": 5}', *lines[400:])
    keys = {"backend": "files", "files": [str(path)], "shuffle": False}
    with pytest.raises(DataError, match=r"texts.jsonl, line 401"):
        make(tmp_path / "out", **keys)
    finished = json.loads((tmp_path / "out" / "progress.json").read_text())["manifest"]["shards"]
    assert finished
    make(tmp_path / "out", **keys, on_error="skip")
    make(tmp_path / "straight", **keys, on_error="skip")
    assert content(tmp_path / "out") == content(tmp_path / "straight")
    path.write_text(json.dumps({"text": "another text"}) + "\n" + json.dumps({"text": "and one"}))
    with pytest.raises(DataError, match=r"source.digest"):
        make(tmp_path / "straight", **keys)


def test_a_lost_shard_and_a_second_writer_are_noticed(tmp_path, keys):
    class Stop(Exception):
        pass

    def stop(done):
        if done.tokens > 40_000:
            with pytest.raises(DataError, match="another chomp data prepare is writing"):
                make(tmp_path / "out", **keys)
            raise Stop

    with pytest.raises(Stop):
        make(tmp_path / "out", progress=stop, **keys)
    (tmp_path / "out" / "train-00001.tokens.npy").unlink()
    with pytest.raises(DataError, match=r"train-00001.tokens.npy: missing"):
        make(tmp_path / "out", **keys)


def test_a_corpus_without_text_or_tokens_is_refused(tmp_path):
    with pytest.raises(DataError, match="no text"):
        make(tmp_path / "out", local_text=["", ""], evaluate=False)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, paragraphs) -> Path:
    out = tmp_path_factory.mktemp("prepared") / "out"
    make(out, local_text=paragraphs)
    return out


@pytest.fixture
def copy(corpus, tmp_path) -> Path:
    return Path(shutil.copytree(corpus, tmp_path / "out"))


def open_tokens(opened, folder, **keys):
    return opened(backend="tokens", tokens_dir=str(folder), max_eval_samples=20, **keys)


def test_damage_is_named_when_the_corpus_is_opened(opened, copy):
    shard = copy / "train-00001.tokens.npy"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-2])
    with pytest.raises(DataError, match=r"train-00001.tokens.npy: [\d,]+ bytes in place of"):
        open_tokens(opened, copy)
    shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(DataError, match=r"train-00001.tokens.npy: not what was written"):
        open_tokens(opened, copy)
    shard.unlink()
    with pytest.raises(DataError, match=r"train-00001.tokens.npy: missing"):
        open_tokens(opened, copy)
    shard.write_bytes(whole)
    open_tokens(opened, copy)
    manifest = copy / "manifest.json"
    text = manifest.read_text()
    for broken in (text[:-9], "[]", "{}", text.replace('"tokens":', '"t":'), "[" * 200_000):
        manifest.write_text(broken)
        with pytest.raises(DataError, match=r"manifest.json: damaged"):
            open_tokens(opened, copy)
    manifest.write_text(text.replace('"format": 2', '"format": 3'))
    with pytest.raises(DataError, match="format 3 is not known here"):
        open_tokens(opened, copy)
    manifest.unlink()
    with pytest.raises(DataError, match="not a prepared corpus"):
        open_tokens(opened, copy)
    (copy / "progress.json").write_text("{}")
    with pytest.raises(DataError, match="not finished yet"):
        open_tokens(opened, copy)
    with pytest.raises(DataError, match="nowhere: there is no such folder"):
        open_tokens(opened, copy / "nowhere")


@pytest.mark.parametrize("name", ["manifest.json", "progress.json"])
def test_every_byte_of_the_manifest_counts(copy, name):
    path = copy / name
    if name == "progress.json":
        values = read_manifest(copy).as_values()
        write_json(path, {"manifest": values, "evaluated": True, "state": None})
    raw = path.read_bytes()
    assert json.loads(raw)["format"] == 2
    read_json(path)
    changes = itertools.cycle((1, 2, 16, 128))
    for index in range(0, len(raw), 1 if name == "manifest.json" else 5):
        path.write_bytes(raw[:index] + bytes([raw[index] ^ next(changes)]) + raw[index + 1 :])
        with pytest.raises(DataError, match=name):
            read_json(path)
    for at in (match.start() for match in re.finditer(rb"\d", raw)):
        if raw[at : at + 1] != b"1":  # such as the format's number
            path.write_bytes(raw[:at] + b"1" + raw[at + 1 :])
            with pytest.raises(DataError, match=name):
                read_json(path)


def without_digest(path: Path) -> bytes:
    """Write a manifest as earlier versions did."""
    values = json.loads(path.read_text())
    del values["digest"]
    raw = (json.dumps(values | {"format": 1}, indent=1) + "\n").encode()
    path.write_bytes(raw)
    return raw


def test_a_corpus_of_an_earlier_version(opened, copy):
    now = open_tokens(opened, copy).fingerprint
    path = copy / "manifest.json"
    raw = without_digest(path)
    assert open_tokens(opened, copy).fingerprint == now
    tokenizer = load_tokenizer(TokenizerConfig())
    changes = itertools.cycle((1, 2, 16, 128))
    for index in range(0, len(raw), 2):  # without a digest not all is found; but no traceback
        path.write_bytes(raw[:index] + bytes([raw[index] ^ next(changes)]) + raw[index + 1 :])
        with contextlib.suppress(DataError):
            check_settings(open_token_corpus(copy), DataConfig(), tokenizer)


def test_a_shard_that_is_cut_short_while_it_is_read_is_a_line(opened, copy):
    """Mapped, it would end the process by SIGBUS."""
    data = open_tokens(opened, copy)
    next(data.train)
    for path in copy.glob("train-*.npy"):
        os.truncate(path, 150)
    with pytest.raises(DataError, match=r"train-\d+.*npy: .*prepare the corpus again"):
        for _ in range(500):
            next(data.train)


def test_an_id_beyond_the_vocabulary_never_reaches_the_model(opened, copy, monkeypatch):
    """In a corpus too large to be read at the start."""
    monkeypatch.setattr("chomp.data.token_cache.corpus.FULL_DIGEST_BYTES", 0)
    tokens = np.load(copy / "train-00000.tokens.npy", mmap_mode="r+")
    tokens[tokens.size // 2] = 40_000
    tokens.flush()
    data = open_tokens(opened, copy, repeat=False)
    data.train.place = functools.partial(
        put_checked, vocab=256, sharding=MeshSharding(make_mesh(ParallelConfig(), 2), Dummy(256, 8))
    )
    with pytest.raises(DataError, match=r"token 40000, but ids must be from 0 to 255"):
        list(data.train)


@pytest.mark.parametrize(
    "keys, message",
    [
        ({"max_doc_tokens": 9}, "max_doc_tokens: .* was prepared with null .got 9"),
        ({"byte_offset": 3, "add_eos": True}, "add_eos: .* was prepared with false .got true"),
        ({"byte_offset": 3}, "data.tokenizer: gives other tokens than those in"),
    ],
)
def test_other_tokens_than_the_config_s_are_refused(opened, corpus, keys, message):
    with pytest.raises(DataError, match=message):
        open_tokens(opened, corpus, tokenizer_config=TokenizerConfig(**keys))


def test_evaluation_that_was_not_prepared_is_refused(opened, corpus, tmp_path, paragraphs):
    keys = {"backend": "tokens", "evaluate": True}
    with pytest.raises(DataError, match=r"max_eval_samples: .* prepared with 20 \(got 21\)"):
        opened(**keys, tokens_dir=str(corpus), max_eval_samples=21)
    make(tmp_path / "out", local_text=paragraphs, evaluate=False)
    with pytest.raises(DataError, match=r"train.eval_every: 0"):
        opened(**keys, tokens_dir=str(tmp_path / "out"))


def test_the_same_corpus_made_twice_has_one_fingerprint(opened, corpus, tmp_path, paragraphs):
    make(tmp_path / "again", local_text=paragraphs)
    make(tmp_path / "other", local_text=paragraphs[1:])
    prints = [open_tokens(opened, f).fingerprint for f in (corpus, tmp_path / "again")]
    assert prints[0] == prints[1] != open_tokens(opened, tmp_path / "other").fingerprint

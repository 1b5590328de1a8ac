"""Local files that are broken, odd, or not what they were."""

import gzip
import io
import json
import os
import re
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from chomp.errors import DataError

pytestmark = pytest.mark.usefixtures("share_programs")

GOOD = [{"text": f"document number {i} " * 9} for i in range(300)]
KEYS = {"backend": "files", "shuffle": False, "repeat": False}


def draw_all(data):
    """Return what is drawn, and the error that ends it."""
    drawn = []
    try:
        drawn.extend(data.train)
    except DataError as error:
        return drawn, str(error)
    return drawn, ""


def parquet_bytes(texts, **options) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table({"text": texts}), file, row_group_size=20, **options)
    return file.getvalue()


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("packing_mode", ["sequential", "bin"])
@pytest.mark.parametrize("place", [0, 1, 63, 64, 65, 250, 300])
def test_all_before_a_broken_line_is_trained_on_and_a_mended_file_goes_on_exactly(
    opened, assert_same, write_lines, place, packing_mode, shuffle
):
    keys = KEYS | {"packing_mode": packing_mode, "packing_buffer_docs": 8, "shuffle": shuffle}
    keys |= {"shuffle_buffer_size": 8}
    good, mended = GOOD[:place], [*GOOD[:place], {"text": "mended"}, *GOOD[place:]]
    path = write_lines("a.jsonl", *good, b"{broken", *GOOD[place:])
    data = opened(files=[str(path)], **keys)
    drawn, error = draw_all(data)
    assert f"a.jsonl, line {place + 1}: broken JSON" in error
    state = json.loads(json.dumps(data.get_state()))
    if packing_mode == "sequential" and not shuffle:
        # At most the tokens of a batch that isn't full are left.
        tokens = sum(len(line["text"]) for line in good)
        assert sum(d.stats.tokens for d in drawn) == tokens - tokens % (2 * 2 * 64)
    write_lines("a.jsonl", *mended)
    again = opened(files=[str(path)], **keys)
    again.set_state(state)
    drawn += draw_all(again)[0]
    assert_same(drawn, draw_all(opened(files=[str(path)], **keys))[0])


def test_whoever_goes_on_after_the_error_meets_it_again(opened, write_lines):
    path = write_lines("a.jsonl", *GOOD[:100], b"{broken", *GOOD[100:])
    data = opened(files=[str(path)], **KEYS)
    draw_all(data)
    data.set_state(data.get_state())
    assert draw_all(data)[1].endswith("(data.on_error: skip leaves such documents out)")


TEXT = [f"{i} is a number. " * 40 for i in range(100)]
LINES = b"".join(json.dumps({"text": text}).encode() + b"\n" for text in TEXT)
PARQUET = parquet_bytes(TEXT)
BROKEN_FILES = {
    "footer.parquet": (PARQUET[:-6] + b"\xff\xff" + PARQUET[-4:], 1, 0),
    "torn.parquet": (PARQUET[: len(PARQUET) // 2], 1, 0),
    "nothing.parquet": (b"", 1, 0),
    "torn.jsonl.gz": (gzip.compress(LINES)[:-100], 1, None),
    "torn.jsonl.zst": (zstandard.compress(LINES)[:-100], 1, None),
    "torn.jsonl": (LINES[:-100], 1, 99),
    "nothing.jsonl": (b"", 0, 0),
    "nothing.jsonl.gz": (b"", 0, 0),
    "nothing.txt": (b"", 1, 0),
    "blank.txt": (b" \n\t ", 0, 1),
    "nul.txt": (b"a\0b", 0, 1),
}


@pytest.mark.parametrize("name", BROKEN_FILES)
def test_broken_files(opened, tmp_path, name):
    """The others are read whole in any case; `None`: some of the file's documents."""
    content, faults, documents = BROKEN_FILES[name]
    (tmp_path / name).write_bytes(content)
    (tmp_path / "zz.jsonl").write_bytes(LINES)
    keys = KEYS | {"files": [f"{tmp_path}/*"]}
    drawn, error = draw_all(opened(**keys))
    if faults and not name.startswith("nothing.txt"):
        assert name in error
    else:
        assert error == ""
    drawn, error = draw_all(opened(**keys, on_error="skip"))
    assert error == ""
    assert sum(d.stats.skipped for d in drawn) == faults
    found = sum(d.stats.documents for d in drawn) - len(TEXT)
    assert found == documents if documents is not None else 0 <= found < 100


def test_a_broken_page_names_the_row_and_skipping_loses_the_rest_of_that_file(opened, tmp_path):
    middle = len(PARQUET) // 2
    (tmp_path / "a.parquet").write_bytes(PARQUET[:middle] + b"\xff" * 200 + PARQUET[middle + 200 :])
    (tmp_path / "b.parquet").write_bytes(PARQUET)
    keys = KEYS | {"files": [f"{tmp_path}/*"]}
    assert "a.parquet: broken Parquet at row " in draw_all(opened(**keys))[1]
    drawn, _ = draw_all(opened(**keys, on_error="skip"))
    assert sum(d.stats.skipped for d in drawn) == 1
    assert 100 < sum(d.stats.documents for d in drawn) < 200


def test_odd_texts_are_skipped_repaired_or_kept_and_counted(opened, write_lines):
    path = write_lines(
        "a.jsonl",
        *({"text": text} for text in (None, "", "a\0b", "\ud800", " \n")),
        b'{"text": "\xff\xfe"}',
        {"text": ["no", "text"]},
        {"other": "x"},
    )
    drawn, error = draw_all(opened(files=[str(path)], **KEYS, on_error="skip"))
    stats = [d.stats for d in drawn]
    assert error == ""
    assert sum(s.documents for s in stats) == 4
    assert sum(s.repaired for s in stats) == 2
    assert sum(s.skipped for s in stats) == 4


@pytest.mark.parametrize("packing_mode", ["sequential", "bin"])
def test_a_huge_document_is_trained_on_whole(opened, tmp_path, packing_mode):
    size = 50_000_000
    lines = [json.dumps({"text": text}) for text in ("first", "x" * size, *TEXT)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    data = opened(
        (1, 8, 4096), files=[str(tmp_path / "a.jsonl")], **KEYS, packing_mode=packing_mode
    )
    begin = time.monotonic()
    tokens, full = 0, 0
    for drawn in data.train:
        tokens += drawn.stats.tokens
        full += int(np.count_nonzero(drawn.batch.input_ids == ord("x")))
    assert full == size
    assert tokens == size + 5 + sum(map(len, TEXT))
    assert time.monotonic() - begin < 60


def test_no_pipe_is_opened_and_no_folder(opened, tmp_path):
    pipe, folder = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    os.mkfifo(pipe)
    folder.mkdir()
    with pytest.raises(DataError, match=r"data\.files: '.*a\.jsonl' is a pipe; name files"):
        opened(**KEYS, files=[str(pipe)])
    with pytest.raises(DataError, match=r"the folder '.*b\.jsonl' holds no file of a known kind"):
        opened(**KEYS, files=[str(folder)])
    (tmp_path / "c.jsonl").write_bytes(LINES)
    with pytest.raises(DataError, match=r"data\.files: '.*a\.jsonl' is a pipe; name files"):
        opened(**KEYS, files=[f"{tmp_path}/*"])
    pipe.unlink()
    data = opened(**KEYS, files=[f"{tmp_path}/*"])
    assert len(data.corpus.shards) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission_is_named(opened, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(LINES)
    path.chmod(0)
    with pytest.raises(DataError, match=r"a\.jsonl: can't be read: Permission denied"):
        opened(**KEYS, files=[str(path)])


def vanish(path):
    path.unlink()


def grow(path):
    with path.open("ab") as file:
        file.write(b"more")


def shrink(path):
    os.truncate(path, path.stat().st_size // 2)


def overwrite(path):
    path.write_bytes(b"x" * path.stat().st_size)


def replace_by_a_pipe(path):
    path.unlink()
    os.mkfifo(path)


def replace_by_a_folder(path):
    path.unlink()
    path.mkdir()


CHANGES = {
    vanish: "can't be read: .*No such file",
    grow: r"changed since the run began \(from \d+ to \d+ bytes\)",
    shrink: r"changed since the run began \(from \d+ to \d+ bytes\)",
    overwrite: r"changed since the run began \(by its modification time\)",
    replace_by_a_pipe: "not a regular file but a pipe",
    replace_by_a_folder: "not a regular file but a folder",
}


@pytest.mark.parametrize("name", ["b.jsonl", "b.jsonl.gz", "b.parquet", "b.txt"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_file_that_changes_before_it_is_opened(opened, tmp_path, name, change):
    (tmp_path / "a.jsonl").write_bytes(LINES)
    content = {"b.jsonl": LINES, "b.jsonl.gz": gzip.compress(LINES), "b.parquet": PARQUET}
    (tmp_path / name).write_bytes(content.get(name, b"text" * 100))
    data = opened(**KEYS, files=[f"{tmp_path}/*"], on_error="skip")
    time.sleep(0.02)
    change(tmp_path / name)
    drawn, error = draw_all(data)
    assert name in error
    assert re.search(f"{name}: {CHANGES[change]}", error), error
    assert sum(d.stats.documents for d in drawn) >= 99
    assert sum(d.stats.skipped for d in drawn) == 0


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
@pytest.mark.parametrize("change", [grow, shrink, overwrite], ids=lambda change: change.__name__)
def test_a_file_that_changes_while_it_is_read(opened, tmp_path, kind, change):
    """Nothing of the new content gets into a batch."""
    path = tmp_path / f"a.{kind}"
    texts = [f"{i:06d}" * 500 for i in range(3000)]
    lines = b"".join(json.dumps({"text": text}).encode() + b"\n" for text in texts)
    path.write_bytes(lines if kind == "jsonl" else parquet_bytes(texts, compression="none"))
    data = opened(**KEYS, files=[str(path)], on_error="skip", grain_prefetch=1)
    drawn = [next(data.train) for _ in range(10)]
    change(path)
    more, error = draw_all(data)
    assert "changed since the run began" in error
    ids = np.concatenate([d.batch.input_ids[d.batch.attention_mask] for d in [*drawn, *more]])
    assert ids.astype(np.uint8).tobytes() == "".join(texts).encode()[: len(ids)]


def test_a_run_stops_saved_at_a_broken_line_and_goes_on_without_it(
    chomp, config_file, read_rows, tmp_path
):
    lines = [json.dumps({"text": text}) for text in TEXT]
    lines[60] = '{"text": 60}'
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(lines))
    keys = {"train": {"steps": 200}, "checkpoint": {"save_every": 1000}}
    data = {"files": [str(path)], "shuffle": False}
    config, run = config_file(data=data, **keys), tmp_path / "run"
    done = chomp("train", config, "--run-dir", run)
    assert done.code == 2
    assert f"error: {path}, line 61: the text is not a string but int 60" in done.err
    step = read_rows(run)[-1]["step"]
    assert step == sum(len(text) + 1 for text in TEXT[:60]) // (2 * 2 * 64)
    done = chomp("train", "--run-dir", run, "--resume", "latest", "-o", "data.on_error=skip")
    assert done.code == 0, done.err
    skipped = tmp_path / "skipped"
    config = config_file(data=data | {"on_error": "skip"}, **keys)
    assert chomp("train", config, "--run-dir", skipped).code == 0
    assert read_rows(run)[-1]["docs_skipped"] == read_rows(skipped)[-1]["docs_skipped"] > 0
    losses = [
        [(row["step"], row["loss"]) for row in read_rows(folder)] for folder in (run, skipped)
    ]
    assert losses[0] == losses[1]


def test_a_file_that_is_gone_or_another_at_a_resume_is_named(chomp, config_file, tmp_path):
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_bytes(LINES)
    run = tmp_path / "run"
    config = config_file(data={"files": [f"{tmp_path}/[ab].jsonl"]})
    assert chomp("train", config, "--run-dir", run, "-o", "train.steps=4").code == 0
    resume = ("train", "--run-dir", run, "--resume", "latest", "-o", "train.steps=6")
    (tmp_path / "b.jsonl").write_bytes(LINES[:-2] + b'"}')
    assert "file b.jsonl" in chomp(*resume).err
    (tmp_path / "b.jsonl").unlink()
    done = chomp(*resume)
    assert (done.code, "file b.jsonl" in done.err) == (2, True)

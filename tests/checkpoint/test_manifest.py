import json
import os
from pathlib import Path

import pytest

from chomp.checkpoint.manifest import check_sizes, read_manifest, verify, write_manifest
from chomp.errors import DamagedError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "7"
    (folder / "d").mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    (folder / "d" / "array").write_bytes(bytes(range(256)) * 9000)
    (folder / "empty").touch()
    write_manifest(folder, 7, 1234)
    return folder


def test_lists_every_file(folder: Path):
    manifest = verify(folder)
    assert (manifest.step, manifest.tokens) == (7, 1234)
    sizes = {name: size for name, (size, _) in manifest.files.items()}
    assert sizes == {"run.json": 2, "d/array": 256 * 9000, "empty": 0}
    assert manifest.bytes == 2 + 256 * 9000
    assert sorted(path.name for path in folder.iterdir()) == [
        *("d", "empty", "manifest.json", "run.json")
    ]


def test_every_bit_of_the_manifest_counts(folder: Path):
    path = folder / "manifest.json"
    raw = path.read_bytes()
    for index in range(len(raw)):
        for bit in range(8):
            changed = bytearray(raw)
            changed[index] ^= 1 << bit
            path.write_bytes(changed)
            with pytest.raises(DamagedError, match=r"^manifest\.json is damaged"):
                read_manifest(folder)
    path.write_bytes(raw)
    read_manifest(folder)


def test_a_manifest_cut_short_or_replaced(folder: Path):
    path = folder / "manifest.json"
    raw = path.read_bytes()
    others = [raw[:length] for length in range(len(raw))]
    others += [raw + b"\n", b"[]", b"7", b"null", b"{}", b"\xff\xfe", raw.replace(b"1234", b"1235")]
    # The same values, written in another way.
    others += [json.dumps(json.loads(raw)).encode()]
    for other in others:
        path.write_bytes(other)
        with pytest.raises(DamagedError, match=r"^manifest\.json is damaged"):
            read_manifest(folder)
    path.unlink()
    with pytest.raises(DamagedError, match=r"^manifest\.json is missing"):
        read_manifest(folder)
    path.mkdir()
    with pytest.raises(DamagedError, match=r"^manifest\.json can't be read"):
        read_manifest(folder)
    path.rmdir()
    os.mkfifo(path)
    with pytest.raises(DamagedError, match=r"^manifest\.json can't be read"):
        read_manifest(folder)


def test_a_checkpoint_under_another_step_s_name(folder: Path):
    with pytest.raises(DamagedError, match="is that of step 7"):
        read_manifest(folder.rename(folder.with_name("8")))


def test_sizes_are_compared_without_reading(folder: Path):
    manifest = read_manifest(folder)
    array = folder / "d" / "array"
    array.write_bytes(bytes(256 * 9000))
    check_sizes(folder, manifest)
    with pytest.raises(DamagedError, match=r"^d/array has changed"):
        verify(folder)
    array.write_bytes(b"x")
    with pytest.raises(DamagedError, match=r"^d/array has 1 bytes instead of 2,304,000"):
        check_sizes(folder, manifest)
    array.unlink()
    with pytest.raises(DamagedError, match=r"^d/array is missing"):
        check_sizes(folder, manifest)
    os.mkfifo(array)
    with pytest.raises(DamagedError, match=r"^d/array is not a file"):
        verify(folder)
    array.unlink()
    array.with_name("array").symlink_to("array")
    with pytest.raises(DamagedError, match=r"^d/array can't be read"):
        check_sizes(folder, manifest)

import json
import shutil
import time

import numpy as np
import pytest
from tokenizers import Tokenizer

from chomp.config import TokenizerConfig
from chomp.data import SpecialIds, load_tokenizer
from chomp.data.tokenizers import huggingface as module
from chomp.errors import DataError


def config_of(path, **keys) -> TokenizerConfig:
    return TokenizerConfig(kind="hf", hf_name_or_path=str(path), **keys)


@pytest.fixture
def folder(tmp_path, bpe_file):
    shutil.copy(bpe_file, tmp_path / "tokenizer.json")
    return tmp_path


def test_ids_are_the_library_s_own(bpe_file, paragraphs):
    tokenizer = load_tokenizer(config_of(bpe_file))
    plain = Tokenizer.from_file(str(bpe_file))
    ids = tokenizer.encode_batch(paragraphs)
    assert [i.tolist() for i in ids] == [e.ids for e in plain.encode_batch(paragraphs)]
    assert all(i.dtype == np.int32 for i in ids)
    assert [tokenizer.decode(i.tolist()) for i in ids] == paragraphs
    assert tokenizer.vocab_size == 8192


def test_a_bare_file_s_control_tokens_are_found_by_name(bpe_file):
    tokenizer = load_tokenizer(config_of(bpe_file, add_bos=True, add_eos=True))
    assert (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id) == (0, 1, 2)
    (ids,) = tokenizer.encode_batch(["import os"])
    assert ids[0] == 1 and ids[-1] == 2
    assert tokenizer.encode_prompt("import os") == ids[:-1].tolist()
    assert tokenizer.decode(ids.tolist()) == "import os"


def test_text_that_spells_a_control_token_stays_text(bpe_file):
    tokenizer = load_tokenizer(config_of(bpe_file))
    (ids,) = tokenizer.encode_batch(["a </s> b"])
    assert 2 not in ids
    assert tokenizer.decode(ids.tolist()) == "a </s> b"


def test_a_folder_s_config_names_them(folder):
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"eos_token": {"content": "<s>"}, "pad_token": None})
    )
    tokenizer = load_tokenizer(config_of(folder))
    assert (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id) == (None, None, 1)
    with pytest.raises(DataError, match=r"data\.tokenizer\.add_bos: .* no BOS token"):
        load_tokenizer(config_of(folder, add_bos=True))
    (folder / "special_tokens_map.json").write_text(json.dumps({"bos_token": "</s>"}))
    assert load_tokenizer(config_of(folder, add_bos=True)).bos_id == 2


def test_the_model_s_ids_without_auto_set_special_tokens(bpe_file):
    config = config_of(bpe_file, auto_set_special_tokens=False)
    tokenizer = load_tokenizer(config, special=SpecialIds(7, 8, 9))
    assert (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id) == (7, 8, 9)


def test_the_file_s_truncation_padding_and_template_are_not_used(folder, paragraphs):
    plain = Tokenizer.from_file(str(folder / "tokenizer.json"))
    expected = [e.ids for e in plain.encode_batch(paragraphs)]
    plain.enable_truncation(5)
    plain.enable_padding(length=50)
    plain.save(str(folder / "tokenizer.json"))
    found = load_tokenizer(config_of(folder)).encode_batch(paragraphs)
    assert [i.tolist() for i in found] == expected


def test_snapshot_gives_equal_ids(folder, tmp_path, paragraphs):
    config = config_of(folder, add_eos=True)
    tokenizer = load_tokenizer(config)
    tokenizer.save(tmp_path / "run" / "tokenizer")
    shutil.rmtree(folder) if folder != tmp_path else (folder / "tokenizer.json").unlink()
    again = load_tokenizer(config, tmp_path / "run" / "tokenizer")
    assert again.fingerprint == tokenizer.fingerprint
    for a, b in zip(
        again.encode_batch(paragraphs), tokenizer.encode_batch(paragraphs), strict=True
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("content", ["", "{", "{}", '{"model": {"type": "BPE"}}', "[]"])
def test_a_broken_file_is_a_data_error(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(DataError, match=r"tokenizer\.json is not a tokenizer\.json"):
        load_tokenizer(config_of(tmp_path))


def test_paths_that_are_not_there(tmp_path):
    for path in (tmp_path / "gone", "./gone", "a/b/c", "gone/tokenizer.json"):
        with pytest.raises(DataError, match="there is no file or folder"):
            load_tokenizer(config_of(path))
    with pytest.raises(DataError, match="needed with"):
        load_tokenizer(TokenizerConfig(kind="hf"))


def test_offline_is_a_quick_clear_error(monkeypatch):
    monkeypatch.setattr(module, "explain_unreachable", lambda: "the Hub can't be reached: no route")
    begin = time.monotonic()
    with pytest.raises(DataError, match=r"'some/name' is no local path and not in the local cache"):
        load_tokenizer(config_of("some/name"))
    assert time.monotonic() - begin < 10


def test_a_cached_tokenizer_works_offline(monkeypatch, folder):
    monkeypatch.setattr(module, "explain_unreachable", lambda: "the Hub can't be reached: no route")
    monkeypatch.setattr(
        module,
        "_download",
        lambda _, name, local_only: (
            folder / name if local_only and name[:10] == "tokenizer." else None
        ),
    )
    assert load_tokenizer(config_of("some/name")).vocab_size == 8192


def test_a_tokenizer_only_in_python_goes_through_transformers(tmp_path, bpe_file, paragraphs):
    from transformers import PreTrainedTokenizerFast

    fast = PreTrainedTokenizerFast(tokenizer_file=str(bpe_file), eos_token="</s>")
    special = SpecialIds(None, None, 2)
    tokenizer = module.SlowTokenizer(fast, special, add_bos=False, add_eos=True)
    ids = tokenizer.encode_batch(paragraphs[:20])
    plain = load_tokenizer(config_of(bpe_file, add_eos=True))
    for a, b in zip(ids, plain.encode_batch(paragraphs[:20]), strict=True):
        np.testing.assert_array_equal(a, b)
    tokenizer.save(tmp_path)
    again = load_tokenizer(config_of("x", hf_trust_remote_code=True, add_eos=True), tmp_path)
    assert (
        again.encode_batch(["import os"])[0].tolist()
        == tokenizer.encode_batch(["import os"])[0].tolist()
    )

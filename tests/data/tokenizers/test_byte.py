import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chomp.config import TokenizerConfig
from chomp.data import SpecialIds, load_tokenizer
from chomp.errors import DataError


@given(st.text(), st.sampled_from([0, 3, 100]))
def test_bytes_there_and_back(text, offset):
    tokenizer = load_tokenizer(TokenizerConfig(byte_offset=offset))
    (ids,) = tokenizer.encode_batch([text])
    assert ids.dtype == np.int32
    assert ids.tolist() == [byte + offset for byte in text.encode()]
    assert tokenizer.decode(ids.tolist()) == text
    assert tokenizer.encode_prompt(text) == ids.tolist()
    assert tokenizer.vocab_size == offset + 256


def test_control_tokens():
    config = TokenizerConfig(byte_offset=10, add_bos=True, add_eos=True)
    tokenizer = load_tokenizer(config, special=SpecialIds(4, 5, 6))
    assert [tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id] == [4, 5, 6]
    assert tokenizer.encode_batch(["A"])[0].tolist() == [5, 75, 6]
    assert tokenizer.encode_prompt("A") == [5, 75]
    assert tokenizer.decode([5, 75, 6, 300]) == "A"


def test_control_tokens_that_are_bytes_do_not_exist():
    tokenizer = load_tokenizer(TokenizerConfig(byte_offset=2))
    assert [tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id] == [0, 1, None]
    with pytest.raises(DataError, match=r"data\.tokenizer\.add_eos: .* no EOS token"):
        load_tokenizer(TokenizerConfig(byte_offset=2, add_eos=True))


def test_invalid_bytes_are_replaced_when_decoding():
    tokenizer = load_tokenizer(TokenizerConfig())
    assert tokenizer.decode([65, 255, 66]) == "A�B"
    assert tokenizer.encode_batch(["\ud800"])[0].tolist() == [ord("?")]


def test_snapshot_gives_equal_ids(tmp_path):
    config = TokenizerConfig(byte_offset=10, add_eos=True)
    tokenizer = load_tokenizer(config, special=SpecialIds(4, 5, 6))
    tokenizer.save(tmp_path / "tokenizer")
    again = load_tokenizer(config, tmp_path / "tokenizer")
    assert again.fingerprint == tokenizer.fingerprint
    assert again.encode_batch(["abc"])[0].tolist() == tokenizer.encode_batch(["abc"])[0].tolist()
    assert again.fingerprint != load_tokenizer(config).fingerprint
    with pytest.raises(DataError, match="not a tokenizer snapshot"):
        load_tokenizer(config, tmp_path)

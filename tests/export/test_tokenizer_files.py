"""The tokenizer's files: `AutoTokenizer` gives the ids that chomp gives."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from chomp.config.data import TokenizerConfig
from chomp.data import load_tokenizer
from chomp.data.tokenizers.base import SpecialIds
from chomp.data.tokenizers.byte import ByteTokenizer
from chomp.data.tokenizers.library import SlowTokenizer
from chomp.export.tokenizer_files import byte_alphabet, difference, write_tokenizer

ROOT = Path(__file__).parents[2]
QUICKSTART = str(ROOT / "configs/quickstart-tokenizer.json")


def auto(tokenizer: Any, folder: Path, add_bos: bool) -> Any:
    from transformers import AutoTokenizer

    write_tokenizer(tokenizer, folder, add_bos=add_bos)
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module", params=["bytes", "bytes and BOS", "no specials", "BPE"])
def pair(request: Any, tmp_path_factory: Any):
    add_bos = request.param == "bytes and BOS"
    if request.param == "BPE":
        section = TokenizerConfig(kind="hf", hf_name_or_path=QUICKSTART, add_eos=True)
        tokenizer = load_tokenizer(section)
    else:
        offset = 0 if request.param == "no specials" else 5
        special = SpecialIds(0, 1, 2)
        tokenizer = ByteTokenizer(offset, special, add_bos=add_bos, add_eos=False)
    return tokenizer, auto(tokenizer, tmp_path_factory.mktemp("tokenizer"), add_bos)


@given(text=st.text(st.characters(exclude_categories=("Cs",))))
def test_any_text_gets_the_same_ids_and_comes_back(pair: Any, text: str):
    tokenizer, loaded = pair
    ids = loaded(text)["input_ids"]
    assert ids == tokenizer.encode_prompt(text)
    assert loaded.decode(ids, skip_special_tokens=True) == tokenizer.decode(ids) == text


@pytest.mark.parametrize("text", ["</s>", "a<pad>b <s>", "<|endoftext|> x"])
def test_control_tokens_in_text_are_text(pair: Any, text: str):
    tokenizer, loaded = pair
    assert loaded(text)["input_ids"] == tokenizer.encode_prompt(text)


def test_control_tokens_are_known(pair: Any):
    tokenizer, loaded = pair
    found = loaded.pad_token_id, loaded.bos_token_id, loaded.eos_token_id
    assert found == (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id)
    assert loaded.padding_side == "left"


def test_the_alphabet_is_the_library_s():
    assert len(byte_alphabet()) == 256
    assert set(byte_alphabet()) == set(pre_tokenizers.ByteLevel.alphabet())


def test_a_template_of_the_tokenizer_s_own_is_left_out(tmp_path: Path):
    """chomp trains without it."""
    from tokenizers import Tokenizer, processors

    backend = Tokenizer.from_file(QUICKSTART)
    name = next(iter(backend.get_added_tokens_decoder().values())).content
    special = [(name, backend.token_to_id(name))]
    backend.post_processor = processors.TemplateProcessing(f"{name} $A", None, special)
    backend.save(str(tmp_path / "own.json"))
    section = TokenizerConfig(kind="hf", hf_name_or_path=str(tmp_path / "own.json"))
    tokenizer = load_tokenizer(section)
    loaded = auto(tokenizer, tmp_path / "out", False)
    assert loaded("def f")["input_ids"] == tokenizer.encode_prompt("def f")


def test_a_difference_is_found(tmp_path: Path):
    one, other = (
        ByteTokenizer(offset, SpecialIds(0, 1, 2), add_bos=False, add_eos=False)
        for offset in (3, 4)
    )
    (tmp_path / "out").mkdir()
    write_tokenizer(one, tmp_path / "out", add_bos=False)
    assert difference(one, tmp_path / "out", trust_remote_code=False) is None
    found = difference(other, tmp_path / "out", trust_remote_code=False)
    assert found is not None and "to other tokens than chomp" in found


def test_a_tokenizer_in_python_adds_what_its_class_adds(tmp_path: Path):
    from transformers import ByT5Tokenizer

    own = ByT5Tokenizer()
    special = SpecialIds(own.pad_token_id, None, own.eos_token_id)
    tokenizer = SlowTokenizer(own, special, add_bos=False, add_eos=False)
    write_tokenizer(tokenizer, tmp_path, add_bos=False)
    assert "adds control tokens" in str(difference(tokenizer, tmp_path, trust_remote_code=False))

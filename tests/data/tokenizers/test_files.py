"""Tokenizers as people have them: sampling, spelling control tokens, in several files."""

import importlib.util
import json

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from chomp.config import TokenizerConfig
from chomp.data import load_tokenizer
from chomp.data.tokenizers import library as module
from chomp.data.tokenizers.plain_text import check_repeats
from chomp.errors import DataError


class PanicException(BaseException):
    """As Rust libraries raise it."""


def config_of(path, **keys) -> TokenizerConfig:
    return TokenizerConfig(kind="hf", hf_name_or_path=str(path), **keys)


def test_sampling_of_tokens_is_switched_off_and_said(tmp_path, bpe_file, paragraphs):
    plain = load_tokenizer(config_of(bpe_file))
    content = json.loads(bpe_file.read_text())
    content["model"]["dropout"] = 0.3
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content))
    tokenizer = load_tokenizer(config_of(path))
    assert "dropout 0.3" in tokenizer.notes[0]
    assert tokenizer.fingerprint == plain.fingerprint
    for a, b in zip(*(t.encode_batch(paragraphs) for t in (tokenizer, plain)), strict=True):
        assert a.tolist() == b.tolist()
    tokenizer.save(tmp_path / "snapshot")
    assert load_tokenizer(config_of(path), tmp_path / "snapshot").notes == ()


class Sampling:
    """Encodes a text in another way each time."""

    def __init__(self):
        self.numbers = iter(range(100))

    def plain(self, text: str) -> list[int]:
        return [next(self.numbers)]

    characters = plain


def test_a_tokenizer_that_samples_all_the_same_is_refused():
    with pytest.raises(DataError, match="other tokens for the same text each time"):
        check_repeats(Sampling())


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_text_that_spells_a_control_token_is_text(tmp_path, library_texts, kind, special):
    names = ["<unk>", "<pad>", "</s>"]
    if kind == "bpe":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet)
        tokenizer.train_from_iterator(library_texts[:9], trainer)
        tokenizer.add_tokens([AddedToken(name, special=special) for name in names])
    else:  # its control tokens are pieces of its model
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=200, special_tokens=names, unk_token="<unk>", show_progress=False
        )
        tokenizer.train_from_iterator([*library_texts[:9], "</s><pad>" * 9], trainer)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    config = {"eos_token": "</s>", "pad_token": "<pad>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    loaded = load_tokenizer(config_of(tmp_path, add_eos=True))
    for text in ("a </s> b", "</s>", "x<pad></s>y", "</s></s>"):
        ids = loaded.encode_batch([text])[0].tolist()
        assert ids.pop() == loaded.eos_id
        assert not {loaded.eos_id, loaded.pad_id} & set(ids), text
        assert not {loaded.eos_id, loaded.pad_id} & set(loaded.encode_prompt(text))
        assert loaded.decode(ids).strip() == text


def test_tokens_that_only_the_config_declares(tmp_path, bpe_file):
    (tmp_path / "tokenizer.json").write_text(bpe_file.read_text())
    size = load_tokenizer(config_of(bpe_file)).vocab_size
    token = {"content": "<|end|>", "special": True, "lstrip": False, "normalized": False}
    values = {"eos_token": "<|end|>", "added_tokens_decoder": {str(size): token}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(values))
    loaded = load_tokenizer(config_of(tmp_path, add_eos=True))
    assert (loaded.eos_id, loaded.vocab_size) == (size, size + 1)
    assert loaded.encode_batch(["a"])[0].tolist()[-1] == size
    assert loaded.decode([size]) == ""
    values["added_tokens_decoder"] = {str(size + 7): token}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(values))
    with pytest.raises(DataError, match=rf"the id {size + 7}, but the next free one .* is {size}"):
        load_tokenizer(config_of(tmp_path, add_eos=True))


def test_a_snapshot_loads_in_transformers_with_its_control_tokens(tmp_path, bpe_file, paragraphs):
    from transformers import AutoTokenizer

    tokenizer = load_tokenizer(config_of(bpe_file, add_eos=True))
    tokenizer.save(tmp_path / "snapshot")
    theirs = AutoTokenizer.from_pretrained(str(tmp_path / "snapshot"))
    assert (theirs.pad_token_id, theirs.bos_token_id, theirs.eos_token_id) == (0, 1, 2)
    for text in paragraphs[:20]:
        ids = tokenizer.encode_batch([text])[0].tolist()
        assert theirs(text, add_special_tokens=False)["input_ids"] == ids[:-1]
        assert theirs.decode(ids, skip_special_tokens=True) == text


def test_a_library_that_gives_up_is_an_error_not_a_traceback(monkeypatch, tmp_path, bpe_file):
    def panic(*args, **keys):
        raise PanicException("called `Option::unwrap()` on a `None` value")

    loaded = load_tokenizer(config_of(bpe_file))

    class Broken:
        encode = encode_batch_fast = decode = panic

    monkeypatch.setattr(loaded, "_backend", Broken())
    for call in (lambda: loaded.encode_batch(["a"]), lambda: loaded.encode_prompt("a")):
        with pytest.raises(DataError, match="unwrap"):
            call()
    with pytest.raises(DataError, match="unwrap"):
        loaded.decode([1])
    from chomp.data.tokenizers import huggingface

    monkeypatch.setattr(huggingface.tokenizers.Tokenizer, "from_str", panic, raising=False)
    with pytest.raises(DataError, match=r"not a tokenizer\.json: .*unwrap"):
        load_tokenizer(config_of(bpe_file))


def test_a_tokenizer_of_bytes_that_exists_only_in_python(tmp_path):
    values = {"tokenizer_class": "ByT5Tokenizer", "eos_token": "</s>", "pad_token": "<pad>"}
    values |= {"unk_token": "<unk>", "extra_ids": 0, "additional_special_tokens": []}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(values))
    loaded = load_tokenizer(config_of(tmp_path, add_eos=True))
    assert isinstance(loaded, module.SlowTokenizer)
    text = "a</s>b<pad>你"
    ids = loaded.encode_batch([text])[0].tolist()
    assert ids[-1] == loaded.eos_id
    assert not {loaded.eos_id, loaded.pad_id} & set(ids[:-1])
    assert loaded.decode(ids) == text
    assert [loaded.byte_count(ids[:end]) for end in (1, 10, 11, 12, 13, len(ids))] == [
        *(1, 10, 11, 12, 13),
        len(text.encode()),
    ]


@pytest.mark.parametrize("kind", ["byte", "hf"])
def test_any_json_of_a_snapshot_may_be_nested_without_end(tmp_path, bpe_file, kind):
    config = config_of(bpe_file) if kind == "hf" else TokenizerConfig()
    snapshot = tmp_path / "snapshot"
    load_tokenizer(config).save(snapshot)
    for path in snapshot.glob("*.json"):
        before = path.read_bytes()
        path.write_bytes(b"[" * 200_000)
        with pytest.raises(DataError, match=path.name):
            load_tokenizer(config, snapshot)
        path.write_bytes(before)
    load_tokenizer(config, snapshot)


@pytest.mark.parametrize(
    "name", ["LlamaTokenizer", "T5Tokenizer", "GPT2Tokenizer", "GemmaTokenizer", "BertTokenizer"]
)
def test_a_folder_without_its_vocabulary_is_refused(tmp_path, name):
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name}))
    with pytest.raises(DataError, match="no vocabulary, only control tokens"):
        load_tokenizer(config_of(tmp_path))


def test_a_folder_without_a_tokenizer_says_so(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    config = TokenizerConfig(kind="hf", hf_name_or_path=str(tmp_path))
    with pytest.raises(DataError, match=r"it holds no tokenizer\.json"):
        load_tokenizer(config)


def test_a_sentencepiece_model_says_what_to_do(tmp_path, monkeypatch):
    path = tmp_path / "tokenizer.model"
    path.write_bytes(b"\n\x0e\n\x05<unk>\x15\0\0\0\0\x18\x02")
    with pytest.raises(DataError, match="give the folder that it is in"):
        load_tokenizer(config_of(path))
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "sentencepiece" else find(name)
    )
    with pytest.raises(DataError, match=r"tokenizer\.model .* install the package sentencepiece"):
        load_tokenizer(config_of(tmp_path))

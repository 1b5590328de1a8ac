"""The bytes that tokens stand for, for every kind of tokenizer, wherever a text is cut."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from chomp.config import TokenizerConfig
from chomp.data import load_tokenizer
from chomp.data.batching import BatchSpec
from chomp.data.evaluation import EvaluationSet
from chomp.data.sources.documents import Document
from chomp.data.tokenize import encode

ALPHABET = pre_tokenizers.ByteLevel.alphabet()
SPECIAL = ["<pad>", "<s>", "</s>"]


def byte_level(texts):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    options = {"vocab_size": 600, "initial_alphabet": ALPHABET, "special_tokens": SPECIAL}
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(**options, show_progress=False))
    return tokenizer


def unigram(texts):
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    options = {"vocab_size": 200, "special_tokens": ["<unk>", *SPECIAL], "unk_token": "<unk>"}
    tokenizer.train_from_iterator(texts, trainers.UnigramTrainer(**options, show_progress=False))
    return tokenizer


def byte_fallback(texts):
    """As those of Llama are: pieces for common characters, bytes for the rest."""
    tokenizer = unigram(texts)
    content = json.loads(tokenizer.to_str())
    pieces = content["model"]["vocab"]
    pieces += [[f"<0x{byte:02X}>", -20.0] for byte in range(256)]
    content["model"]["byte_fallback"] = True
    content["pre_tokenizer"] = None
    content["normalizer"] = {
        "type": "Sequence",
        "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        ],
    }
    content["decoder"] = {
        "type": "Sequence",
        "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ],
    }
    return Tokenizer.from_str(json.dumps(content))


def word_piece(texts):
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    options = {"vocab_size": 300, "special_tokens": ["[UNK]", *SPECIAL]}
    tokenizer.train_from_iterator(texts, trainers.WordPieceTrainer(**options, show_progress=False))
    return tokenizer


KINDS = {make.__name__: make for make in (byte_level, unigram, byte_fallback, word_piece)}
LOSSLESS = ("byte", "byte_level", "byte_fallback")


@pytest.fixture(scope="module")
def loaded(tmp_path_factory, library_texts):
    """A tokenizer of each kind, with EOS and without."""
    found = {}
    for name, make in KINDS.items():
        path = tmp_path_factory.mktemp(name) / "tokenizer.json"
        make(library_texts[:10]).save(str(path))
        for eos in (False, True):
            config = TokenizerConfig(kind="hf", hf_name_or_path=str(path), add_eos=eos)
            found[name, eos] = load_tokenizer(config)
    for eos in (False, True):
        found["byte", eos] = load_tokenizer(TokenizerConfig(byte_offset=3, add_eos=eos))
    return found


# Characters of one to four bytes, those that stand for broken ones included.
text = st.text(st.sampled_from("aeim .,\nzäöü你好😀\ufffd0"), min_size=1, max_size=40)


def evaluated(tokenizer, texts, most=None, train_on_eos=True):
    documents = [Document(text, i) for i, text in enumerate(texts)]
    return EvaluationSet(
        lambda: encode(documents, tokenizer, most),
        tokenizer,
        BatchSpec(1, 2, 16, 0, 2, True, train_on_eos),
        best_fit=True,
        max_pieces=None,
    )


@given(text, st.integers(1, 12))
@settings(max_examples=150, deadline=None)
def test_lossless_tokenizers_count_every_byte_once(loaded, content, cut):
    size = len(content.encode())
    for name in LOSSLESS:
        for eos in (False, True):
            tokenizer = loaded[name, eos]
            ids = tokenizer.encode_batch([content])[0].tolist()
            assert tokenizer.byte_count(ids) == size, name
            counts = [tokenizer.byte_count(ids[:end]) for end in range(len(ids) + 1)]
            assert counts == sorted(counts), name
            # A token of a byte is one byte, also where the others of its character are missing.
            for end, token in enumerate(ids):
                written = tokenizer.token(token) if name != "byte" else "<0x00>"
                if written.startswith("<0x") and token > 2:
                    assert counts[end + 1] - counts[end] == 1, name
            if name == "byte_level":
                lengths = [0 if i < 3 else len(tokenizer.token(i)) for i in ids]
                assert counts[cut : cut + 1] == [sum(lengths[:cut])][: len(counts) > cut]


@given(st.lists(text, min_size=1, max_size=4))
@settings(max_examples=100, deadline=None)
def test_a_byte_tokenizer_s_bits_per_byte_are_its_loss(loaded, texts):
    evaluation = evaluated(loaded["byte", False], [*texts, "ab"])
    assert evaluation.bytes == evaluation.targets
    for most in (1, 2, 3, 5):
        evaluation = evaluated(loaded["byte", False], ["你好", "abc", *texts], most)
        assert most == 1 or evaluation.bytes == evaluation.targets


@given(st.lists(st.sampled_from(["def", "import", "the", "of", "self"]), min_size=2, max_size=9))
@settings(max_examples=50, deadline=None)
def test_the_space_before_a_word_is_a_byte_of_it(loaded, words):
    content = " ".join(words)
    for (name, _), tokenizer in loaded.items():
        ids = tokenizer.encode_batch([content])[0].tolist()
        first = tokenizer.decode(ids[:1])
        if "[UNK]" in tokenizer.decode(ids):
            continue
        expected = len(content) - len(first.strip())
        assert evaluated(tokenizer, [content]).bytes == expected, name


def test_eos_that_is_a_byte_counts_only_where_it_is_scored(loaded):
    tokenizer = load_tokenizer(TokenizerConfig())
    for scored, expected in ((True, 4), (False, 2)):
        evaluation = evaluated(tokenizer, ["a\2b\2c"], train_on_eos=scored)
        assert evaluation.bytes == evaluation.targets == expected

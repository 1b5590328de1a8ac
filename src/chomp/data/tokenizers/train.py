"""Making a tokenizer from texts: byte-level BPE, as GPT-2's is."""

from collections.abc import Iterator

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

SPECIAL = ("<pad>", "<bos>", "<eos>")
"""Control tokens; their ids are 0, 1 and 2."""
LEAST_VOCABULARY = len(SPECIAL) + 256
"""The control tokens and a token for each byte: any text can be encoded."""
LEAST_COUNT = 2
"""A pair of tokens that occurs less often becomes no token."""


def train_bpe(texts: Iterator[str], vocab_size: int) -> tokenizers.Tokenizer:
    """Make a byte-level BPE tokenizer.

    Text is split into words, numbers, signs and blanks as for GPT-2 before pairs are merged. The
    same texts in the same order give the same tokenizer.

    Args:
        texts: documents, read once.
        vocab_size: tokens at most, `LEAST_VOCABULARY` or more; fewer where the texts hold no more
            pairs to merge.

    Source: Sennrich et al., Neural Machine Translation of Rare Words with Subword Units (2016);
    Radford et al., Language Models are Unsupervised Multitask Learners (2019).
    """
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=LEAST_COUNT,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer

"""Make the quickstart's tokenizer: byte-level BPE on the source of Python's standard library.

python scripts/quickstart_tokenizer.py configs/quickstart-tokenizer.json

A number after the path is the size of another vocabulary.
"""

import sys
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from chomp.data.sources.local import standard_library

VOCABULARY = 2048


def main(path: str, size: int = VOCABULARY) -> None:
    shards = standard_library().shards
    texts = (Path(shard.name).read_text("utf-8", errors="replace") for shard in shards)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<pad>", "<bos>", "<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(path)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))

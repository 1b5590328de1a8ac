"""`chomp bench data`: how fast a configuration's pipeline gives batches."""

import time
from contextlib import closing

from chomp.bench.spread import Spread
from chomp.config import Config
from chomp.data import Data, Tokenizer, open_data
from chomp.data.all_sources import named_configs
from chomp.data.tokenize import BLOCK_DOCUMENTS
from chomp.errors import DataError
from chomp.system.console import SILENT, Console
from chomp.trainer.components import batch_spec, open_tokenizer

Values = dict[str, object]
WARM_UP_SECONDS = 1.0
"""Until the pipeline runs at its own speed, whatever it has prepared before."""
DOCUMENTS = 8 * BLOCK_DOCUMENTS
"""Encoded for the comparison with the tokenizer alone."""


class Pipeline:
    """The pipeline of a configuration, opened anew for each measurement.

    Args:
        config: as the user wrote it.
    """

    def __init__(self, config: Config):
        self.config, self.tokenizer = open_tokenizer(config, None)
        self.rates: list[float] = []
        self.encode_rates: list[float] = []
        self._texts: list[str] = []

    def run(self, seconds: float) -> None:
        """Draw batches for so many seconds, and note the tokens a second."""
        with closing(self._open()) as data:
            data.train.start()
            _draw(data, WARM_UP_SECONDS)
            tokens, spent = _draw(data, seconds)
            if tokens == 0:
                raise DataError(
                    f"the data ended within {WARM_UP_SECONDS:g} s: there is nothing to measure; "
                    "set data.repeat: true"
                )
            self.rates.append(tokens / spent)
            if not self._texts and any(
                source.backend != "tokens" for source in named_configs(self.config.data).values()
            ):
                self._texts = [data.samples.next_document() for _ in range(DOCUMENTS)]

    def encode(self) -> None:
        """Encode documents of the corpus, and do nothing else; note the tokens a second."""
        if self._texts:
            self.encode_rates.append(_encode(self.tokenizer, self._texts))

    def values(self) -> Values:
        """Return what was found out."""
        found: Values = {"tokens_per_second": Spread.of(self.rates)}
        if self.encode_rates:
            alone = Spread.of(self.encode_rates)
            found["encode_batch_tokens_per_second"] = alone
            found["share_of_encode_batch"] = Spread.of(self.rates).median / alone.median
        return found

    def _open(self) -> Data:
        config = self.config
        evaluate = config.train.eval_every > 0
        return open_data(config.data, self.tokenizer, batch_spec(config), evaluate=evaluate)


def _draw(data: Data, seconds: float) -> tuple[int, float]:
    """Draw for at least so many seconds, or to the end; return tokens and seconds."""
    start, tokens = time.perf_counter(), 0
    for drawn in data.train:
        tokens += drawn.stats.tokens
        if time.perf_counter() - start >= seconds:
            break
    return tokens, time.perf_counter() - start


def _encode(tokenizer: Tokenizer, texts: list[str]) -> float:
    start, tokens = time.perf_counter(), 0
    for at in range(0, len(texts), BLOCK_DOCUMENTS):
        tokens += sum(map(len, tokenizer.encode_batch(texts[at : at + BLOCK_DOCUMENTS])))
    return tokens / (time.perf_counter() - start)


def bench_data(
    config: Config,
    *,
    against: Config | None,
    rounds: int,
    seconds: float,
    console: Console = SILENT,
) -> Values:
    """Measure the pipeline of `config`, in turn with its tokenizer alone and another pipeline.

    Args:
        config: as the user wrote it.
        against: overrides of the other pipeline; its values have `against_` in front.
        rounds: how often each is measured.
        seconds: length of each measurement.
        console: shows what is going on.
    """
    pipelines = {"": Pipeline(config)}
    if against:
        pipelines["against_"] = Pipeline(against)
    for number in range(rounds):
        console.message(f"round {number + 1} of {rounds}")
        for pipeline in list(pipelines.values())[:: -1 if number % 2 else 1]:
            pipeline.run(seconds)
            pipeline.encode()
    values: Values = {}
    for prefix, pipeline in pipelines.items():
        values |= {prefix + name: value for name, value in pipeline.values().items()}
    if against:
        own, other = (Spread.of(pipeline.rates).median for pipeline in pipelines.values())
        values["speedup"] = own / other
    return values

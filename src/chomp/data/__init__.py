"""From text to batches: corpora, tokenizers, packing, evaluation sets."""

from chomp.data.all_sources import open_whole_corpus
from chomp.data.batching import BatchSpec
from chomp.data.evaluation import EvaluationSet, EvaluationSets
from chomp.data.lanes import lanes_at_start, lanes_of, merge_states
from chomp.data.loader import BatchLoader, is_stuck
from chomp.data.needs import check_packages, missing_inputs
from chomp.data.pipeline import Data, open_data
from chomp.data.resume import place_after_changes
from chomp.data.revisions import at_commits
from chomp.data.row_stats import combine
from chomp.data.sources.hub import explain_unreachable
from chomp.data.sources.local import Corpus
from chomp.data.sources.read_policy import read_retries
from chomp.data.sources.registered import register_source
from chomp.data.sources.rows import Row
from chomp.data.streams import Samples
from chomp.data.tokenizers.base import SpecialIds, Tokenizer
from chomp.data.tokenizers.load import load_tokenizer

__all__ = [
    "BatchLoader",
    "BatchSpec",
    "Corpus",
    "Data",
    "EvaluationSet",
    "EvaluationSets",
    "Row",
    "Samples",
    "SpecialIds",
    "Tokenizer",
    "at_commits",
    "check_packages",
    "combine",
    "explain_unreachable",
    "is_stuck",
    "lanes_at_start",
    "lanes_of",
    "load_tokenizer",
    "merge_states",
    "missing_inputs",
    "open_data",
    "open_whole_corpus",
    "place_after_changes",
    "read_retries",
    "register_source",
]

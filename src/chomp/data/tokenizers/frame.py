"""Control tokens around the ids of a document."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from chomp.data.tokenizers.base import SpecialIds, control_ids


class Frame(NamedTuple):
    """What comes around the ids of a text to make a document of them."""

    before: list[int]
    after: list[int]
    leaks: Mapping[int, list[int]]
    """The ids to write for control tokens that are spelled in the text."""

    @staticmethod
    def of(
        special: SpecialIds, leaks: Mapping[int, list[int]], *, add_bos: bool, add_eos: bool
    ) -> "Frame":
        """Return that of a tokenizer; raises DataError if it lacks a token that is to be added."""
        before = control_ids("bos", special.bos, add_bos)
        return Frame(before, control_ids("eos", special.eos, add_eos), leaks)

    def document(self, ids: list[int]) -> np.ndarray:
        """Return the ids of a whole document, int32; nothing comes around an empty one."""
        ids = self._as_text(ids)
        if ids and (self.before or self.after):
            ids = [*self.before, *ids, *self.after]
        return np.array(ids, np.int32)

    def prompt(self, ids: list[int]) -> list[int]:
        """Return the ids of a document's beginning."""
        return [*self.before, *self._as_text(ids)]

    def _as_text(self, ids: list[int]) -> list[int]:
        """Return ids with the pieces of their text in place of control tokens."""
        if not self.leaks or self.leaks.keys().isdisjoint(ids):
            return ids
        return [piece for i in ids for piece in self.leaks.get(i, (i,))]

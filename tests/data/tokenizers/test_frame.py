import numpy as np
import pytest

from chomp.data.tokenizers.base import SpecialIds
from chomp.data.tokenizers.frame import Frame
from chomp.errors import DataError

SPECIAL = SpecialIds(pad=0, bos=1, eos=2)


def test_a_document_is_framed_and_a_prompt_has_its_beginning():
    frame = Frame.of(SPECIAL, {}, add_bos=True, add_eos=True)
    document = frame.document([7, 8])
    assert document.tolist() == [1, 7, 8, 2] and document.dtype == np.int32
    assert frame.document([]).tolist() == []
    assert frame.prompt([7]) == [1, 7]
    assert frame.prompt([]) == [1]


def test_control_tokens_in_the_text_are_written_as_its_pieces():
    frame = Frame.of(SPECIAL, {2: [60, 61]}, add_bos=False, add_eos=True)
    assert frame.document([7, 2, 8]).tolist() == [7, 60, 61, 8, 2]
    assert frame.prompt([2]) == [60, 61]


def test_a_token_that_is_to_be_added_has_to_exist():
    with pytest.raises(DataError, match="add_eos: the tokenizer has no EOS token"):
        Frame.of(SpecialIds(0, 1, None), {}, add_bos=True, add_eos=True)

import time

import pytest

from chomp.data import hub
from chomp.errors import DataError


def test_a_hub_that_refuses_connections_is_found_out_quickly(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    begin = time.monotonic()
    with pytest.raises(DataError, match=r"data\.hf_dataset: 'a/b' is no local path, and the Hugg"):
        hub.require_hub("data.hf_dataset", "a/b")
    assert time.monotonic() - begin < 6


def test_offline_mode_counts_as_unreachable(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "can't be reached" in hub.explain_unreachable()


def test_errors_include_the_http_library_s():
    assert any(error.__name__ == "HTTPError" for error in hub.hub_errors())

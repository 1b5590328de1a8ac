import time

import pytest
from fake_hub import FakeHub

from chomp.data.sources import hub
from chomp.data.sources.read_policy import RETRIES
from chomp.errors import NetworkError


@pytest.fixture
def endpoint(monkeypatch):
    """Set where the hub is; its client is made anew afterwards."""
    from huggingface_hub import constants

    yield lambda url: monkeypatch.setattr(constants, "ENDPOINT", url)
    hub.limit_waiting(10.0)


def test_a_hub_that_refuses_connections_is_asked_again_then_an_error(endpoint, reading):
    endpoint("http://127.0.0.1:9")
    begin = time.monotonic()
    before = RETRIES.count
    with pytest.raises(NetworkError, match=r"data\.hf_dataset: 'a/b': reading failed, and again "):
        hub.ask_hub(reading, "data.hf_dataset", "a/b", lambda: pytest.fail("asked"))
    assert time.monotonic() - begin < 6
    assert RETRIES.count - before == reading.max_retries


def test_an_outage_is_waited_for_and_a_mistake_is_not(endpoint, reading, tmp_path):
    answers = iter([TimeoutError("slow"), ConnectionError("down"), FileNotFoundError("no such")])

    def ask():
        raise next(answers)

    with FakeHub(tmp_path, 0.0) as server:
        endpoint(server.url)
        with pytest.raises(FileNotFoundError, match="no such"):
            hub.ask_hub(reading, "data.hf_dataset", "a/b", ask)
        assert hub.ask_hub(reading, "data.hf_dataset", "a/b", lambda: "there") == "there"


def test_offline_mode_is_not_waited_for(monkeypatch, reading):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    before = RETRIES.count
    with pytest.raises(ConnectionError, match="can't be reached"):
        hub.ask_hub(reading, "data.hf_dataset", "a/b", lambda: pytest.fail("asked"))
    assert RETRIES.count == before


def test_requests_without_a_timeout_get_one(endpoint, tmp_path):
    """The hub's own client waits for listings without limit."""
    from huggingface_hub import HfApi

    with FakeHub(tmp_path, 0.0) as server:
        server.mute_api = True
        endpoint(server.url)
        hub.limit_waiting(0.2)
        with pytest.raises(hub.hub_errors(), match="timed out"):
            HfApi(endpoint=server.url).repo_info("me/data", repo_type="dataset", timeout=None)


def test_offline_mode_counts_as_unreachable(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "can't be reached" in hub.explain_unreachable()


def test_errors_include_the_http_library_s():
    assert any(error.__name__ == "HTTPError" for error in hub.hub_errors())

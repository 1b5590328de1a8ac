"""`chomp watch`: what the page is sent, and the page in a real browser."""

import http.client
import json
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml
from browser import Browser

from chomp.report.live_runs import LiveRuns
from chomp.report.serve import PageServer


@pytest.fixture
def serve() -> Iterator[Any]:
    """Serve runs from a thread."""
    servers = []

    def start(path: Path) -> PageServer:
        server = PageServer(LiveRuns(path), 0)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        servers.append((server, thread))
        return server

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


def get(server: PageServer, path: str, host: str | None = None) -> tuple[int, bytes]:
    """Ask the server for something; return the status and the content."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    try:
        connection.request("GET", path, headers={"Host": host} if host else {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def state(run: dict[str, Any]) -> dict[str, Any]:
    """What a page says that it has of a run."""
    curves = run["curves"]
    return {
        "name": run["facts"]["name"],
        "generation": curves["generation"],
        "rows": curves["rows"],
        "samples": run["samples"]["all"],
        "version": run["version"],
    }


def add_row(run: Path, step: int, loss: float) -> None:
    row = {"step": step, "loss": loss, "tokens_seen": 50 * step, "step_time_s": 0.1}
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")


def test_only_what_is_new_is_sent(copy_of: Any, earlier_run: Path):
    run = copy_of(earlier_run)
    runs = LiveRuns(run)
    (page,) = runs.page([])["runs"]
    have = state(page)
    assert runs.changes([have]) == []
    add_row(run, 7, 2.5)
    with (run / "samples.jsonl").open("a") as file:
        file.write(json.dumps({"step": 7, "prompt": "a", "continuation": "b"}) + "\n")
    (news,) = runs.changes([have])
    assert news["curves"]["series"]["loss"] == {"at": [0], "mean": [2.5]}
    assert news["curves"]["axes"]["step"] == [7] and news["curves"]["first"] == have["rows"]
    assert [sample["step"] for sample in news["samples"]["new"]] == [7]
    assert len(json.dumps(news)) < 2000
    # The newest of the page's facts come with the next answer, and only those that differ.
    time.sleep(1.6)
    have |= {"rows": news["curves"]["rows"], "samples": news["samples"]["all"]}
    (news,) = runs.changes([have])
    assert news["facts"]["last"]["loss"] == (7, 2.5) and "config" not in news["facts"]
    have["version"] = news["version"]
    assert runs.changes([have]) == []
    # A resume takes rows out: everything is sent again.
    kept = (run / "metrics.jsonl").read_text().splitlines(keepends=True)[:3]
    (run / "metrics.jsonl").write_text("".join(kept))
    (news,) = runs.changes([have])
    assert (news["curves"]["first"], news["curves"]["rows"]) == (0, 3)


def test_a_folder_of_runs(copy_of: Any, earlier_run: Path, serve: Any):
    folder = copy_of(earlier_run, "runs/one").parent
    for number in range(8):
        copy_of(earlier_run, f"runs/more {number}")
    (folder / "no run").mkdir()
    server = serve(folder)
    newest = next(iter(server.runs.folders()))
    (folder / newest / "config_resolved.json").unlink()
    (folder / newest / "config_resolved.json").mkdir()
    data = server.runs.page([])
    assert len(data["runs"]) == 6 and len(data["others"]) == 3
    two = server.runs.page(["one", "more 3"])
    assert [run["facts"]["name"] for run in two["runs"]] == ["one", "more 3"]
    assert get(server, "/?run=one&run=more+3")[0] == 200
    status, text = get(server, "/?run=../one")
    assert status == 404 and b"holds no run ../one now" in text


def test_runs_that_come_and_go_are_told(copy_of: Any, earlier_run: Path, serve: Any):
    folder = copy_of(earlier_run, "runs/one").parent
    server = serve(folder)

    def changes(known: int) -> tuple[int, Any]:
        have = quote(json.dumps([state(server.runs.page(["one"])["runs"][0])]))
        status, text = get(server, f"/changes?known={known}&have={have}")
        return status, json.loads(text) if text else None

    assert changes(known=1) == (204, None)
    copy_of(earlier_run, "runs/two")
    status, news = changes(known=1)
    assert (status, news["others"]) == (200, ["two"])
    assert changes(known=2) == (204, None)
    shutil.rmtree(folder / "two")
    assert changes(known=2)[1]["others"] == []


def test_what_is_no_request_of_the_page(copy_of: Any, earlier_run: Path, serve: Any):
    run = copy_of(earlier_run)
    server = serve(run)
    assert get(server, "/", host="somewhere.example:80")[0] == 403
    assert get(server, "/config_resolved.json")[0] == 404
    wrong = ("", "?have=[1]", "?have={", f"?have={'[' * 30_000}")
    for path in (*(f"/changes{query}" for query in wrong), "/documents?run=copy&step=x"):
        assert get(server, path)[0] == 400
    have = quote(json.dumps([{"name": "copy", "generation": 0, "rows": 10**9, "samples": -5,
                              "version": "none"}]))  # fmt: skip
    status, text = get(server, f"/changes?have={have}")
    assert status == 200 and json.loads(text)["runs"][0]["curves"]["first"] == 0
    status, text = get(server, "/documents?run=copy&step=99")
    assert status == 200 and "isn't reached" in json.loads(text)["problem"]
    documents = json.loads(get(server, "/documents?run=copy&step=2")[1])
    assert documents["step"] == 2 and documents["documents"][0]["text"]


def test_a_run_that_is_gone_is_told(copy_of: Any, earlier_run: Path):
    run = copy_of(earlier_run)
    runs = LiveRuns(run.parent)
    have = state(runs.page([])["runs"][0])
    run.rename(run.with_name("moved"))
    assert "holds no run copy now" in runs.changes([have])[0]["problem"]


def test_a_port_that_is_taken(copy_of: Any, earlier_run: Path, serve: Any):
    first = serve(copy_of(earlier_run))
    with PageServer(first.runs, first.server_port) as second:
        assert second.server_port != first.server_port


def test_a_run_that_trains(
    chromium: Browser, start_chomp: Any, values: Any, tmp_path: Path, serve: Any
):
    """The page shows new rows by itself."""
    config, run = tmp_path / "config.yaml", tmp_path / "run"
    sections = {"train": {"steps": 10**6, "log_every": 5}, "checkpoint": {"save_every": 1000}}
    config.write_text(yaml.safe_dump(values("dummy", **sections)))
    process = start_chomp("train", config, "--run-dir", run)
    metrics, deadline = run / "metrics.jsonl", time.monotonic() + 120
    while not (metrics.exists() and metrics.stat().st_size):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.05)
    server = serve(run)
    chromium.open(server.address)
    step = "Number(document.querySelector('#overview [data-key=step]').dataset.value)"
    first = chromium.js(step)
    chromium.wait(f"{step} > {first}")
    state = chromium.js("document.querySelector('#overview').innerText")
    assert f"process {process.pid}" in state
    process.kill()
    process.wait()
    chromium.wait("document.querySelector('#overview').innerText.includes('killed')")
    last = [json.loads(line) for line in metrics.read_text().splitlines()[-1:]]
    chromium.wait(f"{step} >= {last[0]['step']}")
    assert chromium.js("document.getElementById('live').textContent") == "live"
    assert {request.split("?")[0] for request in chromium.requests} == {
        server.address,
        f"{server.address}changes",
    }
    assert chromium.problems == []


def test_a_run_that_begins_beside_those_shown(
    chromium: Browser, copy_of: Any, earlier_run: Path, serve: Any
):
    """Its name comes to the page by itself, and leads to it."""
    folder = copy_of(earlier_run, "runs/one").parent
    server = serve(folder)
    chromium.open(server.address)
    assert chromium.js("document.querySelector('.legend details')") is None
    copy_of(earlier_run, "runs/two")
    chromium.wait("document.querySelector('.legend details[open] a')?.innerText === 'two'")
    chromium.js("document.querySelector('.legend details a').click()")
    chromium.wait("document.querySelectorAll('.legend input').length === 2")
    assert chromium.problems == []

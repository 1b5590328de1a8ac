"""The page of `chomp report`, opened in a real browser."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from browser import Browser

Write = Callable[..., Path]


def opened(chromium: Browser, page: Path) -> float:
    """Open a page, and check that it asked for nothing and that its console is empty."""
    seconds = chromium.open(page.as_uri())
    assert chromium.requests == [page.as_uri()]
    assert chromium.problems == []
    return seconds


def last_values(chromium: Browser) -> dict[str, float]:
    """The table of last values, by run and metric."""
    found = chromium.js(
        "[...document.querySelectorAll('#last td[data-metric]')]"
        ".map(({dataset: d}) => [`${d.run} ${d.metric}`, Number(d.value)])"
    )
    return dict(found)


def draw_all(chromium: Browser) -> int:
    """Make the window as high as the page, so that all charts are drawn; return their number."""
    height = chromium.js("document.documentElement.scrollHeight")
    chromium.size(1400, height)
    chromium.wait(
        "[...document.querySelectorAll('.plot')].every(p => "
        "p.querySelector('canvas')?.clientHeight === p.clientHeight)"
    )
    assert chromium.problems == []
    return chromium.js("document.querySelectorAll('.chart canvas').length")


def point(chromium: Browser, part: float) -> None:
    """Move the mouse over the first chart, to a part of its width."""
    left, top, width = chromium.js(
        "(({left, top, width}) => [left, top, width])"
        "(document.querySelector('.u-over').getBoundingClientRect())"
    )
    x = left + part * width
    chromium.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=top + 60)


def test_two_runs(
    chromium: Browser, write: Write, evaluated_run: Path, earlier_run: Path, read_rows: Any
):
    """One of them of an earlier version; folders of one name get longer ones."""
    opened(chromium, write(evaluated_run, earlier_run))
    names = [f"{run.parent.name}/{run.name}" for run in (evaluated_run, earlier_run)]
    found = last_values(chromium)
    for name, run in zip(names, (evaluated_run, earlier_run), strict=True):
        row = read_rows(run)[-1]
        for key in ("loss", "grad_norm", "tokens_seen", "eval_loss", "eval_bits_per_byte", "lr"):
            assert found[f"{name} {key}"] == row[key]
    assert draw_all(chromium) > 8
    readout = chromium.js("document.querySelector('[data-key=loss] .readout').innerText")
    assert all(f"{found[f'{name} loss']:.4f}" in readout for name in names)
    differences = chromium.js("document.getElementById('differences').innerText")
    assert "optim.name" in differences and "muon" in differences
    axes = chromium.js("[...document.querySelectorAll('[name=axis]')].map(i => i.value)")
    assert axes == ["step", "tokens", "time", "flops"]


def test_what_can_be_chosen(chromium: Browser, write: Write, evaluated_run: Path, copy_of: Any):
    opened(chromium, write(evaluated_run, copy_of(evaluated_run)))
    for axis in ("tokens", "time", "flops", "step"):
        chromium.js(f"document.querySelector('[value={axis}]').click()")
        draw_all(chromium)
        label = chromium.js("document.querySelector('.plot').getAttribute('aria-label')")
        assert label.startswith("Training loss")
    chromium.js("document.getElementById('log').click()")
    chromium.js(
        "(s => { s.value = 0.9; s.dispatchEvent(new Event('input')); })"
        "(document.querySelector('.slider input'))"
    )
    draw_all(chromium)
    shown = "document.querySelectorAll('[data-key=loss] .readout li').length"
    assert chromium.js(shown) == 2
    chromium.js("document.querySelector('.legend input').click()")
    chromium.wait(f"{shown} === 1")
    # The cursor of one chart is read in all.
    point(chromium, 0.4)
    chromium.wait("document.querySelectorAll('.where')[1].textContent.startsWith('step')")
    assert chromium.problems == []


@pytest.mark.parametrize("width", [390, 1400])
@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_into_any_window(
    chromium: Browser, write: Write, evaluated_run: Path, width: int, dark: bool
):
    chromium.size(width, 900, dark=dark)
    opened(chromium, write(evaluated_run))
    assert chromium.js("document.documentElement.scrollWidth") <= width
    paper = chromium.js("getComputedStyle(document.body).backgroundColor")
    assert (int(paper.split("(")[1].split(",")[0]) < 60) == dark
    chromium.size(1400, 900)


EVIL = '</script><script>document.title="evil"</script><img src=x onerror=alert(1)><!--<b>&amp;'


def test_text_from_a_run_is_never_markup(
    chromium: Browser, write: Write, copy_of: Any, earlier_run: Path
):
    run = copy_of(earlier_run, "<b>&amp;run")
    sample = {"step": 6, "prompt": EVIL, "continuation": EVIL + "\u2028\x00\ud800"}
    (run / "samples.jsonl").write_text(json.dumps(sample) + "\n")
    resolved = run / "config_resolved.json"
    config = json.loads(resolved.read_text())
    config["logging"]["project"], config["model"][EVIL] = EVIL, EVIL
    resolved.write_text(json.dumps(config))
    row = {"step": 7, "loss": 1.0, f"eval_loss/{EVIL}": 2.0, EVIL: 3.0}
    error = {"step": 8, "error": EVIL, "reason": EVIL}
    with (run / "metrics.jsonl").open("a") as file:
        file.write("".join(json.dumps(values) + "\n" for values in (row, error)))
    opened(chromium, write(run))
    assert draw_all(chromium)
    assert chromium.js("document.title") == "<b>&amp;run \u2013 chomp"
    assert chromium.js("document.querySelectorAll('img, b b, main script').length") == 0
    chromium.wait("document.querySelector('#samples .text')?.textContent.includes('onerror')")
    assert EVIL in chromium.js("document.querySelector('#config').textContent")
    assert EVIL in chromium.js("document.querySelector('#history').textContent")
    assert last_values(chromium)[f"<b>&amp;run eval_loss/{EVIL}"] == 2.0


def test_half_written_and_missing_files_leave_a_page(
    chromium: Browser, write: Write, copy_of: Any, earlier_run: Path
):
    files = ("metrics.jsonl", "samples.jsonl", "run.json", "ledger.jsonl", "config_resolved.json")
    for keep in (0.0, 0.5):
        run = copy_of(earlier_run, f"kept {keep}")
        for name in files:
            content = (run / name).read_bytes()
            (run / name).write_bytes(content[: int(keep * len(content))])
        opened(chromium, write(run))
        assert chromium.js("document.querySelectorAll('section').length") >= 3


def test_families_are_charts_with_a_line_for_each_name(
    chromium: Browser, write: Write, copy_of: Any, earlier_run: Path
):
    run = copy_of(earlier_run)
    with (run / "metrics.jsonl").open("a") as file:
        for step in range(7, 30):
            row = {"step": step, "loss": 3.0, "tokens_seen": 40 * step, "step_time_s": 0.1}
            row |= {f"targets/{name}": step + at for at, name in enumerate(("code", "web"))}
            row |= {f"grad_norm/layers.{at}": step / (1 + at) for at in range(12)}
            row |= {"my_own/a": step, "my_own/b": -step}
            file.write(json.dumps(row) + "\n")
    opened(chromium, write(run))
    draw_all(chromium)
    titles = chromium.js("[...document.querySelectorAll('.chart h3')].map(h => h.innerText)")
    for title in ("Targets by source", "Gradient norm by layer", "my_own by name"):
        assert any(each.startswith(title) for each in titles), titles
    lines = chromium.js(
        "[...document.querySelectorAll('.chart')].map(c => [c.querySelector('h3').innerText, "
        "c.querySelectorAll('.readout li').length])"
    )
    assert max(count for title, count in lines if title.startswith("Gradient")) == 12
    assert "48.6%" in chromium.js("document.querySelector('#data table').innerText")


def test_documents_of_a_step(chromium: Browser, write: Write, evaluated_run: Path):
    opened(chromium, write(evaluated_run, "--documents"))
    chromium.js(
        "(f => { f.querySelector('input').value = 3; f.requestSubmit(); })"
        "(document.querySelector('#documents form'))"
    )
    chromium.wait("document.querySelector('.documents').innerText.includes('Step 3, batch 3')")
    assert "texts.jsonl" in chromium.js("document.querySelector('.documents').innerText")
    opened(chromium, write(evaluated_run))
    assert "chomp trace" in chromium.js("document.querySelector('.documents').innerText")


def test_bad_input_is_one_line(chomp: Any, evaluated_run: Path, tmp_path: Path):
    (tmp_path / "file").write_text("")
    for words in (
        ("report", tmp_path),
        ("report", evaluated_run, tmp_path / "nothing"),
        ("report", evaluated_run, "-o", tmp_path / "file" / "report.html"),
        ("compare", evaluated_run, tmp_path / "nothing"),
        ("watch", tmp_path / "nothing"),
        ("watch", tmp_path),
    ):
        done = chomp(*words)
        assert done.code == 2 and done.err.startswith("error: "), (words, done)
        assert len(done.err.splitlines()) == 1 and str(tmp_path) in done.err
    assert chomp("report").code == 2


@pytest.mark.slow
def test_a_million_rows_and_a_thousand_samples_open_within_three_seconds(
    chromium: Browser, write: Write, copy_of: Any, earlier_run: Path, read_rows: Any
):
    run, numbers = copy_of(earlier_run), random.Random(0)
    row = read_rows(run)[-1]
    spike = {"step": 654_321, "loss": 99.0}
    with (run / "metrics.jsonl").open("w") as file:
        for step in range(1, 1_000_001):
            values = {"step": step, "loss": numbers.gauss(3, 0.1), "tokens_seen": 60 * step}
            file.write(json.dumps(row | values | (spike if step == spike["step"] else {})) + "\n")
    samples = [
        {"step": s, "prompt": "x " * 500, "continuation": f"{s} " * 300} for s in range(1000)
    ]
    (run / "samples.jsonl").write_text("".join(json.dumps(each) + "\n" for each in samples))
    page = write(run)
    assert page.stat().st_size < 8e6
    assert min(opened(chromium, page) for _ in range(3)) < 3
    draw_all(chromium)
    assert last_values(chromium)["copy loss"] == values["loss"]
    assert "1,000,000 rows" in chromium.js("document.querySelector('#overview').innerText")
    point(chromium, 0.5)
    range_shown = r"/^(3\.0|2\.9)\d+ \(2\.\d+ to 3\.\d+\)$/"
    chromium.wait(f"{range_shown}.test(document.querySelector('[data-key=loss] b').innerText)")
    text = page.read_text("utf-8")
    assert "99.0" in text[text.index('"loss":{"at"') : text.index('"grad_norm":{"at"')]

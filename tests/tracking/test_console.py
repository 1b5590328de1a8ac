import io
import os
import pty
import re
import select
import subprocess
import sys
import time
from typing import Any

import pytest

from chomp.tracking import PlainConsole, RichConsole, open_console
from chomp.tracking.console import summary_line

ROW = {
    "step": 25,
    "loss": 3.14159,
    "grad_norm": 0.5,
    "lr": 3e-4,
    "step_time_s": 0.125,
    "tokens_per_sec": 81920.4,
    "mfu": 0.4123,
    "packing_utilization": 0.973,
    "device_memory_gb": 1.5,
}


def test_a_row_is_one_compact_line():
    assert summary_line(ROW, 1000) == (
        "step   25/1000  loss 3.1416  grad 0.500  lr 3.00e-04  125 ms/step  81,920 tok/s  "
        "mfu 41.2%  packed 97.3%  1.50 GiB"
    )
    assert "lr 3.00e-04  muon 3.00e-02  125" in summary_line(ROW | {"lr_muon": 3e-2}, 1000)
    evaluated = summary_line(ROW | {"eval_loss": 2.0, "eval_bits_per_byte": 1.25}, 1000)
    assert "eval 2.0000  1.2500 bits/byte" in evaluated


def test_without_a_terminal_the_console_is_plain():
    stream = io.StringIO()
    console = open_console(steps=30, use_rich=True, stream=stream)
    assert not isinstance(console, RichConsole)
    console.progress(1)
    console.log(ROW)
    console.sample({"step": 25, "prompt": "[bold]def", "continuation": "é = 1\n"})
    console.table("Title", ["name", "n"], [["long name", "1"], ["x", "22"]])
    console.close()
    out = stream.getvalue()
    assert out.splitlines()[0] == summary_line(ROW, 30)
    assert "[bold]def" in out
    assert "é = 1" in out
    assert "  name       n\n  long name  1\n  x          22\n" in out
    assert "\x1b" not in out
    assert "\r" not in out


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_rich_is_for_terminals_that_want_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    assert isinstance(open_console(steps=3, use_rich=True, stream=Terminal()), RichConsole)
    plain = open_console(steps=3, use_rich=False, stream=Terminal())
    assert type(plain) is PlainConsole


def test_a_prompt_is_no_markup_for_rich(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    stream = Terminal()
    console = open_console(steps=3, use_rich=True, stream=stream)
    console.sample({"step": 1, "prompt": "[red]x[/red] [/nope]", "continuation": ":smile:"})
    console.message("[also] this")
    assert "[red]x[/red] [/nope]" in stream.getvalue()
    assert ":smile:" in stream.getvalue()
    assert "[also] this" in stream.getvalue()


def test_a_run_in_a_terminal_shows_a_bar(start_chomp: Any, config_file: Any, tmp_path: Any):
    """The real command under a pseudo-terminal."""
    main_end, terminal = pty.openpty()
    keys = dict.fromkeys(("stdin", "stdout", "stderr"), terminal)
    process = start_chomp(
        *("train", config_file(), "--run-dir", tmp_path / "run"),
        env={"TERM": "xterm-256color", "COLUMNS": "120"},
        **keys,
    )
    os.close(terminal)
    output, patience = b"", time.monotonic() + 120
    while time.monotonic() < patience:
        if select.select([main_end], [], [], 0.2)[0]:
            try:
                output += os.read(main_end, 65536)
            except OSError:  # the other end is closed
                break
    os.close(main_end)
    assert process.wait() == 0
    text = output.decode()
    assert "\x1b[" in text
    assert "━" in text
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    assert re.search(r"training ━+ 4/4 elapsed \d:\d\d:\d\d left", plain)
    for step in range(1, 5):
        assert len(re.findall(rf"step {step}/4  loss", plain)) == 1
    assert "finished   after step 4 of 4" in plain


def test_a_reader_who_has_gone_does_not_end_the_run():
    reader, writer = os.pipe()
    os.close(reader)
    code = (
        "import sys; from chomp.tracking import PlainConsole; c = PlainConsole(3, sys.stdout);"
        "[c.message('a line') for _ in range(3)]; sys.exit(7)"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (7, b"")

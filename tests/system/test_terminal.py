"""What reaches the terminal, and a terminal that is gone, full or can't show a letter."""

import errno
import io
import json
import os
import pty
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chomp.bench.table import table
from chomp.cli.options import rich_console
from chomp.system.terminal import OutputError, SafeStream, one_line, printable, styled
from chomp.tracking import PlainConsole, RichConsole, open_console

POISON = "\x1b]0;owned\x07\x9b31m\u202e\r\x7f\u2028\x00"


def steers(text: str) -> list[str]:
    """Return the characters that a terminal might obey, newline and tab apart."""
    bidirectional = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    return [
        char
        for char in text
        if char not in "\n\t"
        and (
            unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp")
            or unicodedata.bidirectional(char) in bidirectional
        )
    ]


@given(st.text(st.characters(codec=None)))
def test_nothing_of_any_text_steers_a_terminal(text: str):
    assert steers(POISON)
    assert not steers(printable(text + POISON))
    assert "\n" not in one_line(text)
    assert "\t" not in one_line(text)


@given(st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp", "Cf"])))
def test_other_text_stays_as_it_is(text: str):
    assert printable(text + "\n\t") == text + "\n\t"


@given(
    st.text(st.characters(codec=None)),
    st.sampled_from(["ascii", "latin-1", "cp1252", "utf-8", "utf-16", "koi8-r", "shift_jis"]),
    st.booleans(),
)
def test_every_encoding_shows_every_text(text: str, encoding: str, is_styled: bool):
    """What isn't UTF-8 shows escapes for its missing letters, and no text ends the program."""
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding=encoding, newline="")
    stream = styled(out) if is_styled else SafeStream(out)
    stream.write(text)
    stream.flush()
    if not is_styled:
        assert not steers(raw.getvalue().decode(encoding))


class Failing(io.RawIOBase):
    """A file that can't be written to."""

    def __init__(self, number: int, file: int):
        self.number, self.file = number, file

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.file

    def write(self, data: Any) -> int:
        raise OSError(self.number, os.strerror(self.number))


ERRORS = ("EIO", "EPIPE", "EBADF", "ENXIO", "ENOSPC", "EDQUOT", "EFBIG", "EAGAIN", "ECONNRESET")


@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize("use_rich", [False, True])
def test_no_error_of_the_terminal_ends_a_run(
    tmp_path: Path, name: str, use_rich: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TERM", "xterm-256color")
    with (tmp_path / "file").open("w") as file:
        raw = Failing(getattr(errno, name), file.fileno())
        out = io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8")
        monkeypatch.setattr(out, "isatty", lambda: True)
        console = open_console(steps=3, use_rich=use_rich, stream=out)
        assert isinstance(console, RichConsole) is use_rich
        use_all(console)
        monkeypatch.setattr(raw, "write", len)  # what Python itself would write at its end


@pytest.mark.parametrize("name", ERRORS)
def test_what_a_command_prints_is_not_lost_without_a_word(tmp_path: Path, name: str):
    with (tmp_path / "file").open("w") as file:
        raw = Failing(getattr(errno, name), file.fileno())
        stream = SafeStream(io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8"))
        stream.write("a line")
        if name != "EAGAIN":
            with pytest.raises(BrokenPipeError if name == "EPIPE" else OutputError):
                stream.flush()
        raw.write = lambda data: len(data)  # what Python itself would write at its end


def test_a_full_disk_is_an_error_of_what_prints_to_it():
    command = [sys.executable, "-m", "chomp", "config", "schema"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
        assert done.returncode == 1
        assert done.stderr == ("error: standard output can't be written: No space left on device\n")
        wrong = subprocess.run([*command, "x"], stdout=full, stderr=full)
        assert wrong.returncode == 2


def use_all(console: PlainConsole) -> None:
    for step in range(1, 4):
        console.progress(step)
        console.message("x" * 5000)
        console.log({"step": step, "loss": 1.0})
        console.sample({"step": step, "prompt": POISON, "continuation": "é"})
        console.table("Title", ["a"], [["1"]])
    console.close()


@pytest.mark.parametrize("use_rich", [False, True])
def test_a_terminal_that_goes_away_does_not_end_a_run(
    use_rich: bool, monkeypatch: pytest.MonkeyPatch
):
    """A real one: what is written to it is an error once its other end is closed."""
    monkeypatch.setenv("TERM", "xterm-256color")
    main_end, terminal = pty.openpty()
    with open(terminal, "w", encoding="utf-8") as stream:
        console = open_console(steps=3, use_rich=use_rich, stream=stream)
        console.progress(1)
        os.close(main_end)
        with pytest.raises(OSError, match="Input/output error"):
            os.write(terminal, b"x")
        use_all(console)


def test_a_reader_who_has_gone_ends_what_only_prints():
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", encoding="utf-8") as out:
        stream = SafeStream(out)
        stream.write("a line")
        with pytest.raises(BrokenPipeError):
            stream.flush()
        stream.settle()


@pytest.mark.parametrize("closed", [[0], [1], [2], [1, 2], [0, 1, 2]], ids=str)
def test_closed_streams_are_no_place_for_files(tmp_path: Path, closed: list[int]):
    """`>&-`: the next file opened would have number 1 or 2, and get what libraries say."""
    code = (
        "import os, sys\n"
        "from chomp.system.terminal import guard_streams\n"
        "guard_streams()\n"
        f"file = open({str(tmp_path / 'rows')!r}, 'w')\n"
        "assert file.fileno() > 2\n"
        "os.write(2, b'a library'); print('out', flush=True); print('err', file=sys.stderr)\n"
        "assert not sys.stdout.isatty()\n"
        "file.write('a row')\n"
    )
    preexec = (
        f"import os, sys\nfor n in {closed}: os.close(n)\n"
        # By its path: a Python of a virtual environment finds its libraries by it.
        "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    command = [sys.executable, "-c", preexec, "-c", code]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60)
    assert done.returncode == 0
    assert (tmp_path / "rows").read_text() == "a row"
    assert done.stdout == (b"" if 1 in closed else b"out\n")


@pytest.fixture
def poisoned(small_run: Path, tmp_path: Path) -> Path:
    """A run whose files hold what steers a terminal, wherever they hold text."""
    folder = tmp_path / "run"
    shutil.copytree(small_run, folder)
    record = json.loads((folder / "run.json").read_text("utf-8"))
    start = record["starts"][-1]
    start |= {"error": POISON, "ended": "crashed" + POISON, "phase": POISON}
    start["changes"] = [{"key": POISON, "old": POISON, "new": POISON}]
    start["fallbacks"] = [{"step": 1, "reason": POISON}]
    start["events"] = [{"time": 1.0, "kind": POISON, "what": POISON}]
    record["run"] = POISON
    (folder / "run.json").write_text(json.dumps(record), "utf-8")
    step = folder / "checkpoints" / "30"
    manifest = (step / "manifest.json").read_text("utf-8")
    (step / "manifest.json").write_text(manifest.replace("tokens", json.dumps(POISON)[1:-1]))
    (step / "manifest.json").with_name("x" + POISON.replace("\x00", "")).write_text("")
    documents = folder / f"texts{POISON.replace(chr(0), '')}.jsonl"
    documents.write_text((json.dumps({"text": POISON + "text"}) + "\n") * 400, "utf-8")
    config = json.loads((folder / "config_resolved.json").read_text("utf-8"))
    config["data"]["files"] = [str(documents)]
    (folder / "config_resolved.json").write_text(json.dumps(config), "utf-8")
    return folder


COMMANDS: list[Callable[[Path], list[object]]] = [
    lambda run: ["status", run],
    lambda run: ["trace", run],
    lambda run: ["trace", run, "--json"],
    lambda run: ["checkpoints", "list", run],
    lambda run: ["checkpoints", "verify", run],
    lambda run: ["checkpoints", "diff", run, "--step", 10, "--step2", 20],
    lambda run: ["config", "show", run / "config_resolved.json"],
    lambda run: ["generate", run / "nothing\x1b[31m"],
    lambda run: ["train", run / "nothing\x1b[31m\x9b.yaml"],
    lambda run: ["train", "--run-dir", run, "--resume", "latest", "-o", f"train.x{POISON[1:3]}=1"],
]


@pytest.mark.parametrize("number", range(len(COMMANDS)))
def test_no_command_shows_raw_what_it_reads(poisoned: Path, chomp: Any, number: int):
    done = chomp(*COMMANDS[number](poisoned))
    assert done.out + done.err
    assert not steers(done.out + done.err)


def test_tables_show_their_titles_and_cells_escaped(capsys: pytest.CaptureFixture[str]):
    rich_console().print(table({POISON: POISON, "a[red]": 1}, {"this config": "", POISON: "x_"}))
    shown = capsys.readouterr().out
    assert not steers(shown)
    assert "\\u001b" in shown and "a[red]" in shown


def test_prepared_documents_are_shown_escaped(chomp: Any, config_file: Any, tmp_path: Path):
    path = tmp_path / f"a{POISON.replace(chr(0), '')}.jsonl"
    path.write_text((json.dumps({"text": POISON}) + "\n") * 9, "utf-8")
    config = config_file(data={"files": [str(path)]})
    out = tmp_path / "tokens"
    lines = [chomp("data", "prepare", config, out)]
    lines += [chomp("data", "show", out), chomp("data", "show", out, "--document", 0)]
    lines += [chomp("data", "show", out, "--document", 0, "--json"), chomp("data", "verify", out)]
    assert [done.code for done in lines] == [0] * 5
    assert not any(steers(done.out + done.err) for done in lines)
    assert json.loads(lines[3].out)["text"] == POISON
    assert "\\u001b" in lines[2].out

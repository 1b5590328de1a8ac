"""Make the README's picture: a real run in a terminal, drawn as SVG.

The command runs in a pseudo-terminal, so that it shows its progress bar and panels; what it
writes is replayed on a small screen of lines, and Rich draws their final state.

    python scripts/picture.py docs/quickstart.svg -- chomp train configs/quickstart.yaml
"""

import argparse
import io
import os
import pty
import re
import struct
import sys
import termios
from fcntl import ioctl
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

# The control sequences that Rich's live display uses; colours (…m) stay part of the text.
CONTROL = re.compile(r"\r|\n|\x1b\[(\d*)A|\x1b\[2K|\x1b\[\?25[lh]")
# Without the fonts that Rich would fetch from the web: a picture in a page may load nothing.
SVG_FORMAT = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL).replace(
    "Fira Code", "ui-monospace, Menlo, Consolas, DejaVu Sans Mono"
)


def run_in_terminal(command: list[str], columns: int) -> str:
    """Return what `command` writes to a terminal of that width, while showing it here."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe(command[0], command, os.environ | {"TERM": "xterm-256color"})
    ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    output = b""
    while True:
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # how Linux reports that the other end is closed
            break
        if not piece:
            break
        os.write(sys.stdout.fileno(), piece)
        output += piece
    _, status = os.waitpid(pid, 0)
    if status:
        sys.exit(f"{' '.join(command)}: exit code {os.waitstatus_to_exitcode(status)}")
    return output.decode("utf-8", errors="replace")


def final_lines(output: str) -> list[str]:
    """Return the lines that stand on the terminal at the end."""
    lines, row, at = [""], 0, 0
    for control in [*CONTROL.finditer(output), None]:
        lines[row] += output[at : control.start() if control else None]
        if control is None:
            break
        at = control.end()
        what = control.group()
        if what == "\n":
            row += 1
            if row == len(lines):
                lines.append("")
        elif what.endswith("A"):
            row = max(0, row - int(control.group(1) or 1))
        elif what.endswith("K"):
            lines[row] = ""
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


def shortened(lines: list[str], head: int, tail: int) -> list[str]:
    """Leave out the middle of a long run, visibly."""
    if len(lines) <= head + tail:
        return lines
    left_out = f"\x1b[2m  ⋮   {len(lines) - head - tail} lines left out of this picture\x1b[0m"
    return [*lines[:head], left_out, *lines[-tail:]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("svg", type=Path)
    parser.add_argument("--columns", type=int, default=130)
    parser.add_argument("--head", type=int, default=16, help="lines kept from the start")
    parser.add_argument("--tail", type=int, default=38, help="lines kept from the end")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    output = run_in_terminal(options.command, options.columns)
    lines = shortened(final_lines(output), options.head, options.tail)
    console = Console(
        record=True, width=options.columns, file=io.StringIO(), force_terminal=True, highlight=False
    )
    prompt = Text.assemble(("$ ", "green"), " ".join(options.command))
    for line in [prompt, *map(Text.from_ansi, lines)]:
        console.print(line, no_wrap=True, crop=True)
    svg = console.export_svg(title="chomp", code_format=SVG_FORMAT, unique_id="chomp")
    options.svg.write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()

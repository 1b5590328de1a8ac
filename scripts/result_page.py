"""The head of a page of docs/results/, printed above the tables of the script that makes it."""

import datetime
import importlib.metadata
import os
import shlex
import sys
from pathlib import Path


def print_head(title: str, section: str) -> None:
    """Print title, command, date and machine.

    Args:
        title: of the page.
        section: of docs/reliability.md, as links name it, that explains the page.
    """
    words = ["python", f"scripts/{Path(sys.argv[0]).name}", *sys.argv[1:]]
    print(
        f"# {title}\n\n"
        f"Printed by `{shlex.join(words)}` on {datetime.date.today()}; {os.cpu_count()} "
        f"processors, JAX {importlib.metadata.version('jax')}.\n"
        f"[reliability.md](../reliability.md#{section}) says what it means.\n"
    )

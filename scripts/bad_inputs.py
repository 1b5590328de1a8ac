"""Give chomp wrong inputs and print what came of each as a Markdown table.

    python scripts/bad_inputs.py > docs/results/bad-input.md
    python scripts/bad_inputs.py tokenizer resume   # those with one of these words in their name

Ends with exit code 1 where an outcome is not as it should be, and says what is wrong with it on
standard error. The cases are in `bad_input/`.
"""

import sys
import tempfile
from pathlib import Path

from bad_input import CASES
from bad_input.case import Case
from bad_input.trial import Bench, Outcome, faults
from result_page import print_head

WIDTH = 160
HEAD = "| input | what it says | exit code | files |\n|---|---|---|---|"


def main(words: list[str]) -> int:
    wrong = total = 0
    print_head("Bad input", "bad-input")
    with tempfile.TemporaryDirectory() as root:
        bench = Bench(Path(root))
        for title, cases in CASES.items():
            chosen = [case for case in cases if not words or any(w in case.name for w in words)]
            if not chosen:
                continue
            print("\n" * (total > 0) + f"## {title}\n\n{HEAD}")
            for case in chosen:
                outcome = bench.try_case(case)
                found = faults(case, outcome)
                if found and case.waits:
                    print(f"WAITS {case.name}: {case.waits}", file=sys.stderr)
                    continue
                print(row(case, outcome, root), flush=True)
                total, wrong = total + 1, wrong + bool(found)
                for fault in found:
                    print(f"WRONG {case.name}: {fault}", file=sys.stderr)
                if found:
                    print("\n".join(outcome.err.splitlines()[-3:]), file=sys.stderr)
    print(f"{total} cases, {wrong} wrong", file=sys.stderr)
    return 1 if wrong else 0


def row(case: Case, outcome: Outcome, root: str) -> str:
    lines = [line for line in outcome.err.splitlines() if line.strip() and not _is_usage(line)]
    said = (lines[0] if lines else "").replace(root, "...").replace("|", "\\|").replace("`", "'")
    said = said if len(said) <= WIDTH else said[: WIDTH - 4] + " ..."
    more = f" (+ {len(lines) - 1} more)" if len(lines) > 1 else ""
    said = f"`{said}`{more}" if said else "nothing: it works"
    return f"| {case.name} | {said} | {outcome.code} | {fate(outcome)} |"


def _is_usage(line: str) -> bool:
    return line.startswith(("Usage: ", "Try '"))


def fate(outcome: Outcome) -> str:
    """Say what became of the files."""
    if outcome.lost:
        return f"LOST {', '.join(outcome.lost)}"
    tops = dict.fromkeys("/".join(name.split("/")[:2]) for name in outcome.written)
    outer = [name for name in tops if not any(name.startswith(top + "/") for top in tops)]
    return f"new: {', '.join(f'`{name}`' for name in outer)}" if outer else "as before"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

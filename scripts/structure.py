"""Counts what makes the program hard to follow, and names the places over the limits.

python scripts/structure.py            # the figures, and what exceeds them
python scripts/structure.py --json
"""

import argparse
import ast
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SOURCE = Path(__file__).parent.parent / "src" / "chomp"
MOST_ROOT_MODULES = 6
MOST_PARAMETERS = 7
MOST_FIELDS = 9
MOST_LAMBDAS = 5
MOST_CALLABLES = 3.0
"""Parameters typed `Callable`, or a name for a kind of it, by 100 functions, outside of ops."""
SHIPPED = "export/huggingface/"
"""Modules that are written beside an exported model: they run in transformers, by its customs."""
RECORDS = ("config/", "run/record.py")
"""Classes that mirror what users write or what a file holds have the fields that they need."""


class Place(NamedTuple):
    """A place in the source."""

    file: str
    line: int
    name: str
    count: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.name} ({self.count})"


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.arg]:
    """Return the parameters of a function without self and cls."""
    args = function.args
    every = [*args.posonlyargs, *args.args, *args.kwonlyargs]
    return [arg for arg in every if arg.arg not in ("self", "cls")]


def fields(node: ast.ClassDef) -> int:
    """Count the annotated fields of a dataclass or NamedTuple, or those that __init__ sets."""
    declared = [item for item in node.body if isinstance(item, ast.AnnAssign)]
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            names = {
                target.attr
                for target in ast.walk(item)
                if isinstance(target, ast.Attribute)
                and isinstance(target.ctx, ast.Store)
                and isinstance(target.value, ast.Name)
                and target.value.id == "self"
            }
            return len(names)
    return len(declared)


def modules(source: Path) -> Iterator[tuple[str, ast.Module]]:
    """Return every module's path below the package with its syntax tree."""
    for path in sorted(source.rglob("*.py")):
        name = path.relative_to(source).as_posix()
        if not name.startswith(SHIPPED):
            yield name, ast.parse(path.read_text("utf-8"))


def callable_names(source: Path) -> set[str]:
    """Return `Callable` and the names that the modules give to kinds of it."""
    names = {"Callable"}
    for _, tree in modules(source):
        for node in tree.body:
            if isinstance(node, ast.Assign) and "Callable[" in ast.unparse(node.value):
                names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names


def measure(source: Path = SOURCE) -> dict[str, object]:
    """Return the figures of a source tree."""
    functions = callables = trainer_lambdas = lambdas = 0
    kinds = callable_names(source)
    long, wide = [], []
    for file, tree in modules(source):
        for node in ast.walk(tree):
            if isinstance(node, ast.Lambda):
                lambdas += 1
                trainer_lambdas += file.startswith("trainer/")
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                taken = parameters(node)
                if len(taken) > MOST_PARAMETERS:
                    long.append(Place(file, node.lineno, node.name, len(taken)))
                if not file.startswith("ops/"):
                    functions += 1
                    callables += sum(
                        arg.annotation is not None
                        and bool(kinds & set(re.findall(r"\w+", ast.unparse(arg.annotation))))
                        for arg in taken
                    )
            elif isinstance(node, ast.ClassDef):
                count = fields(node)
                if count > MOST_FIELDS and not file.startswith(RECORDS):
                    wide.append(Place(file, node.lineno, node.name, count))
    roots = sorted(path.name for path in source.glob("*.py") if path.name != "__init__.py")
    return {
        "root_modules": roots,
        "callables_per_100_functions": round(100 * callables / functions, 2),
        "lambdas_in_trainer": trainer_lambdas,
        "lambdas": lambdas,
        "functions_with_many_parameters": [str(place) for place in long],
        "classes_with_many_fields": [str(place) for place in wide],
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    figures = measure()
    if parser.parse_args().json:
        json.dump(figures, sys.stdout, indent=2)
        return
    for name, value in figures.items():
        print(name, len(value) if isinstance(value, list) else value)
        for line in value if isinstance(value, list) else ():
            print("   ", line)


if __name__ == "__main__":
    main()

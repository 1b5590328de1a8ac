"""The documents: links, names of keys and files, commands, and what the README promises."""

import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

import chomp
from chomp.cli import main
from chomp.config import Config, load_config
from chomp.config.error_messages import ENTRIES

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs").rglob("*.md"))]
HOW_TO = sorted((ROOT / "docs/how-to").glob("*.md"))
RESULTS = sorted((ROOT / "docs/results").glob("*.md"))
SOURCES = [p for name in ("src", "tests", "scripts") for p in sorted((ROOT / name).rglob("*.py"))]
# Pages that the user's document names.
NAMED = [
    "training",
    "config-reference",
    "optimization",
    "data_pipeline",
    "packing",
    "checkpointing",
]

FILE = re.compile(r"(?<![\w/.<{*-])((?:[\w-]+/)*[a-z_]\w*\.py)\b")
MODULE = re.compile(r"(?<![\w.`/-])chomp((?:\.(?!\w+\.json|json)[a-z_]+)+)")
LINK = re.compile(r"\]\(([^)#:\s]*)(?:#([^)\s]*))?\)")
CODE = re.compile(r"`([^`\n]+)`")
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
# The keys of an earlier harness are named in order to be refused.
EARLIER = "## Keys of the earlier harness"


def keys_of(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in values.items():
        yield prefix + name
        if isinstance(value, dict):
            yield from keys_of(value, f"{prefix}{name}.")


IN_LISTS = {f"{key}.{name}" for key, entry in ENTRIES.items() for name in entry.model_fields}
KEYS = frozenset(keys_of(Config().model_dump())) | IN_LISTS
SECTIONS = frozenset(key for key in KEYS if "." not in key)


def prose(page: Path) -> str:
    return COMMENT.sub("", page.read_text(encoding="utf-8")).split(EARLIER)[0]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.M)


def anchors(page: Path) -> set[str]:
    """The names of a page's headings in links."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def config_keys(page: Path) -> Iterator[str]:
    """What a page writes in code style and begins with a section of the config."""
    for code in CODE.findall(re.sub(r"^```.*?^```", "", prose(page), flags=re.DOTALL | re.M)):
        if match := re.match(r"([a-z_]+(?:\.[a-z_0-9*]+)+)(?![\w(/])", code):
            section, _, rest = match.group(1).partition(".")
            if section in SECTIONS and rest not in {"py", "md", "log", "safetensors"}:
                yield match.group(1)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in LINK.findall(prose(page)):
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in anchors(path), f"{page.name} links to {target}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_config_keys_exist(page: Path) -> None:
    unknown = []
    for key in config_keys(page):
        prefix = key.removesuffix(".*")
        if prefix not in KEYS and not (
            key.endswith("*") and any(known.startswith(key[:-1]) for known in KEYS)
        ):
            unknown.append(key)
    assert unknown == []


def test_the_keys_are_found_at_all() -> None:
    found = {key for page in PAGES for key in config_keys(page)}
    assert {"train.deterministic", "optim.muon.lr_scale", "runtime.compile_cache"} <= found


@pytest.mark.parametrize("name", NAMED)
def test_pages_that_users_know_by_name(name: str) -> None:
    assert (ROOT / "docs" / f"{name}.md").exists()


def test_the_two_commands() -> None:
    lines = [line for block in blocks(ROOT / "README.md", "bash") for line in block.splitlines()]
    fresh = [line for line in lines if line.startswith("python3 -m venv")]
    train, test = fresh
    assert "pip install" in train and train.endswith("chomp train configs/quickstart.yaml")
    assert "pip install" in test and test.endswith("pytest")


def test_the_commands_install_extras_that_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for page in PAGES:
        for names in re.findall(r"'(?:\.|chomp)\[([\w,]+)\]'", page.read_text(encoding="utf-8")):
            assert set(names.split(",")) <= set(extras), page.name


def test_the_readme_quotes_the_quickstart() -> None:
    (quoted,) = blocks(ROOT / "README.md", "yaml")
    shown = yaml.safe_load(quoted)
    real = yaml.safe_load((ROOT / "configs/quickstart.yaml").read_text())
    assert 15 <= len(quoted.splitlines()) <= 30

    def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
        found = {}
        for name, value in values.items():
            nested = flat(value, f"{prefix}{name}.") if isinstance(value, dict) else None
            found |= nested if nested is not None else {prefix + name: value}
        return found

    assert flat(shown).items() <= flat(real).items()


def test_shell_lines_name_files_that_exist() -> None:
    for page in PAGES:
        for block in blocks(page, "bash"):
            for name in re.findall(r"[\w/]*configs/[\w-]+\.yaml", block):
                assert (ROOT / name).exists() or name == "configs/my.yaml", f"{page.name}: {name}"


def names_a_file(name: str, page: Path) -> bool:
    """Whether a path in a text is one from the root, the package or the text itself."""
    folders = [ROOT, ROOT / "src", ROOT / "src/chomp", ROOT / "src/chomp/data", page.parent]
    return any((folder / name).exists() for folder in folders)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_source_files_named_in_pages_exist(page: Path) -> None:
    if page in RESULTS:  # files of the trials that they print
        return
    code = [*CODE.findall(prose(page)), *blocks(page, "bash")]
    named = [name for text in code for name in FILE.findall(text)]
    # A page's own examples begin with their names.
    own = {line.removeprefix("# ") for line in page.read_text("utf-8").splitlines()}
    assert [name for name in named if name not in own and not names_a_file(name, page)] == []


def test_source_files_named_in_sources_exist() -> None:
    wrong = []
    for path in SOURCES:
        for name in FILE.findall(path.read_text(encoding="utf-8")):
            if name.startswith(("src/", "chomp/", "tests/", "scripts/", "examples/")):
                wrong += [f"{path.relative_to(ROOT)}: {name}"] * (not names_a_file(name, path))
    assert wrong == []


def is_module(dotted: str) -> bool:
    path = ROOT / "src/chomp" / dotted.strip(".").replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").exists()


def test_modules_named_in_pages_and_sources_exist() -> None:
    wrong, public = [], {f".{name}" for name in chomp.__all__}
    for path in [*PAGES, *(p for p in SOURCES if ROOT / "tests" not in p.parents)]:
        for dotted in MODULE.findall(path.read_text(encoding="utf-8")):
            inside = dotted.rpartition(".")[0]  # the last word may be a function
            found = dotted in public or is_module(dotted) or (inside and is_module(inside))
            if not found:
                wrong.append(f"{path.relative_to(ROOT)}: chomp{dotted}")
    assert wrong == []


def chomp_commands(page: Path) -> Iterator[list[str]]:
    """The words of each command line of a page, without those that a shell would change."""
    for block in blocks(page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and "=" in words[0]:
                del words[0]
            if words and words[0].endswith("chomp"):
                yield words[1 : words.index("||") if "||" in words else None]


@pytest.mark.parametrize("page", [ROOT / "README.md", *HOW_TO], ids=lambda page: page.name)
def test_commands_of_pages_are_understood(page: Path) -> None:
    lines = list(chomp_commands(page))
    assert lines
    for words in lines:
        command: click.Command = main
        context = click.Context(main, info_name="chomp")
        words = [word for word in words if word != "--debug"]
        while isinstance(command, click.Group):
            name, found, words = command.resolve_command(context, words)
            assert found
            command, context = found, click.Context(found, parent=context, info_name=name)
        command.make_parser(context).parse_args(words)


@pytest.mark.parametrize("page", HOW_TO, ids=lambda page: page.name)
def test_configs_of_how_to_pages_are_valid(page: Path, tmp_path: Path) -> None:
    for number, block in enumerate(blocks(page, "yaml")):
        path = tmp_path / f"{number}.yaml"
        path.write_text(block, encoding="utf-8")
        load_config(path)


def test_how_to_pages_are_linked_from_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert HOW_TO and all(f"docs/how-to/{page.name}" in text for page in HOW_TO)


@pytest.mark.parametrize("page", RESULTS, ids=lambda page: page.name)
def test_pages_of_results_name_the_script_that_prints_them(page: Path) -> None:
    """So that each can be made anew; the script names the page as well."""
    text = page.read_text(encoding="utf-8")
    (script,) = re.findall(r"^Printed by `python (scripts/\w+\.py)[^`]*` on ", text, re.MULTILINE)
    assert f"docs/results/{page.name}" in (ROOT / script).read_text(encoding="utf-8")
    assert f"results/{page.name}" in (ROOT / "docs/reliability.md").read_text(encoding="utf-8")


def test_the_ci_script_runs_the_readmes_command() -> None:
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    (pattern,) = re.findall(r"grep -E '([^']+)' README\.md", script)
    found = subprocess.run(
        ["grep", "-cE", pattern, str(ROOT / "README.md")], capture_output=True, text=True
    )
    assert found.stdout.strip() == "1"

"""The distribution: what is in it, what it needs, and that it works where there is nothing else."""

import ast
import importlib.metadata
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import time
import tomllib
import venv
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

import chomp

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
PAGE = SOURCE / "chomp/report/page"
CONFIGS = {"quickstart.yaml", "quickstart-tokenizer.json", "my-text.yaml", "megalodon-100m.yaml"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
OPTIONAL = {"datasets", "transformers", "pyarrow", "fsspec", "torch", "lm_eval", "tqdm"}
OPTIONAL |= {"wandb", "mlflow"}
"""Imported only where they are used."""
IF_THERE = {"pandas"}
"""Used where somebody has it; no extra brings it."""
WALK = ROOT / "docs" / "how-to" / "from-text-to-a-model.md"
COMMANDS = re.compile(r"^```bash\n(.*?)^```", re.DOTALL | re.MULTILINE)
LATE = ("chomp/export/huggingface/", "chomp/evaluation/lm_eval_model.py")
"""Modules that are imported only where what they need is there."""


def run(*command: object, cwd: Path, **environment: str) -> str:
    """Run a command without what this interpreter sees besides its own packages."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=clean | environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def build(project: Path, target: str, folder: Path) -> Path:
    pytest.importorskip("hatchling")
    paths = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    run(
        sys.executable, "-m", "hatchling", "build", "-t", target, "-d", folder, cwd=project, **paths
    )
    (built,) = folder.glob("*.whl" if target == "wheel" else "*.tar.gz")
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, "wheel", tmp_path_factory.mktemp("wheel"))


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as file:
        return {name for name in file.namelist() if ".dist-info/" not in name}


def test_the_wheel_holds_the_package_and_what_init_writes(wheel: Path):
    modules = {str(path.relative_to(SOURCE)) for path in SOURCE.rglob("*.py")}
    configs = {f"chomp/configs/{name}" for name in CONFIGS}
    page = {str(path.relative_to(SOURCE)) for path in PAGE.rglob("*.*")} | {
        "chomp/report/page/uplot/LICENSE"
    }
    assert names(wheel) == {*modules, *configs, *page, "chomp/py.typed"}
    with zipfile.ZipFile(wheel) as file:
        for name in CONFIGS:
            assert file.read(f"chomp/configs/{name}") == (ROOT / "configs" / name).read_bytes()


def test_a_source_distribution_makes_the_same_wheel(wheel: Path, tmp_path: Path):
    with tarfile.open(build(ROOT, "sdist", tmp_path / "sdist")) as archive:
        archive.extractall(tmp_path, filter="data")
    (project,) = tmp_path.glob(f"chomp-{chomp.__version__}")
    assert names(build(project, "wheel", tmp_path / "wheel")) == names(wheel)


def test_the_versions_agree():
    assert PROJECT["version"] == chomp.__version__
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    assert f"\nversion: {chomp.__version__}\n" in citation


def declared(requirements: list[str]) -> set[str]:
    # mlflow-skinny is the package mlflow without what a server needs.
    found = (re.match(r"[\w-]+?(?=-skinny)|[\w-]+", each) for each in requirements)
    return {match[0].lower().replace("-", "_") for match in found if match}


def imported_by(nodes: Iterable[ast.AST]) -> set[str]:
    """The packages that these statements import."""
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"chomp"}


def test_all_that_is_imported_is_declared():
    used = imported_by(
        node
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
    )
    owners = importlib.metadata.packages_distributions()
    needed = {owners[name][0].lower().replace("-", "_") for name in used - OPTIONAL - IF_THERE}
    core = declared(PROJECT["dependencies"])
    extras = PROJECT["optional-dependencies"]
    assert needed - core == set()
    assert not core & OPTIONAL
    bring = [
        each
        for name in ("hub", "parquet", "wandb", "mlflow", "export", "lm-eval")
        for each in extras[name]
    ]
    assert used & OPTIONAL <= declared(bring)


def test_what_is_optional_is_not_imported_at_the_top_of_a_module():
    for path in SOURCE.rglob("*.py"):
        name = path.relative_to(SOURCE).as_posix()
        optional = imported_by(ast.parse(path.read_text("utf-8")).body) & (OPTIONAL | IF_THERE)
        assert not optional or name.startswith(LATE), name


def test_importing_it_is_quick():
    code = "import time; a = time.perf_counter(); import chomp; print(time.perf_counter() - a)"
    paths = {"PYTHONPATH": str(SOURCE)}
    seconds = [float(run(sys.executable, "-c", code, cwd=ROOT, **paths)) for _ in range(5)]
    assert min(seconds) < 0.1


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of a new virtual environment that the wheel alone was installed in."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=True)
    begin = time.monotonic()
    run(folder / "bin/python", "-m", "pip", "install", "-q", wheel, cwd=folder)
    print(f"pip install: {time.monotonic() - begin:.0f} s")
    return folder / "bin"


@pytest.mark.slow
def test_an_installation_is_small(installed: Path):
    files = [path for path in (installed.parent / "lib").rglob("*") if path.is_file()]
    assert sum(path.lstat().st_size for path in files if not path.is_symlink()) < 1.0e9


@pytest.mark.slow
def test_a_first_run_where_nothing_else_is(installed: Path, tmp_path: Path):
    def program(*args: str) -> str:
        return run(installed / "chomp", *args, cwd=tmp_path)

    assert "train quickstart.yaml" in program("init", "quickstart")
    few = ("-o", "train.steps=3", "-o", "optim.warmup_steps=1", "-o", "train.generate_every=3")
    shown = program("train", "quickstart.yaml", *few, "--run-dir", "run")
    assert "finished   after step 3 of 3" in shown
    assert program("generate", "run", "--prompt", "def", "--max-tokens", "3")
    assert "problem" not in program("doctor", "quickstart.yaml")
    (tmp_path / "book.txt").write_text("A text that is long enough to be trained on. " * 3000)
    program("init", "my-text")
    assert "loss" in program("train", "my-text.yaml", "--dry-run")


@pytest.fixture(scope="module")
def walked(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What each command of the page has printed, in a folder of texts; under `cwd` the folder.

    The model is smaller than that of `chomp init`, so that it takes a minute.
    """
    here = tmp_path_factory.mktemp("walk")
    for name, pages in ("texts", "docs/how-to"), ("new-texts", "docs/results"):
        shutil.copytree(ROOT / pages, here / name)
    shutil.copy(ROOT / "README.md", here / "other.md")
    printed = {"cwd": str(here)}
    for line in "".join(COMMANDS.findall(WALK.read_text("utf-8"))).splitlines():
        begin = time.monotonic()
        printed[line] = run(installed / "chomp", *shlex.split(line)[1:], cwd=here)
        print(f"{time.monotonic() - begin:6.1f} s  {line}")
        if " init " in line:
            path = here / "texts" / "my-text.yaml"
            config = yaml.safe_load(path.read_text("utf-8"))
            config["variables"]["context"] = 128
            config["model"] |= {"model_dim": 64, "num_layers": 1, "z_dim": 32, "value_dim": 64}
            config["model"] |= {"ffn_hidden_dim": 96, "cema_ndim": 4, "chunk_size": 64}
            path.write_text(yaml.safe_dump(config), "utf-8")
    return printed


@pytest.mark.slow
def test_a_users_walk_from_texts_to_a_shared_model(walked: dict[str, str]):
    init, first, score, text, export, second, branch, cooldown = list(walked.values())[1:]
    assert "texts/my-text.yaml" in init
    losses = [float(loss) for loss in re.findall(r"^step.* loss ([\d.]+)", first, re.MULTILINE)]
    assert "finished   after step 600 of 600" in first and losses[-1] < losses[0] / 2
    bits = float(re.findall(r"^bits/byte +([\d.]+), [\d,]+ bytes", score, re.MULTILINE)[0])
    assert "step 200" in score and "1 document of other.md" in score and bits < 5
    assert text.startswith("The ")
    assert "step 200 of runs/first" in export
    card = Path(walked["cwd"], "models/first/README.md").read_text("utf-8")
    assert 'license: "cc-by-4.0"' in card and "| 200 |" in card
    assert "runs/first after step 200" in second
    # It knows more than a beginner.
    assert float(re.findall(r"^step .* loss ([\d.]+)", second, re.MULTILINE)[0]) < losses[0]
    assert "100 more, to 300" in branch
    assert "resumed    after step 200" in cooldown and "after step 300 of 300" in cooldown
    assert re.search(r"^rate .* at step 201 rather than .* at the last step, 300$", cooldown, re.M)


@pytest.mark.slow
@pytest.mark.torch
def test_pytorch_writes_the_same_text(walked: dict[str, str], tmp_path: Path):
    """In a Python without chomp's paths, as the page has it."""
    pytest.importorskip("torch", reason="needs the extra `export`")
    (code,) = re.findall(r"^```python\n(.*?)^```", WALK.read_text("utf-8"), re.DOTALL | re.M)
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    theirs = run(sys.executable, "-c", code, cwd=Path(walked["cwd"]), **offline)
    (ours,) = (text for line, text in walked.items() if line.startswith("chomp generate"))
    assert theirs == ours


@pytest.mark.slow
def test_what_needs_an_extra_says_so(installed: Path, tmp_path: Path):
    def refusal(*args: Any) -> str:
        command = [str(installed / "chomp"), *map(str, args)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 2
        return done.stderr

    run(installed / "chomp", "init", "100m", cwd=tmp_path)
    config = ("train", "megalodon-100m.yaml", "-o", "train.allow_cpu=true")
    assert refusal(*config) == (
        "error: data.backend: hf needs the package datasets: run pip install 'chomp[hub]'\n"
    )
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    assert "chomp[parquet]" in refusal("init", "my-text")
    assert not (tmp_path / "runs").exists()

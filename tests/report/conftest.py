import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import browser
import pytest

EARLIER = Path(__file__).parents[1] / "earlier_run" / "run.tar.xz"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Browser]:
    """A page of a real browser."""
    if browser.PROGRAM is None:
        pytest.skip("there is no Chromium: apt-get install chromium")
    with browser.Browser(tmp_path_factory.mktemp("profile")) as page:
        page.size(1400, 900)
        yield page


@pytest.fixture(scope="session")
def earlier_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of an earlier version: Muon, evaluations, samples. Not to be changed."""
    folder = tmp_path_factory.mktemp("earlier")
    with tarfile.open(EARLIER) as archive:
        archive.extractall(folder / "run", filter="data")
    return folder / "run"


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[..., Path]:
    """Copy a run folder, to be changed."""

    def copy(run: Path, name: str = "copy") -> Path:
        ignore = shutil.ignore_patterns("checkpoints")
        return Path(shutil.copytree(run, tmp_path / name, ignore=ignore))

    return copy


@pytest.fixture
def write(chomp: Any, tmp_path: Path) -> Callable[..., Path]:
    """Write the report of runs with `chomp report`, and return its file."""

    def written(*words: object) -> Path:
        done = chomp("report", *words, "-o", tmp_path / "page" / "report.html")
        assert done.code == 0, done.err
        return tmp_path / "page" / "report.html"

    return written

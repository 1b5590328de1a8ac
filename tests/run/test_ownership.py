import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from chomp.config import Config, config_from_mapping
from chomp.errors import ChompError, ConfigError, ResumeError
from chomp.run.ownership import check_asked_for, claim_outputs
from chomp.run_files import RUN_PLACES

KEYS = ("checkpoint.root_dir", "logging.metrics_file", "logging.log_file")


def config_of(**places: str) -> Config:
    sections: dict[str, Any] = {"checkpoint": {}, "logging": {}}
    for key, value in places.items():
        section = "checkpoint" if key == "root_dir" else "logging"
        sections[section][key] = value
    return config_from_mapping(sections)


@pytest.fixture
def take(tmp_path: Path) -> Iterator[Callable[..., list[str]]]:
    """Take the places of a run in the folder of this name, until the next one takes its own."""
    with ExitStack() as resources:

        def taking(name: str, run: str | None = None, new: bool = True, **places: str) -> list[str]:
            resources.close()
            folder = tmp_path / name
            folder.mkdir(exist_ok=True)
            if not (folder / "run.json").exists():
                (folder / "run.json").write_text(json.dumps({"run": run or f"id of {name}"}))
            config = config_of(**places)
            arguments = (folder, run or f"id of {name}", config, resources)
            return claim_outputs(*arguments, new=new, clean=new)

        yield taking


def lines(path: Path, count: int = 2) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f'{{"step": {number}}}\n' for number in range(count)))


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("through", ["relative", "absolute", "link", "up and down"])
def test_none_may_be_a_file_of_the_run_itself(take: Any, tmp_path: Path, key: str, through: str):
    _, name = key.split(".")
    for own in map(str, RUN_PLACES):
        (tmp_path / "run").mkdir(exist_ok=True)
        value = {
            "relative": own,
            "absolute": str(tmp_path / "run" / own),
            "link": "link",
            "up and down": f"../run/./{own}",
        }[through]
        if through == "link":
            (tmp_path / "run" / "link").unlink(missing_ok=True)
            (tmp_path / "run" / "link").symlink_to(own)
        with pytest.raises(ConfigError, match=rf"{key}: must be apart from the run's own {own}"):
            take("run", **{name: value})


def test_two_of_them_may_not_meet_through_a_link(take: Any, tmp_path: Path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "train.log").symlink_to("metrics.jsonl")
    with pytest.raises(ConfigError, match=r"log_file: must be apart from logging\.metrics_file"):
        take("run")


@pytest.mark.parametrize("beside", ["m.jsonl.tmp", "m.replaced.jsonl", "m.replaced.jsonl/sub"])
def test_none_may_be_what_is_written_beside_metrics(take: Any, tmp_path: Path, beside: str):
    for where in ("", f"{tmp_path}/"):
        match = r"log_file: must be apart from what logging\.metrics_file keeps beside itself"
        with pytest.raises(ConfigError, match=match):
            take("run", metrics_file=f"{where}m.jsonl", log_file=f"{tmp_path}/run/../{beside}")
            take("run", metrics_file=f"{where}m.jsonl", log_file=beside)


def test_a_planted_link_to_a_file_of_the_user_s_is_not_written_through(take: Any, tmp_path: Path):
    (tmp_path / "run").mkdir()
    profile = tmp_path / "profile"
    profile.write_text("export PATH\n")
    for name in ("train.log", "metrics.jsonl"):
        link = tmp_path / "run" / name
        link.symlink_to(profile)
        with pytest.raises(ResumeError, match="already holds what isn't this run's"):
            take("run", new=False)
        link.unlink()
    assert profile.read_text() == "export PATH\n"
    assert not list(tmp_path.glob("profile.*"))


@pytest.mark.parametrize("name", ["metrics_file", "log_file", "root_dir"])
def test_what_another_run_writes_to_is_its_own(take: Any, tmp_path: Path, name: str):
    place = tmp_path / "elsewhere" / "there"
    take("one", **{name: str(place)})
    lines(place / "4" / "run.json" if name == "root_dir" else place)
    if name == "log_file":
        place.write_text("2026-11-26 19:17:32,968 WARNING chomp: first\n")
    for new in (True, False):
        with pytest.raises(ResumeError, match=r"belongs to the run in .*/one"):
            take("two", new=new, **{name: str(place)})
    take("one", new=False, **{name: str(place)})
    # The same run, whose run.json was lost; then in a folder of another name.
    take("one", run="anew", new=False, **{name: str(place)})
    (tmp_path / "one" / "run.json").write_text('{"run": "anew"}')
    (tmp_path / "one").rename(tmp_path / "moved")
    take("moved", run="anew", new=False, **{name: str(place)})
    shutil.copytree(tmp_path / "moved", tmp_path / "copy")
    with pytest.raises(ResumeError, match="a copy"):
        take("copy", run="anew", new=False, **{name: str(place)})
    # With what is there copied as well, it is the copy's own.
    for path in place.parent.iterdir():
        copy = shutil.copytree if path.is_dir() else shutil.copy
        copy(path, tmp_path / path.name)
    take("copy", run="anew", new=False, **{name: str(tmp_path / "there")})


@pytest.mark.parametrize("name", ["metrics_file", "log_file", "root_dir"])
@pytest.mark.parametrize("text", ["mine\n", '{"mine": 1}\n', '{"step": 1}\n'])
def test_what_the_user_has_there_is_the_user_s(take: Any, tmp_path: Path, name: str, text: str):
    place = tmp_path / "home" / "notes"
    content = place / "2024" / "a" if name == "root_dir" else place
    content.parent.mkdir(parents=True)
    content.write_text(text)
    with pytest.raises(ResumeError, match="already holds"):
        take("run", **{name: str(place)})
    if name == "log_file" or (name == "metrics_file" and "step" not in text):
        with pytest.raises(ResumeError, match="already holds"):
            take("run", new=False, **{name: str(place)})
    assert content.read_text() == text


@pytest.mark.parametrize("name", ["metrics.jsonl", "train.log"])
def test_in_a_folder_of_the_user_s_own(take: Any, tmp_path: Path, name: str):
    lines(tmp_path / "run" / name)
    with pytest.raises(ResumeError, match=f"{name} is there already"):
        take("run")


def test_an_unmarked_folder_of_an_earlier_version_is_taken(take: Any, tmp_path: Path):
    lines(tmp_path / "far" / "5" / "run.json")
    take("run", new=False, root_dir=str(tmp_path / "far"))
    with pytest.raises(ResumeError, match="belongs to the run in"):
        take("other", new=False, root_dir=str(tmp_path / "far"))


def test_one_run_at_a_time_writes_to_a_folder(tmp_path: Path):
    (tmp_path / "run").mkdir()
    config = config_of(root_dir=str(tmp_path / "far"))
    with ExitStack() as resources:
        arguments = (tmp_path / "run", "id", config, resources)
        assert claim_outputs(*arguments, new=True, clean=True) == []
        os.unlink(tmp_path / "far" / "chomp-run.lock")
        with pytest.raises(ResumeError, match="another run is writing"):
            claim_outputs(*arguments, new=False, clean=False)


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "null", '{"run": 1}', "[" * 200_000, "\0"])
def test_a_broken_mark_is_said(take: Any, tmp_path: Path, text: str):
    far = tmp_path / "far"
    take("run", root_dir=str(far))
    (far / "chomp-run.json").write_text(text)
    with pytest.raises(ResumeError, match=r"chomp-run\.json, which says whose .* can't be read"):
        take("run", new=False, root_dir=str(far))


@pytest.mark.parametrize("value", ["/dev/null", "/dev/stderr"])
def test_a_log_that_is_no_file(take: Any, value: str):
    take("run", log_file=value)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("value", ["x" * 4000, "x/" * 2500, "a\0b", "\udce9", "\ud800"])
def test_paths_that_can_not_be(take: Any, key: str, value: str):
    with pytest.raises(ChompError, match=key):
        take("run", **{key.split(".")[1]: value})


@pytest.mark.parametrize("key", [*KEYS, "train.profile_dir"])
@pytest.mark.parametrize("through", ["absolute", "up", "link"])
def test_a_run_folder_alone_makes_nothing_outside_of_itself(tmp_path: Path, key: str, through: str):
    section, name = key.split(".")
    folder, outside = tmp_path / "run", tmp_path / "other" / "new"
    folder.mkdir()
    (folder / "link").symlink_to(outside)
    value = {"absolute": str(outside), "up": "../other/new", "link": "link"}[through]
    sections: dict[str, Any] = {"train": {"profile": True}} | {section: {name: value}}
    sections["train"] = {"profile": True} | sections["train"]
    config = config_from_mapping(sections)
    for given in ([], ["train.steps", "logging.level", "train.profile"]):
        with pytest.raises(ResumeError, match=rf"{key}: .*{outside}, outside.*-o {key}={value}$"):
            check_asked_for(folder, config, given)
    for given in ([key], [section], None):
        check_asked_for(folder, config, given)
    # What is there has been made by the run, or is refused as another's.
    if name == "profile_dir":
        (outside / "plugins").mkdir(parents=True)
    else:
        with ExitStack() as resources:
            claim_outputs(folder, "run", config, resources, new=True, clean=True)
    check_asked_for(folder, config, [])


def test_devices_and_what_is_inside_of_the_folder_need_no_word(tmp_path: Path):
    (tmp_path / "loop").symlink_to("loop")
    for value in ("/dev/null", "logs/a.log", "x/../a.log", str(tmp_path / "loop"), "a\0b"):
        check_asked_for(tmp_path, config_of(log_file=value), [])


@pytest.mark.parametrize("path", ["/dev/stdout", "/dev/stderr", "/dev/fd/2", "/proc/self/fd/1"])
def test_a_standard_stream_is_nobodys_and_only_for_the_log(take: Any, tmp_path: Path, path: str):
    for name in ("one", "two"):
        assert take(name, log_file=path) == []
        check_asked_for(tmp_path / name, config_of(log_file=path), [])
    with pytest.raises(ConfigError, match=rf"logging.metrics_file: must be a file \(got '{path}'"):
        take("three", metrics_file=path)
    with pytest.raises(ConfigError, match=rf"checkpoint.root_dir: must be a folder \(got '{path}'"):
        take("four", root_dir=path)

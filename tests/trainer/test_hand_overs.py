"""How many files a request passes through between the loop and the work that it asks for."""

import sys
import threading
import traceback
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import chomp
from chomp import generation
from chomp.checkpoint.checkpointer import Checkpointer
from chomp.trainer import loop

SOURCE = Path(chomp.__file__).parent
LOOP = Path(loop.__file__)


def files_of(frame: FrameType) -> list[Path]:
    """Files of chomp on a stack, the outermost first, each once."""
    found = (Path(entry.filename) for entry in traceback.extract_stack(frame))
    return list(dict.fromkeys(path for path in found if path.is_relative_to(SOURCE)))


def hand_overs() -> list[str]:
    """The files from the loop to the work, a worker thread's included."""
    here = threading.get_ident()
    stacks = [sys._getframe(2)]
    if here != threading.main_thread().ident:
        stacks.insert(0, sys._current_frames()[threading.main_thread().ident or 0])
    files = list(dict.fromkeys(path for frame in stacks for path in files_of(frame)))
    return [path.name for path in files[files.index(LOOP) + 1 :]]


def test_a_save_and_a_sample_pass_through_few_files(
    chomp: Any, config_file: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    found: dict[str, list[str]] = {}
    save = Checkpointer.save

    def noted_save(*args: Any) -> None:
        found["save"] = hand_overs()
        save(*args)

    make = generation.SampleMaker.__call__

    def noted_sample(*args: Any) -> Any:
        found["sample"] = hand_overs()
        return make(*args)

    monkeypatch.setattr(Checkpointer, "save", noted_save)
    monkeypatch.setattr(generation.SampleMaker, "__call__", noted_sample)
    config = config_file("megalodon", train={"generate_every": 2, "generate_max_tokens": 2})
    assert chomp("train", config, "--run-dir", tmp_path / "run").code == 0
    assert found["save"] == ["runner.py", "checkpoint.py"]
    assert len(found["sample"]) <= 4, found

"""The notebook of `examples/`, run from its first cell to its last as Jupyter does."""

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

import chomp

nbformat = pytest.importorskip("nbformat", reason="needs the extra `test`")
nbclient = pytest.importorskip("nbclient", reason="needs the extra `test`")

NOTEBOOK = Path(__file__).parents[1] / "examples" / "from-python.ipynb"


def printed(cell: Any) -> str:
    """What a cell has shown: its prints, and its last value."""
    return "".join(out.get("text") or out.data["text/plain"] for out in cell.outputs)


def test_it_runs(small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # The kernel is of this Python, whatever kernels its user has, and writes nothing at home.
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    shutil.copytree(small_run, tmp_path / "runs" / "quickstart")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    here = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=120, resources=here).execute()
    shown = [printed(cell) for cell in notebook.cells if cell.cell_type == "code"]
    first = chomp.open_run(small_run)
    assert f"step {first.step}, model width 32" in shown[0]
    assert first.generate("def main(", max_tokens=40, temperature=0.7, seed=1) in shown[2]
    assert shown[3].count("\n") == 3
    assert "finished   after step 20 of 20" in shown[4]
    assert "weights    of " in shown[4]
    second = chomp.open_run(tmp_path / "runs" / "from-quickstart").metrics()
    assert second["step"].tolist() == [5, 10, 15, 20] and (second["weight_norm"] > 1).all()
    (score,) = first.score(["import os\nimport sys\n"])
    assert f"first   {score.bits_per_byte:.3f} bits" in shown[6]


def test_it_is_kept_without_outputs():
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        assert not cell.get("outputs") and cell.get("execution_count") is None

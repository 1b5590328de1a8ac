"""A run's model, written to a new folder for other programs."""

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from chomp.commands.saved_model import SavedModel, model_of, open_run_config, restore_model
from chomp.errors import DiskError, ExportError
from chomp.export.comparison import compare, make_sample
from chomp.export.hf_folder import write_hf
from chomp.export.library_files import (
    check_equal,
    read_jax,
    read_upstream,
    write_jax,
    write_upstream,
)
from chomp.export.model_card import Facts, check_license, model_card
from chomp.export.push import check_name, push
from chomp.export.tokenizer_files import PROBES, difference, write_tokenizer
from chomp.export.weights import in_dtypes
from chomp.models.megalodon.model import Megalodon
from chomp.run.record import read_record
from chomp.run.run_folder import RunFolder
from chomp.system.atomic_file import remedy, sync_folder
from chomp.system.console import Console
from chomp.system.extras import is_importable
from chomp.system.json_text import parse_json

INSTALL = "pip install 'chomp[export]'"
NOT_COMPARED = f"not compared with PyTorch, which isn't installed ({INSTALL})"


@dataclass(frozen=True)
class ExportRequest:
    """A request for an export.

    Attributes:
        run_dir: folder of the run.
        step: `latest` or a saved step.
        out: the new folder.
        format: `hf`, `jax` or `upstream`.
        dtype: number format of matrices: `float32` or `bfloat16`.
        repository: to push to, on the Hugging Face Hub; None: nowhere.
        license_id: of the model, as the Hub names it; None: the card says that none was given.
        trust_remote_code: run the Python code that comes with the run's tokenizer.
        ema: take the average of the parameters instead of the newest ones.
    """

    run_dir: Path
    step: str
    out: Path
    format: str
    dtype: str
    repository: str | None = None
    license_id: str | None = None
    trust_remote_code: bool = False
    ema: bool = False


def export_run(request: ExportRequest, console: Console) -> Iterator[str]:
    """Write a run's model and yield lines about it; `console` shows warnings.

    Raises:
        ResumeError: the folder holds no run, or no such checkpoint that is good.
        ExportError: it can't be exported so, or what was written isn't the model.
        DiskError: the folder can't be written.
        NetworkError: it can't be pushed.
    """
    folder = RunFolder(request.run_dir)
    config = open_run_config(folder, request.trust_remote_code, console)
    if not isinstance(model_of(config), Megalodon):
        raise ExportError(
            f"{request.run_dir}: the {config.model.backend} model can't be exported; "
            "only model.backend megalodon can"
        )
    has_torch = is_importable("torch") and is_importable("transformers")
    if request.format == "upstream" and not has_torch:
        raise ExportError(f"--format upstream: needs PyTorch, which writes its file: {INSTALL}")
    if request.repository is not None:
        check_name(request.repository)
    if request.license_id is not None:
        check_license(request.license_id)
    with _new_folder(request.out) as draft:
        saved = restore_model(config, folder, request.step, console, ema=request.ema)
        averaged = ", averaged parameters" if saved.ema else ""
        yield f"model      step {saved.step:,} of {request.run_dir}{averaged}"
        # Before there is a configuration of a model, which transformers would want to run code for.
        if differing := _write_tokenizer(saved, draft):
            console.warn(f"the tokenizer in {request.out} {differing}")
        found = _write(request, saved, draft, has_torch)
        _write_card(request, folder, saved, draft, found)
    yield f"checked    {found}"
    yield f"written    {request.out}"
    if request.repository is not None:
        yield f"pushed     {push(request.out, request.repository)}"


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """Yield a folder that becomes `out` when all went well; else nothing is left of it.

    Raises:
        ExportError: `out` is there, and isn't an empty folder.
        DiskError: it can't be written.
    """
    if os.path.lexists(out) and not (out.is_dir() and not any(out.iterdir())):
        raise ExportError(f"{out} is there already and isn't an empty folder; give a new one")
    draft = out.absolute().with_name(f".{out.absolute().name}.{secrets.token_hex(4)}.tmp")
    try:
        draft.mkdir(parents=True)
        yield draft
        for path in filter(Path.is_file, draft.rglob("*")):
            with path.open("rb") as file:
                os.fsync(file.fileno())
        sync_folder(draft)
        draft.rename(out)
        sync_folder(draft.parent)
    except OSError as error:
        raise DiskError(
            f"{out} can't be written ({error.strerror or error}); {remedy(error)}, or give another "
            "folder"
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _write(request: ExportRequest, saved: SavedModel, draft: Path, has_torch: bool) -> str:
    """Write the weights, and return what the comparison with the original found."""
    model = in_dtypes(saved.params, request.dtype, saved.config.model.compute_dtype)
    if request.format == "jax":
        write_jax(model, draft)
        return check_equal(model, read_jax(draft, model))
    if request.format == "upstream":
        write_upstream(model, draft)
        return check_equal(model, read_upstream(draft, model))
    model = in_dtypes(saved.params, request.dtype, request.dtype)
    write_hf(model, saved.tokenizer, draft)
    if not has_torch:
        return NOT_COMPARED
    return compare(model, draft, make_sample(model, saved.tokenizer.encode_prompt(PROBES[0][:8])))


def _write_tokenizer(saved: SavedModel, draft: Path) -> str | None:
    """Write the tokenizer; return what differs from chomp's, if anything, or that nobody knows."""
    section = saved.config.data.tokenizer
    write_tokenizer(saved.tokenizer, draft, add_bos=section.add_bos)
    if not is_importable("transformers"):
        return f"isn't compared with chomp's: that needs the package transformers ({INSTALL})"
    trusted = section.hf_trust_remote_code
    return difference(saved.tokenizer, draft, trust_remote_code=trusted)


def _write_card(
    request: ExportRequest, folder: RunFolder, saved: SavedModel, draft: Path, checked: str
) -> None:
    values = json.dumps(folder.read_resolved(), indent=2) + "\n"
    (draft / "chomp_config.json").write_text(values, encoding="utf-8")
    rows = _rows_up_to(saved.step, folder.inside(saved.config.logging.metrics_file))
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (draft / "metrics.jsonl").write_text(lines, encoding="utf-8")
    ema = saved.config.train.ema
    facts = Facts(
        name=request.repository or request.out.absolute().name,
        format=request.format,
        dtype=request.dtype + (f", averaged (train.ema: {ema})" if saved.ema else ""),
        config=saved.config,
        progress=saved.checkpoints.restore_run(saved.step).progress,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(saved.params)),
        rows=[*map(_evaluated_averages, rows)] if saved.ema else rows,
        versions=_versions(folder),
        checked=checked,
    )
    (draft / "README.md").write_text(model_card(facts, request.license_id), encoding="utf-8")


def _rows_up_to(step: int, path: Path) -> list[dict[str, Any]]:
    """Return the metrics of a run up to a step; none where they are gone."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    rows = []
    for line in lines:
        try:
            row = parse_json(line)
        except ValueError:  # cut short by a crash
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int) and row["step"] <= step:
            rows.append(row)
    return rows


def _evaluated_averages(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of metrics whose evaluation is the average's; without one where it has none."""
    names = ("eval_loss", "eval_bits_per_byte")
    return row | {name: row.get(f"ema_{name}") for name in names}


def _versions(folder: RunFolder) -> dict[str, str]:
    """Return the versions that the run's newest start had; none if its record is gone."""
    try:
        record = read_record(folder.record)
    except ValueError:
        record = None
    if record is None or not record.starts:
        return {}
    newest = record.starts[-1]
    return {"Python": newest.python, **newest.versions}

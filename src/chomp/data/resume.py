"""The position to go on from when the data has changed since its position was saved."""

from collections.abc import Callable, Collection
from typing import Any

from chomp.errors import DataError

State = dict[str, Any]

CORPUS_KEYS = {
    "data.backend",
    "data.files",
    "data.hf_dataset",
    "data.hf_name",
    "data.hf_split",
    "data.local_text",
    "data.builtin",
    "data.tokens_dir",
}
"""Keys that name a corpus. One of them alone may be a new name of the same."""
DOCUMENT_KEYS = {"data.text_key", "data.document_separator", "data.shuffle", "data.seed"}
"""Keys that decide which documents come in which order."""
WINDOW_KEYS = {
    "data.shuffle_buffer_size",
    "data.eval_seed",
    "data.shuffle_buffer_bytes",
    "data.max_eval_samples",
    "data.eval_files",
    "data.hf_eval_split",
    "train.eval_every",
}
"""Keys that decide which documents a window of shuffling holds."""
ROW_KEYS = {
    "data.tokens",
    "data.tokenizer.max_doc_tokens",
    "data.packing_mode",
    "data.packing_buffer_docs",
    "data.packing_max_docs_per_bin",
}
"""Keys that decide how documents fill rows."""
CONTENT = "data.content."
EVALUATION = CONTENT + "evaluation "


def misfit(what: str) -> DataError:
    """Return the error for a saved place that the documents don't have."""
    return DataError(
        f"the saved place in the data isn't in it: {what}; put the data back as it was, or start "
        "it from its beginning with --allow-change data"
    )


def check_place(start: int, rows: int) -> None:
    """Check that a saved place isn't beyond a file's end. Raises DataError."""
    if start > rows:
        raise misfit(f"row {start} of a file or shard of {rows} rows")


def place_after_changes(
    state: State, start: State, changed: Collection[str], allowed: Collection[str], *, bins: bool
) -> tuple[State, str]:
    """Return the state to go on from, and a message about it (empty: it is the saved one).

    A changed content is taken for the same corpus, mended, if only `data.content` may change;
    else for another one, which is read from its beginning.

    Args:
        state: the saved one.
        start: the state at the beginning of the data as it is now.
        changed: dotted keys of settings and fingerprints that differ.
        allowed: what the user allows to change.
        bins: whether rows are packed by best fit.
    """
    if _is_mixture(start):
        return _place_in_mixture(state, start, changed, allowed, bins=bins)
    if _is_mixture(state):
        return start, "one source instead of several: it is read from its beginning"
    content = [key for key in changed if key.startswith(CONTENT) and not key.startswith(EVALUATION)]
    named = CORPUS_KEYS & set(changed)
    if content and (named or "data" in allowed):
        return start, "other data than at the checkpoint: it is read from its beginning"
    if found := DOCUMENT_KEYS & set(changed):
        return start, f"other documents or order ({_list(found)}): read from the beginning"
    if found := WINDOW_KEYS & set(changed):
        return _each_lane(state, _at_window), (
            f"other documents together ({_list(found)}): those of the window that the checkpoint "
            "was in come again"
        )
    rows = ROW_KEYS | ({"train.seq_len"} if bins else set())
    if found := rows & set(changed):
        return _each_lane(state, _at_documents), (
            f"other rows ({_list(found)}): the documents that were being packed come again"
        )
    return state, ""


def _is_mixture(state: State) -> bool:
    return any("sources" in lane for lane in state["train"]["lanes"] if lane)


def _place_in_mixture(
    state: State, start: State, changed: Collection[str], allowed: Collection[str], *, bins: bool
) -> tuple[State, str]:
    """Do as `place_after_changes` for each source, with the keys that are its own or all sources'.

    A source that the saved run didn't have is read from its beginning.
    """
    if not _is_mixture(state):
        return start, "several sources instead of one: they are read from their beginnings"
    lanes = state["train"]["lanes"]
    known = set(next(lane for lane in lanes if lane)["sources"])
    names = list(next(lane for lane in start["train"]["lanes"] if lane)["sources"])
    placed, notes, again = {}, [], set()
    for name in names:
        first = _of_source(start, name)
        if name not in known:
            placed[name], note = first, "a new source: it is read from its beginning"
        else:
            own = [key for key in (_own_key(key, name) for key in changed) if key]
            placed[name], note = place_after_changes(
                _of_source(state, name), first, own, allowed, bins=bins
            )
        if note:
            notes.append(f"{name}: {note}")
            again.add(name)
    mixed = [
        lane
        and {
            **lane,
            "ended": [name for name in lane.get("ended", ()) if name not in again],
            "sources": {name: placed[name]["train"]["lanes"][number] for name in names},
        }
        for number, lane in enumerate(lanes)
    ]
    return {**state, "train": {**state["train"], "lanes": mixed}}, "; ".join(notes)


def _of_source(state: State, name: str) -> State:
    """Return the state that a source would have alone."""
    return {
        "train": {"lanes": [lane and lane["sources"][name] for lane in state["train"]["lanes"]]}
    }


def _own_key(key: str, name: str) -> str | None:
    """Return a changed key as it would be called if a source were alone; None: it is another's."""
    if key.startswith("data.sources."):
        own = key.removeprefix(f"data.sources.{name}.")
        return None if own == key or own == "weight" else f"data.{own}"
    if key.startswith((f"{CONTENT}source ", f"{CONTENT}evaluation ")):
        for kind in ("source ", "evaluation "):
            if key.startswith(f"{CONTENT}{kind}{name} "):
                rest = key.removeprefix(f"{CONTENT}{kind}{name} ")
                return CONTENT + (rest if kind == "source " else kind + rest)
        return None
    return key


def _list(keys: Collection[str]) -> str:
    return ", ".join(sorted(keys))


def _each_lane(state: State, change: Callable[[State], State]) -> State:
    lanes = [lane and change(lane) for lane in state["train"]["lanes"]]
    return {**state, "train": {**state["train"], "lanes": lanes}}


def _at_documents(lane: State) -> State:
    return {"parent": lane["parent"]}


def _at_window(lane: State) -> State:
    parent = lane["parent"]
    return {"parent": {**parent, "place": 0} if "place" in parent else parent}

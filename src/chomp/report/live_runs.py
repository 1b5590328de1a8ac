"""The runs that a live page shows: all of each once, and then what is new of it."""

import hashlib
import json
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from chomp.errors import ChompError, ResumeError
from chomp.report.run_view import RunView
from chomp.report.write import names_of
from chomp.run.run_folder import RunFolder
from chomp.run_files import UNFINISHED_BRANCH

AT_FIRST = 6
"""Runs of a folder, the newest, that are shown where none is named."""
FRESH = 1.5
"""Seconds for which what was read of a run besides its rows counts as new."""
KEPT = 30
"""Versions of that which are remembered, to send only what differs from one of them."""

Facts = dict[str, Any]


class LiveRun:
    """A run, and what was told of it."""

    def __init__(self, path: Path, name: str):
        self.view = RunView(path, name)
        self._told: OrderedDict[str, Facts] = OrderedDict()
        self._read = 0.0
        self._newest()

    def everything(self) -> dict[str, Any]:
        """Return all that a page shows of it."""
        self.view.refresh()
        version, facts = self._newest()
        curves, samples = self.view.curves(), self.view.samples()
        return {"facts": facts, "version": version, "curves": curves, "samples": samples}

    def since(self, have: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a page lacks that has `generation`, `rows`, `samples` and `version`."""
        self.view.refresh()
        news, metrics, samples = {}, self.view.metrics, self.view.samples()
        rows = have["rows"] if have["generation"] == metrics.generation else -1
        if not 0 <= rows <= metrics.rows:
            news["curves"] = self.view.curves()
        elif rows < metrics.rows:
            news["curves"] = self.view.curves(rows)
        if samples["all"] != have["samples"]:
            there = len(samples["samples"]) == samples["all"] > have["samples"] >= 0
            new = {"new": samples["samples"][have["samples"] :]} if there else samples
            news["samples"] = {"all": samples["all"]} | new
        version, facts = self._newest()
        if version != have["version"]:
            before = self._told.get(have["version"], {})
            news["facts"] = {k: v for k, v in facts.items() if k not in before or before[k] != v}
            news["version"] = version
        return news

    def _newest(self) -> tuple[str, Facts]:
        if time.monotonic() - self._read > FRESH:
            facts = self.view.facts()
            text = json.dumps(facts, sort_keys=True)
            self._told[hashlib.sha256(text.encode()).hexdigest()[:16]] = facts
            self._read = time.monotonic()
            while len(self._told) > KEPT:
                self._told.popitem(last=False)
        return next(reversed(self._told.items()))


class LiveRuns:
    """All runs below a folder, or one. Its methods may be called from any thread.

    Args:
        path: a run folder, or one that holds run folders.

    Raises:
        ResumeError: there is no run.
    """

    def __init__(self, path: Path):
        self.path = path
        self._lock, self._open = threading.Lock(), dict[str, LiveRun]()
        if not self.folders():
            if path.is_dir():
                raise ResumeError(
                    f"{path} holds no run, nor folders of runs; give a run, or the folder that "
                    "runs are in"
                )
            RunFolder(path).require_run()

    def folders(self) -> dict[str, Path]:
        """Return the run folders by name, the newest first."""
        if RunFolder(self.path).holds_run():
            return {names_of([self.path])[0]: self.path}
        try:
            found = [
                path
                for path in self.path.iterdir()
                if RunFolder(path).holds_run() and not path.name.startswith(UNFINISHED_BRANCH)
            ]
        except OSError:
            return {}
        return {path.name: path for path in sorted(found, key=_newest_change, reverse=True)}

    def page(self, names: Sequence[str]) -> dict[str, Any]:
        """Return the data of a page of these runs; of the newest ones without a name.

        Raises:
            ResumeError: there is no such run, or it can't be read.
        """
        folders = self.folders()
        wanted = list(dict.fromkeys(names)) or list(folders)[:AT_FIRST]
        runs, problem = [], None
        with self._lock:
            for name in wanted:
                try:
                    runs.append(self._run(name, folders).everything())
                except ChompError as error:  # of several one may be gone, or not ours to read
                    problem = error
        if problem and (names or not runs):
            raise problem
        others = [name for name in folders if name not in wanted]
        return {"made": time.time(), "live": True, "runs": runs, "others": others}

    def changes(self, have: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return what is new of runs, by what a page has of them; nothing for those without news.

        Raises:
            ResumeError: there is no such run.
        """
        folders, found = self.folders(), []
        with self._lock:
            for each in have:
                try:
                    news = self._run(each["name"], folders).since(each)
                except ChompError as error:
                    news = {"problem": str(error)}
                if news:
                    found.append({"name": each["name"], **news})
        return found

    def others(self, names: Collection[str], known: int) -> list[str] | None:
        """Return the names of all runs but some; None where there are as many as a page knows.

        Args:
            names: of the runs to leave out.
            known: runs that the page knows, these included.
        """
        folders = self.folders()
        return None if len(folders) == known else [name for name in folders if name not in names]

    def view(self, name: str) -> RunView:
        """Return a run.

        Raises:
            ResumeError: there is no such run.
        """
        with self._lock:
            return self._run(name, self.folders()).view

    def _run(self, name: str, folders: Mapping[str, Path]) -> LiveRun:
        if name not in folders:
            raise ResumeError(f"{self.path} holds no run {name} now")
        if name not in self._open:
            self._open[name] = LiveRun(folders[name], name)
        return self._open[name]


def _newest_change(folder: Path) -> float:
    times = [0.0]
    for name in ("heartbeat", "run.json"):
        try:
            times.append(os.stat(folder / name).st_mtime)
        except OSError:
            continue
    return max(times)

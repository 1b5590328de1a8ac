"""Hugging Face datasets, streamed: `datasets` finds the files of a split, we read them.

Its own stream can't say where it is (shuffle buffers aren't in its state) and turns mixed types
into quoted JSON. Parquet and JSON lines, local and on the hub, are read by `formats` from an exact
row on; other kinds of dataset go through `load_dataset(streaming=True)`, one shard at a time.
"""

import atexit
import glob
import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from chomp.data.sources.fingerprint import Fingerprint
from chomp.data.sources.formats import LINES_SUFFIXES, read_file, value_row
from chomp.data.sources.http_file import HttpFile
from chomp.data.sources.hub import ask_hub, hub_errors
from chomp.data.sources.local import Corpus, local_files
from chomp.data.sources.patterns import FoundFile
from chomp.data.sources.read_policy import ReadPolicy
from chomp.data.sources.retrying_file import BUFFER_BYTES, RetryingFile
from chomp.data.sources.rows import BrokenFileError, Row
from chomp.data.sources.saved_dataset import find_saved_split, is_saved_dataset
from chomp.errors import DataError
from chomp.system.extras import require_package


class NoSplitError(DataError):
    """A dataset has no such split."""


READABLE = (*LINES_SUFFIXES, ".parquet")


@dataclass(frozen=True)
class RemoteShard:
    """A Parquet or JSON lines file at an fsspec URL.

    Those on the hub or at HTTP URLs are read by `HttpFile`: the libraries' own files repeat
    requests out of our sight, for minutes if a server asks for it, and take any bytes that come.
    """

    name: str
    reading: ReadPolicy
    transient: tuple[type[BaseException], ...]
    versions: dict[str, tuple[int, str]] = field(default_factory=dict)
    """The file's length and tag, kept from one epoch to the next."""

    def rows(self, start: int) -> Iterator[tuple[int, Row]]:
        """Yield its rows from `start` on."""
        raw = RetryingFile(self._open(), self.name, self.transient, self.reading)
        with io.BufferedReader(raw, BUFFER_BYTES) as file:
            yield from read_file(file, self.name, start, self.reading.text_key)

    def _open(self) -> Callable[[], Any]:
        """Return what opens the file, each time that reading it has failed."""
        import fsspec

        if self.name.startswith(("hf://", "http://", "https://")):
            file = HttpFile(self.name, self._locate, self.versions, self.reading)
            return lambda: file

        def open_file() -> Any:
            filesystem, path = fsspec.url_to_fs(self.name)
            return filesystem.open(path, "rb")

        return open_file

    def _locate(self) -> tuple[str, dict[str, str]]:
        if not self.name.startswith("hf://"):
            return self.name, {}
        from huggingface_hub import HfFileSystem
        from huggingface_hub.utils import build_hf_headers

        hub = HfFileSystem()
        url = hub.url(self.name)
        self.versions.setdefault(url, (hub.info(self.name)["size"], ""))
        return url, build_hf_headers()


class StreamShard(NamedTuple):
    """A shard of a `datasets.IterableDataset`."""

    name: str
    text_key: str
    transient: tuple[type[BaseException], ...]
    dataset: Any

    def rows(self, start: int) -> Iterator[tuple[int, Row]]:
        """Yield its rows from `start` on."""
        import pyarrow as pa
        from datasets.exceptions import DatasetsError

        row = start
        try:
            for row, example in enumerate(self.dataset.skip(start), start):
                if self.text_key in example:
                    yield row, value_row(example[self.text_key], f"{self.name}, row {row} (from 0)")
                else:
                    yield row, Row(columns=tuple(example))
        except (DatasetsError, pa.ArrowException, UnicodeDecodeError) as error:
            if (failed := _failed_read(error, self.transient)) is not None:
                raise failed from error
            raise BrokenFileError(f"{self.name}: broken at row {row}: {error}") from error


def _failed_read(
    error: BaseException, transient: tuple[type[BaseException], ...]
) -> BaseException | None:
    """Return the error of reading that another one tells of: then no content is broken."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno is not None:
            return cause
        if transient and isinstance(cause, transient) and type(cause) is not OSError:
            return cause
        cause = cause.__cause__ or cause.__context__
    return None


class DatasetName(NamedTuple):
    """Which dataset, and of which version."""

    path: str
    """Hub name or folder."""
    subset: str | None = None
    """Its configuration; None for its default."""
    revision: str | None = None
    """Commit, branch or tag on the hub; None for the newest commit."""

    def expanded(self) -> "DatasetName":
        """Return it with the home folder that `~` stands for."""
        return self._replace(path=os.path.expanduser(self.path))


def open_dataset(key: str, dataset: DatasetName, split: str, reading: ReadPolicy) -> Corpus:
    """Open a split of a dataset.

    Args:
        key: the config key of the split, for messages.
        dataset: which.
        split: the split's name.
        reading: how its files are read.

    Raises DataError if there is no such dataset, configuration, revision or split, or no network.
    """
    dataset = dataset.expanded()
    path = dataset.path
    local = os.path.isdir(path)
    if local and dataset.revision is not None:
        raise DataError(
            f"data.hf_revision: {path!r} is a folder, and only datasets on the hub have revisions "
            f"(got {dataset.revision!r}); leave it out"
        )
    if local and is_saved_dataset(path):
        return _open_saved(key, path, split, reading)
    require_package("datasets", f"{key}: {path!r}")
    if not local and (os.path.isabs(path) or path.startswith(".")):
        raise DataError(f"data.hf_dataset: there is no folder {path!r}")
    named = _without_magic(path) if local else path
    dataset = dataset._replace(path=named)
    builder = _builder(dataset, None if local else reading)
    files = builder.config.data_files or {}
    identity: Fingerprint = {"dataset": os.path.basename(os.path.normpath(path)) if local else path}
    identity |= {"name": builder.config.name, "split": split}
    transient = () if local else hub_errors()
    if split in files and _readable(builder, files[split]):
        paths = [_instead(str(file), named, path) for file in files[split]]
        if all(os.path.exists(file) for file in paths):
            corpus = local_files([FoundFile(file, reading.text_key) for file in paths])
            return corpus._replace(fingerprint=identity | corpus.fingerprint)
        revision = ", ".join(sorted({"@".join(map(str, m)) for m in files[split].origin_metadata}))
        shards = [RemoteShard(file, reading, transient or hub_errors()) for file in paths]
        return Corpus(shards, identity | {"files": len(paths), "revision": revision})
    splits = list(files) or list(builder.info.splits or {})
    if splits and split not in splits:
        raise _no_split(key, path, split, splits)
    return _streamed(dataset, split, reading, identity, transient)


def _open_saved(key: str, path: str, split: str, reading: ReadPolicy) -> Corpus:
    found = find_saved_split(path, split)
    if split not in found.splits:
        raise _no_split(key, path, split, found.splits)
    corpus = local_files([FoundFile(file, reading.text_key) for file in found.files])
    identity = {"dataset": os.path.basename(os.path.normpath(path)), "split": split}
    return corpus._replace(fingerprint=identity | corpus.fingerprint)


def _no_split(key: str, path: str, split: str, splits: Iterable[object]) -> NoSplitError:
    return NoSplitError(
        f"{key}: {path!r} has no split {split!r}; there are: {', '.join(map(str, splits))}"
    )


def _without_magic(folder: str) -> str:
    """Return a path to a folder's files without [ ], * and ?: the library takes it for a pattern.

    It would follow a link to the folder first, so the files are linked, one by one.
    """
    if not glob.has_magic(os.path.realpath(folder)):
        return folder
    mirror = tempfile.mkdtemp(prefix="chomp-")
    atexit.register(shutil.rmtree, mirror, ignore_errors=True)
    for inner, _, names in os.walk(folder):
        place = os.path.join(mirror, os.path.relpath(inner, folder))
        os.makedirs(place, exist_ok=True)
        for name in names:
            os.symlink(os.path.abspath(os.path.join(inner, name)), os.path.join(place, name))
    return os.path.realpath(mirror)


def _instead(path: str, mirror: str, folder: str) -> str:
    """Return a path below a folder, where it was found in a mirror of that."""
    inside = mirror != folder and path.startswith(mirror + os.sep)
    return os.path.join(folder, path[len(mirror) + 1 :]) if inside else path


def _builder(dataset: DatasetName, remote: ReadPolicy | None) -> Any:
    import datasets
    from datasets.exceptions import DatasetsError

    path, name, revision = dataset

    def build() -> Any:
        return datasets.load_dataset_builder(path, name, revision=revision)

    try:
        return ask_hub(remote, "data.hf_dataset", path, build) if remote else build()
    except ValueError as error:
        raise DataError(
            f"data.hf_name: {path!r}: {error}; null takes the dataset's default"
        ) from error
    except (DatasetsError, RuntimeError, *hub_errors()) as error:
        raise DataError(f"data.hf_dataset: {path!r} can't be opened: {error}") from error


def _readable(builder: Any, files: list[str]) -> bool:
    whole = getattr(builder.config, "field", None) is None
    return whole and all(str(file).endswith(READABLE) for file in files)


def _streamed(
    dataset: DatasetName,
    split: str,
    reading: ReadPolicy,
    identity: Fingerprint,
    transient: tuple[type[BaseException], ...],
) -> Corpus:
    import datasets
    from datasets import config
    from datasets.exceptions import DatasetsError

    path, name, revision = dataset
    # Its own retries wait up to a minute each, uncounted, and go on when the run is closed: one
    # attempt, then ours.
    settings: Any = config
    settings.STREAMING_READ_MAX_RETRIES = 1
    settings.STREAMING_READ_RETRY_INTERVAL = 0
    settings.STREAMING_READ_SERVER_UNAVAILABLE_RETRY_INTERVAL = 0
    settings.STREAMING_READ_RATE_LIMIT_RETRY_INTERVAL = 0

    def load() -> Any:
        return datasets.load_dataset(path, name, split=split, revision=revision, streaming=True)

    try:
        stream = ask_hub(reading, "data.hf_dataset", path, load) if transient else load()
    except (DatasetsError, RuntimeError, ValueError, *hub_errors()) as error:
        raise DataError(
            f"data.hf_dataset: {path!r}, split {split!r} can't be opened: {error}"
        ) from error
    count = stream.num_shards
    shards = [
        StreamShard(
            f"{path} [{split}, shard {i}]", reading.text_key, transient, stream.shard(count, i)
        )
        for i in range(count)
    ]
    files = getattr(stream, "_data_files", None) or getattr(stream.info, "download_checksums", None)
    return Corpus(
        shards, identity | {"shards": count, "version": str(files or stream.info.version)}
    )

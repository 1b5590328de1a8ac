"""Rows and samples as event files, which TensorBoard shows."""

import io
import json
import re
import socket
import time
from importlib import import_module
from typing import Any

from chomp.tracking.registered import TrackedRun
from chomp.tracking.tracker import NullTracker, Row, numbers

FOLDER = "tensorboard"
"""Of the event files, in the run folder."""
PROTO, MESSAGES = "tensorboard.compat.proto", ("event", "summary", "tensor", "types")
WRITER = "tensorboard.summary.writer.record_writer"
"""Modules of the package that have nothing of TensorFlow, should that be installed as well."""
NAME = re.compile(r"events\.out\.tfevents\.(\d+)\.")


class TensorBoardTracker(NullTracker):
    """Event files in the run folder, one for each start of the run.

    A file begins with the step at which the run goes on, and TensorBoard leaves out what earlier
    files have of that step and later ones. Values are 32-bit floats there.

    Raises:
        OSError: the folder can't be written to.
    """

    def __init__(self, run: TrackedRun):
        self._proto = {name: import_module(f"{PROTO}.{name}_pb2") for name in MESSAGES}
        folder = run.folder / FOLDER
        folder.mkdir(exist_ok=True)
        earlier = [int(found[1]) for path in folder.iterdir() if (found := NAME.match(path.name))]
        # They are read in the order of their names, also where the clock went back.
        seconds = max([int(time.time()), *(number + 1 for number in earlier)])
        path = folder / f"events.out.tfevents.{seconds:010d}.{socket.gethostname()}.chomp"
        self._file = io.FileIO(path, "x")
        self._waiting = bytearray()
        self._write(0, file_version="brain.Event:2")
        if earlier:
            log = self._proto["event"].SessionLog
            self._write(run.step + 1, session_log=log(status=log.START))
        if not earlier:
            for row in run.rows():
                self.log(row)
            self._write_text(run.step, "config", _code(json.dumps(run.config, indent=2)))

    def log(self, row: Row) -> None:
        """Write the row's numbers, each under its key; the text of an error as `error`."""
        summary = self._proto["summary"].Summary
        values = [summary.Value(tag=key, simple_value=value) for key, value in numbers(row).items()]
        if values:
            self._write(row["step"], summary=summary(value=values))
        if "error" in row:
            self._write_text(row["step"], "error", f"{row['error']}: {row['reason']}")

    def sample(self, record: Row) -> None:
        """Write a sample as text."""
        text = f"prompt\n\n{_code(record['prompt'])}\n\ncontinuation\n\n"
        self._write_text(record["step"], "sample", text + _code(record["continuation"]))

    def close(self) -> None:
        """Write what waits, and close the file."""
        try:
            self._flush()
        finally:
            self._file.close()

    def _write_text(self, step: int, tag: str, text: str) -> None:
        summary, metadata = self._proto["summary"].Summary, self._proto["summary"].SummaryMetadata
        plugin = metadata(plugin_data=metadata.PluginData(plugin_name="text"))
        tensor = self._proto["tensor"].TensorProto(
            dtype=self._proto["types"].DT_STRING,
            string_val=[text.encode("utf-8", "backslashreplace")],
        )
        value = summary.Value(tag=tag, metadata=plugin, tensor=tensor)
        self._write(step, summary=summary(value=[value]))

    def _write(self, step: int, **what: Any) -> None:
        record = io.BytesIO()
        event = self._proto["event"].Event(wall_time=time.time(), step=step, **what)
        import_module(WRITER).RecordWriter(record).write(event.SerializeToString())
        self._waiting += record.getvalue()
        self._flush()

    def _flush(self) -> None:
        # What a full disk has no room for waits, and goes on where the file ends.
        while self._waiting:
            written = self._file.write(self._waiting)
            del self._waiting[:written]


def _code(text: str) -> str:
    """Return text as a block of code in Markdown, in which it stands as it is."""
    return "\n".join(f"    {line}" for line in text.splitlines()) or "    "

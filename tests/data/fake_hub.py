"""A Hugging Face Hub on this machine, with faults: serves one folder as the dataset `me/data`."""

import http.server
import json
import random
import socket
import struct
import threading
import time
import urllib.parse
from collections.abc import Sequence
from pathlib import Path

JSON = {"Content-Type": "application/json"}

FAULTS = {
    "500": "status 500",
    "503": "status 503",
    "429": "status 429",
    "403": "status 403",
    "close": "the connection is closed without an answer",
    "reset": "the connection is reset in the middle of the body",
    "cut": "the connection is closed in the middle of the body",
    "stall": "no more bytes in the middle of the body, connection open",
    "mute": "no answer at all, connection open",
    "short": "status 206 with half of the bytes that its range claims",
    "unbounded": "status 206 with half of the bytes and no length",
    "whole": "status 200 with the file's first half",
    "shifted": "status 206 with other bytes than those asked for",
    "refuse": "connections are refused for a while",
}


class Server(http.server.ThreadingHTTPServer):
    # Else a handler that stalls would be waited for.
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients leave, and connections are reset, on purpose."""


class FakeHub:
    """Serves `folder`; a share of the requests for files goes wrong, in turn in each way.

    Use as a context. `sha` is the dataset's
    commit, `tag` the files' entity tag.
    """

    def __init__(
        self,
        folder: Path,
        fault_share: float,
        *,
        kinds: Sequence[str] = tuple(FAULTS),
        refused_seconds: float = 0.15,
        seed: int = 0,
    ):
        self.folder = folder
        self.fault_share = fault_share
        self.kinds = kinds
        self.refused_seconds = refused_seconds
        self.random = random.Random(seed)
        self.lock = threading.Lock()
        self.faults: list[str] = []
        self.requests = 0
        self.answers: int | None = None  # after so many more requests for files all fail
        self.mute_api = False
        self.headers: dict[str, str] = {}  # sent with every fault that has a status
        self.sha, self.tag = "a" * 40, "b" * 40
        self.older: dict[str, Path] = {}  # folders of earlier commits
        self.refusing = False
        self.ended = threading.Event()
        self.listen(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def listen(self, address: tuple[str, int]) -> None:
        handler = type("Handler", (Handler,), {"hub": self})
        self.server = Server(address, handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def __enter__(self) -> "FakeHub":
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.stop()

    def stop(self) -> None:
        """Refuse connections from here on."""
        self.refusing = True
        self.server.shutdown()
        self.server.server_close()

    def go_on(self) -> None:
        """Take connections again, at the same address."""
        self.refusing = False
        self.listen(self.server.server_address[:2])

    def refuse_a_while(self) -> None:
        self.stop()
        time.sleep(self.refused_seconds)
        if not self.ended.is_set():
            self.go_on()

    def at(self, revision: str) -> tuple[str, Path] | None:
        """Return a revision's commit and folder, if there is such a one."""
        if revision in ("main", self.sha):
            return self.sha, self.folder
        folder = self.older.get(revision)
        return None if folder is None else (revision, folder)

    def fault(self) -> str | None:
        with self.lock:
            self.requests += 1
            if self.answers is not None:
                self.answers -= 1
                if self.answers < 0:
                    return "500"
            if self.refusing:
                return "close"
            if self.random.random() >= self.fault_share:
                return None
            self.faults.append(self.kinds[len(self.faults) % len(self.kinds)])
            if self.faults[-1] == "refuse":
                self.refusing = True
                threading.Thread(target=self.refuse_a_while).start()
                return "close"
            return self.faults[-1]


class Handler(http.server.BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def reply(self, code: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for key, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            if value:
                self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = urllib.parse.unquote(urllib.parse.urlparse(self.path).path)
        api, files = "/api/datasets/me/data", "/datasets/me/data/resolve/"
        if path == "/":
            self.reply(200)
        elif path.startswith(api) and self.hub.mute_api:
            self.hub.ended.wait(5)
        elif path.startswith(api + "/tree/"):
            self.tree(*path.removeprefix(api + "/tree/").partition("/")[::2])
        elif path.startswith(api):
            found = self.hub.at(path.removeprefix(api).removeprefix("/revision/") or "main")
            if found is None:
                self.reply(404, b"{}", JSON | {"X-Error-Code": "RevisionNotFound"})
                return
            sha, folder = found
            names = [str(p.relative_to(folder)) for p in folder.rglob("*.*")]
            siblings = [{"rfilename": name} for name in names]
            about = {
                "id": "me/data",
                "sha": sha,
                "private": False,
                "gated": False,
                "tags": [],
            }
            self.reply(200, json.dumps(about | {"siblings": siblings}).encode(), JSON)
        elif path.startswith(files):
            self.file(*path.removeprefix(files).partition("/")[::2])
        elif path.startswith("/api/datasets/") or path.startswith("/datasets/"):
            self.reply(404, b"{}", JSON | {"X-Error-Code": "RepoNotFound"})
        else:
            self.reply(404, b"{}", JSON)

    def tree(self, revision: str, name: str) -> None:
        root = (self.hub.at(revision) or ("", self.hub.folder / "nowhere"))[1]
        folder = root / name
        if not folder.is_dir():
            self.reply(404, b"{}", JSON | {"X-Error-Code": "EntryNotFound"})
            return
        entries = [
            {"path": str(path.relative_to(root)), "oid": "b" * 40}
            | (
                {"type": "file", "size": path.stat().st_size}
                if path.is_file()
                else {"type": "directory"}
            )
            for path in sorted(folder.iterdir())
        ]
        self.reply(200, json.dumps(entries).encode(), JSON)

    def file(self, revision: str, name: str) -> None:
        path = (self.hub.at(revision) or ("", self.hub.folder / "nowhere"))[1] / name
        if not path.is_file():
            self.reply(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": self.hub.sha})
            return
        data = path.read_bytes()
        headers = {
            "ETag": f'"{self.hub.tag}"',
            "X-Repo-Commit": self.hub.sha,
            "Accept-Ranges": "bytes",
        }
        span = self.headers.get("Range")
        if span is None:
            self.reply(200, data, headers)
            return
        first, _, last = span.removeprefix("bytes=").partition("-")
        begin, end = int(first), min(int(last or len(data)) + 1, len(data))
        if begin >= end:
            self.reply(416, b"", headers | {"Content-Range": f"bytes */{len(data)}"})
            return
        headers["Content-Range"] = f"bytes {begin}-{end - 1}/{len(data)}"
        fault = self.hub.fault()
        if fault is None:
            self.reply(206, data[begin:end], headers)
        else:
            self.go_wrong(fault, data, begin, end, headers)

    def go_wrong(
        self, fault: str, data: bytes, begin: int, end: int, headers: dict[str, str]
    ) -> None:
        body = data[begin:end]
        half, length = body[: len(body) // 2], {"Content-Length": str(len(body))}
        if fault.isdecimal():
            self.reply(int(fault), b"trouble", self.hub.headers)
            return
        self.close_connection = True
        if fault == "mute":
            self.hub.ended.wait(5)
        elif fault == "cut":
            self.reply(206, half, headers | length)
        elif fault == "short":
            self.reply(206, half, headers)
        elif fault == "stall":
            self.reply(206, half, headers | length)
            self.hub.ended.wait(5)
        elif fault == "reset":
            self.reply(206, half, headers | length)
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.close()
        elif fault == "trickle":  # not in FAULTS: takes its time
            self.reply(206, b"", headers | length)
            for byte in body:
                if self.hub.ended.wait(0.05):
                    break
                self.wfile.write(bytes([byte]))
        elif fault == "unbounded":
            self.reply(206, half, headers | {"Content-Length": ""})
        elif fault == "whole":
            self.reply(200, data[: len(data) // 2], headers | {"Content-Range": ""})
        elif fault == "shifted":
            place = f"bytes {begin + 1}-{end}/{len(data)}"
            self.reply(206, body, headers | {"Content-Range": place})

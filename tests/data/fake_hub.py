"""A Hugging Face Hub on this machine, with faults: serves one folder as the dataset `me/data`."""

import http.server
import json
import random
import threading
import urllib.parse
from pathlib import Path

SHA = "a" * 40
JSON = {"Content-Type": "application/json"}


class FakeHub:
    """Serves `folder`; a share of the requests for files goes wrong, in turn in each way."""

    def __init__(self, folder: Path, fault_share: float):
        self.folder = folder
        self.fault_share = fault_share
        self.random = random.Random(0)
        self.faults: list[str] = []
        self.down = False
        handler = type("Handler", (Handler,), {"hub": self})
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self) -> "FakeHub":
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def fault(self) -> str | None:
        if self.random.random() >= self.fault_share:
            return None
        self.faults.append(("500", "429", "403", "cut", "close")[len(self.faults) % 5])
        return self.faults[-1]


class Handler(http.server.BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def reply(self, code: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for key, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
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
        elif path.startswith(api + "/tree/"):
            self.tree(path.removeprefix(api + "/tree/").partition("/")[2])
        elif path.startswith(api):
            names = [str(p.relative_to(self.hub.folder)) for p in self.hub.folder.rglob("*.*")]
            siblings = [{"rfilename": name} for name in names]
            about = {"id": "me/data", "sha": SHA, "private": False, "gated": False, "tags": []}
            self.reply(200, json.dumps(about | {"siblings": siblings}).encode(), JSON)
        elif path.startswith(files):
            self.file(path.removeprefix(files).partition("/")[2])
        else:
            self.reply(404, b"{}", JSON)

    def tree(self, name: str) -> None:
        folder = self.hub.folder / name
        if not folder.is_dir():
            self.reply(404, b"{}", JSON | {"X-Error-Code": "EntryNotFound"})
            return
        entries = [
            {"path": str(path.relative_to(self.hub.folder)), "oid": "b" * 40}
            | (
                {"type": "file", "size": path.stat().st_size}
                if path.is_file()
                else {"type": "directory"}
            )
            for path in sorted(folder.iterdir())
        ]
        self.reply(200, json.dumps(entries).encode(), JSON)

    def file(self, name: str) -> None:
        path = self.hub.folder / name
        if not path.is_file():
            self.reply(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": SHA})
            return
        data = path.read_bytes()
        headers = {"ETag": f'"{"b" * 40}"', "X-Repo-Commit": SHA, "Accept-Ranges": "bytes"}
        span = self.headers.get("Range")
        if span is None:
            self.reply(200, data, headers)
            return
        first, _, last = span.removeprefix("bytes=").partition("-")
        begin, end = int(first), min(int(last or len(data)) + 1, len(data))
        headers["Content-Range"] = f"bytes {begin}-{end - 1}/{len(data)}"
        body = data[begin:end]
        fault = "500" if self.hub.down else self.hub.fault()
        if fault == "close":
            self.close_connection = True
        elif fault == "cut":
            self.reply(206, body[: len(body) // 2], headers | {"Content-Length": str(len(body))})
            self.close_connection = True
        elif fault is not None:
            self.reply(int(fault), b"trouble")
        else:
            self.reply(206, body, headers)

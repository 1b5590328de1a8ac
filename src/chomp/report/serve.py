"""`chomp watch`: the page of runs, live, for browsers on this machine."""

from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from chomp.errors import ChompError, ConfigError
from chomp.report.documents import step_with_texts
from chomp.report.live_runs import LiveRuns
from chomp.report.page import render
from chomp.system.json_text import finite_json, parse_json

LOOPBACK = "127.0.0.1"
TRIES = 20
"""Ports after the wanted one that are tried."""


class PageServer(ThreadingHTTPServer):
    """Serves the page of some runs on the loopback address; nothing can be changed through it.

    Args:
        runs: that are shown.
        port: the wanted one; 0: any.

    Raises:
        ConfigError: no port is free.
    """

    daemon_threads = True

    def __init__(self, runs: LiveRuns, port: int):
        self.runs = runs
        for number in range(port, port + TRIES) if port else (0,):
            try:
                super().__init__((LOOPBACK, number), _Handler)
                return
            except (OSError, OverflowError):
                continue
        raise ConfigError([f"--port: {port} and the {TRIES - 1} after it are in use; give another"])

    @property
    def address(self) -> str:
        """The page's address."""
        return f"http://{LOOPBACK}:{self.server_port}/"


class _Handler(BaseHTTPRequestHandler):
    server: PageServer  # pyright: ignore[reportIncompatibleVariableOverride]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer."""
        host = self.headers.get("Host", "").rpartition(":")[0]
        try:
            if host in (LOOPBACK, "localhost"):
                self._answer()
            else:  # a page from elsewhere, which has let its name lead here
                self._send(HTTPStatus.FORBIDDEN, "text/plain", "only for browsers on this machine")
        except ConnectionError:  # the browser has gone on to something else
            self.close_connection = True

    def _answer(self) -> None:
        place = urlsplit(self.path)
        asked = parse_qs(place.query)
        try:
            match place.path:
                case "/":
                    page = render(self.server.runs.page(asked.get("run", [])))
                    self._send(HTTPStatus.OK, "text/html; charset=utf-8", page)
                case "/changes":
                    have = parse_json(asked["have"][0])
                    found = self.server.runs.changes(have)
                    others = None
                    if known := asked.get("known"):
                        names = [each["name"] for each in have]
                        others = self.server.runs.others(names, int(known[0]))
                    news = {"runs": found} | ({} if others is None else {"others": others})
                    self._send_json(news if found or others is not None else None)
                case "/documents":
                    view = self.server.runs.view(asked["run"][0])
                    self._send_json(step_with_texts(view, int(asked["step"][0])))
                case _:
                    self._send(HTTPStatus.NOT_FOUND, "text/plain", "there is no such page")
        except ChompError as error:
            if place.path == "/":
                self._send(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", str(error))
            else:
                self._send_json({"problem": str(error)})
        except (KeyError, ValueError, TypeError):
            self._send(HTTPStatus.BAD_REQUEST, "text/plain", "not a request of the page's")

    def _send_json(self, values: Any) -> None:
        if values is None:
            self._send(HTTPStatus.NO_CONTENT, "application/json", "")
        else:
            self._send(HTTPStatus.OK, "application/json", finite_json(values))

    def _send(self, status: HTTPStatus, kind: str, text: str) -> None:
        content = text.encode("utf-8", "backslashreplace")
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("X-Frame-Options", "DENY")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the terminal has the address."""

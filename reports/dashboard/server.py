"""The web server of the dashboard: GET and HEAD only, for this host only unless told otherwise."""

import hashlib
import json
import os
import re
import socket
import socketserver
import sys
from collections.abc import Mapping
from functools import cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import BinaryIO
from urllib.parse import parse_qs, unquote

from plotly.offline import get_plotlyjs

from reports.dashboard.catalogue import Catalogue
from reports.dashboard.files import open_served
from reports.page import asset, policy, report_script
from search_spaces.errors import UserError

LOCAL = ("localhost", "127.0.0.1", "::1")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; "
    "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Plotly sets styles of its own; nothing but this server is asked for anything."""
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".csv": "text/csv; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}
_JSON = _TYPES[".json"]
_NOT_FOUND = "there is no such run or page; see /"
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+))(?::[0-9]+)?", re.ASCII)
IDLE_S = 60.0
"""After which a connection that asks nothing is closed."""


class DashboardServer(ThreadingHTTPServer):
    """Serves a catalogue until it is told to stop.

    Args:
        catalogue: The runs.
        host: Address or name to listen at.
        port: Port to listen at; 0 takes a free one.

    Raises:
        OSError: The address cannot be listened at.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, catalogue: Catalogue, host: str, port: int) -> None:
        self.catalogue = catalogue
        self.host = host
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        self.address_family = found[0]
        super().__init__((str(found[4][0]), port), _Handler)

    @property
    def url(self) -> str:
        """Where the page is."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.server_address[1]}/"

    def server_bind(self) -> None:
        """Bind without asking a name server who this host is, as the library's own does."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.host, int(self.server_address[1])

    def handle_error(self, request: object, client_address: object) -> None:
        """A reader that went away is no error."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    server: DashboardServer
    server_version = "elastic-nas"
    sys_version = ""
    protocol_version = "HTTP/1.1"
    timeout = IDLE_S

    def do_GET(self) -> None:
        if not self._is_meant():
            self._refuse(
                HTTPStatus.FORBIDDEN,
                f"Host {self.headers.get('Host')!r} is not this server; open {self.server.url}",
            )
            return
        path, _, query = self.path.partition("?")
        parts = [unquote(part) for part in path.removeprefix("/").split("/")]
        try:
            self._answer(parts, parse_qs(query).get("run", []))
        except KeyError:
            self._refuse(HTTPStatus.NOT_FOUND, _NOT_FOUND)
        except UserError as error:
            self._refuse(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))
        except (ArithmeticError, TypeError, ValueError) as error:
            # Files that hold what no stage writes, such as an infinite width
            self._refuse(HTTPStatus.UNPROCESSABLE_ENTITY, f"the files of this run: {error}")

    do_HEAD = do_GET

    def _answer(self, parts: list[str], runs: list[str]) -> None:
        catalogue = self.server.catalogue
        match parts:
            case [""]:
                self._send(asset("dashboard/index.html"), ".html")
            case ["assets", *path] if (name := "/".join(path)) in _assets():
                self._send(_asset(name), name[name.rindex(".") :])
            case ["api", "runs"]:
                self._send_json(catalogue.runs())
            case ["api", "runs", id]:
                self._send_json(catalogue.run(id))
            case ["api", "compare"]:
                self._send_json(catalogue.compare(runs))
            case ["report", id]:
                page = catalogue.report(id)
                self._send(page, ".html", {"Content-Security-Policy": _policy_of_reports()})
            case ["files", id, *path] if path:
                self._send_file(id, "/".join(path))
            case _:
                self._refuse(HTTPStatus.NOT_FOUND, _NOT_FOUND)

    def _is_meant(self) -> bool:
        """Whether the request names this server: a page elsewhere may have its name point here."""
        found = _HOST.fullmatch(self.headers.get("Host", "").lower())
        reached = str(self.connection.getsockname()[0]).removeprefix("::ffff:")  # IPv4 at `::`
        own = {*LOCAL, self.server.host.lower(), reached}
        return found is not None and (found[1] or found[2]) in own

    def _send(self, text: str, kind: str, headers: Mapping[str, str] | None = None) -> None:
        body = text.encode()
        tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        every = {"ETag": tag, "Cache-Control": "no-cache", **(headers or {})}
        if tag in self.headers.get("If-None-Match", ""):
            self._start(HTTPStatus.NOT_MODIFIED, every)
            return
        every |= {"Content-Type": _TYPES[kind], "Content-Length": str(len(body))}
        self._start(HTTPStatus.OK, every)
        if self.command != "HEAD":
            self.wfile.write(body)

    def _send_json(self, value: object) -> None:
        self._send(json.dumps(value, allow_nan=False, separators=(",", ":")), ".json")

    def _send_file(self, id: str, path: str) -> None:
        with open_served(self.server.catalogue.directory(id), path) as file:
            size = os.fstat(file.fileno()).st_size
            name = path.rpartition("/")[2]
            headers = {
                "Content-Type": _TYPES.get(name[name.rindex(".") :], "application/octet-stream"),
                "Content-Length": str(size),
                "Content-Disposition": f'attachment; filename="{name}"',
                "Cache-Control": "no-cache",
            }
            self._start(HTTPStatus.OK, headers)
            if self.command != "HEAD":
                self._copy(file, size)

    def _copy(self, file: BinaryIO, size: int) -> None:
        """Send so many bytes, also of a log that grows meanwhile: what is more is no answer."""
        while size and (part := file.read(min(size, 1 << 16))):
            self.wfile.write(part)
            size -= len(part)
        self.close_connection |= size > 0  # cut short: the rest will never come

    def _refuse(self, status: HTTPStatus, message: str, allow: str = "") -> None:
        body = json.dumps({"schema": 1, "error": message}).encode()
        self.close_connection = True  # a body that nobody read would be taken for a request
        headers = {"Content-Type": _JSON, "Content-Length": str(len(body)), "Connection": "close"}
        self._start(status, headers | ({"Allow": allow} if allow else {}))
        if self.command != "HEAD":
            self.wfile.write(body)

    def _start(self, status: HTTPStatus, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        every = {
            "Content-Security-Policy": POLICY,
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            **headers,
        }
        for name, value in every.items():
            self.send_header(name, value)
        self.end_headers()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what is no GET or HEAD, or no HTTP at all."""
        if code == HTTPStatus.NOT_IMPLEMENTED:
            self._refuse(
                HTTPStatus.METHOD_NOT_ALLOWED, "GET and HEAD only: nothing is changed here",
                "GET, HEAD",
            )  # fmt: skip
        else:
            self._refuse(HTTPStatus(code), message or HTTPStatus(code).phrase)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing: the console is for what the user has to know."""


@cache
def _assets() -> frozenset[str]:
    """What the page loads: the report's style, Plotly, and the files of its own folder."""
    own = resources.files("reports").joinpath("templates", "dashboard").iterdir()
    return frozenset(
        ("report.css", "plot.js", "plotly.js", *(f"dashboard/{file.name}" for file in own))
    )


@cache
def _asset(name: str) -> str:
    return str(get_plotlyjs()) if name == "plotly.js" else asset(name)


@cache
def _policy_of_reports() -> str:
    return f"{policy(report_script(), str(get_plotlyjs()))}; frame-ancestors 'none'"

"""The server: answers this machine only, on the loopback interface, and nothing that a page of another site sends it.

Every request must name this server as its host, so that a name of another site that is made to point here gets nothing. What
changes something is a POST that carries the server's token, which only its own pages know. Addresses:

/                        the index
/report?of=A[&with=B]    report of a result, or of two side by side
/knobs?of=A              knobs of a run, and its re-runs
/results /jobs /job?n=N  as JSON
POST /run /cancel        {"of", "name", "changes"} and {"n"}, as JSON
"""

from __future__ import annotations

import hmac
import json
import secrets
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from distsim.errors import ConfigError, DistsimError, UnknownNameError
from distsim.report.ui import pages
from distsim.report.ui.jobs import Jobs
from distsim.report.ui.shelf import Entry, Shelf

#: nothing is loaded from anywhere; pages are one file each, with their scripts and styles inside
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; font-src data:; "
    "connect-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin", "Cross-Origin-Opener-Policy": "same-origin", "Cache-Control": "no-store",
}  # fmt: skip
TOKEN = "X-Distsim-Token"
_BODY = 1 << 16  #: bytes of a POST
_KEPT = 8  #: rendered reports


class RefusedError(Exception):
    """A request that is not served: an HTTP status and what to tell."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


class Server(ThreadingHTTPServer):
    """Serves a shelf on 127.0.0.1. port: 0 takes a free one. Raises ConfigError where the port cannot be had."""

    daemon_threads = True
    allow_reuse_address = sys.platform != "win32"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that hung up while it was answered is no fault, and nothing to tell."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def __init__(self, shelf: Shelf, port: int = 0) -> None:
        if not 0 <= port < 1 << 16:
            raise ConfigError(f"{port} is no port", where="--port", expected="1 to 65535, or 0 for a free one")
        try:
            super().__init__(("127.0.0.1", port), Handler)
        except OSError as error:
            what = f"cannot be had: {error.strerror or error}"
            raise ConfigError(what, where=f"--port {port}", fix="Take another, or 0 for a free one.") from None
        self.shelf, self.jobs, self.token = shelf, Jobs(), secrets.token_urlsafe(24)
        self.hosts = {f"{name}:{self.server_port}" for name in ("127.0.0.1", "localhost")}
        self._reports: OrderedDict[Any, str] = OrderedDict()
        self._making = threading.Lock()

    @property
    def address(self) -> str:
        """Of the index."""
        return f"http://127.0.0.1:{self.server_port}/"

    def close(self) -> None:
        """Let the port go, and end what runs."""
        self.server_close()
        self.jobs.close()

    def report(self, *entries: Entry) -> str:
        """The page of one result, or of two; the latest ones are kept until their results change. Raises DistsimError."""
        key = tuple((entry.name, self.shelf.stamp(entry)) for entry in entries)
        with self._making:  # one at a time: two would each take the whole memory of a large result
            if key not in self._reports:
                self._reports[key] = pages.report(
                    [self.shelf.place(entry) for entry in entries], [entry.name for entry in entries]
                )
                while len(self._reports) > _KEPT:
                    self._reports.popitem(last=False)
            self._reports.move_to_end(key)
            return self._reports[key]


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server
    server_version = "distsim"
    sys_version = ""
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_GET(self) -> None:
        """Pages, and JSON for them."""
        self._serve(_GET, page=True)

    def do_HEAD(self) -> None:
        """As GET, without the body."""
        self._serve(_GET, page=True)

    def do_POST(self) -> None:
        """What changes something."""
        self._serve(_POST, page=False)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not told: the terminal is for what went wrong."""

    def _serve(self, table: Mapping[str, Callable[[Handler, Mapping[str, str]], Any]], *, page: bool) -> None:
        """Check, look up, answer; what is refused gets a clear page, or JSON."""
        try:
            self._check()
            address = urlsplit(self.path)
            asked = dict(parse_qsl(address.query, keep_blank_values=True))
            answer = table.get(address.path)
            if answer is None:
                other = _POST if page else _GET
                if address.path in other:
                    raise RefusedError(HTTPStatus.METHOD_NOT_ALLOWED, f"{address.path} takes {'POST' if page else 'GET'}")
                raise RefusedError(HTTPStatus.NOT_FOUND, f"there is nothing at {address.path}")
            made = answer(self, asked)
            if isinstance(made, str):
                self._send(HTTPStatus.OK, made, "text/html")
            else:
                self._send(HTTPStatus.OK, json.dumps(made), "application/json")
        except RefusedError as error:
            self._refuse(error.status, error.message, page)
        except UnknownNameError as error:
            self._refuse(HTTPStatus.NOT_FOUND, str(error), page)
        except DistsimError as error:
            self._refuse(HTTPStatus.UNPROCESSABLE_ENTITY, str(error), page)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the reader has gone
        except Exception as error:
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, f"a fault of distsim: {type(error).__name__}: {error}", page)
            raise  # the terminal gets the whole of it

    def _check(self) -> None:
        """Raises RefusedError for what does not come from this server's own pages, or asks for a foreign host."""
        if self.headers.get_all("Host", []) != [host := self.headers.get("Host", "")] or host.lower() not in self.server.hosts:
            raise RefusedError(HTTPStatus.FORBIDDEN, "this server answers to its own address only: 127.0.0.1 and its port")
        origin = self.headers.get("Origin")
        if origin is not None and origin.lower() not in {f"http://{one}" for one in self.server.hosts}:
            raise RefusedError(HTTPStatus.FORBIDDEN, "a page of another site has no business here")
        if self.command == "POST" and not hmac.compare_digest(
            self.headers.get(TOKEN, "").encode("latin-1", "replace"), self.server.token.encode()
        ):
            raise RefusedError(HTTPStatus.FORBIDDEN, "the token is missing or of an earlier server: load the page anew")

    def _refuse(self, status: HTTPStatus, message: str, page: bool) -> None:
        self.close_connection = True  # a body may be left unread
        if page and urlsplit(self.path).path not in _JSON:
            self._send(status, pages.refused(status, message), "text/html")
        else:
            self._send(status, json.dumps({"error": message}), "application/json")

    def _send(self, status: HTTPStatus, text: str, kind: str) -> None:
        body = text.encode("utf-8", "surrogateescape")
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def body(self) -> dict[str, Any]:
        """The object that was sent. Raises RefusedError for anything else."""
        if self.headers.get_content_type() != "application/json":
            raise RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send JSON: Content-Type: application/json")
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            raise RefusedError(HTTPStatus.LENGTH_REQUIRED, "say how long the body is: Content-Length")
        if int(length) > _BODY:
            raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is longer than {_BODY} bytes")
        try:
            found = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise RefusedError(HTTPStatus.BAD_REQUEST, "the body is no JSON object")
        return found


def _asked(asked: Mapping[str, str], name: str) -> str:
    if not asked.get(name):
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"say which: ?{name}=...")
    return asked[name]


def _index(handler: Handler, asked: Mapping[str, str]) -> str:
    server = handler.server
    return pages.index(str(server.shelf.folder), server.shelf.entries(), server.jobs.listed(), server.token)


def _report(handler: Handler, asked: Mapping[str, str]) -> str:
    shelf = handler.server.shelf
    names = [_asked(asked, "of"), *([asked["with"]] if "with" in asked else [])]
    return handler.server.report(*(shelf.find(name) for name in names))


def _knobs(handler: Handler, asked: Mapping[str, str]) -> str:
    server = handler.server
    entry = server.shelf.find(_asked(asked, "of"))
    if not entry.knobs:
        raise ConfigError(f"{entry.name} is a {entry.kind}", expected="the result of distsim run -o or distsim train -o")
    return pages.knobs(entry, server.shelf.place(entry), server.shelf.free(entry), server.jobs.listed(), server.token)


def _results(handler: Handler, asked: Mapping[str, str]) -> Any:
    return [pages.listed(entry) for entry in handler.server.shelf.entries()]


def _jobs(handler: Handler, asked: Mapping[str, str]) -> Any:
    return handler.server.jobs.listed()


def _job(handler: Handler, asked: Mapping[str, str]) -> Any:
    return handler.server.jobs.get(_number(asked.get("n")))


def _run(handler: Handler, asked: Mapping[str, str]) -> Any:
    server, wish = handler.server, handler.body()
    of, name, changes = wish.get("of"), wish.get("name"), wish.get("changes")
    if not (
        isinstance(of, str) and isinstance(name, str) and isinstance(changes, dict) and all(map(_is_text, changes.values()))
    ):
        raise RefusedError(HTTPStatus.BAD_REQUEST, 'expected {"of": NAME, "name": NAME, "changes": {KNOB: VALUE}}, all text')
    entry = server.shelf.find(of)
    if not entry.knobs:
        raise ConfigError(f"{entry.name} is a {entry.kind}", expected="the result of distsim run -o or distsim train -o")
    source = server.shelf.place(entry)
    pages.check(source, changes)
    called = server.shelf.beside(entry, name)
    return server.jobs.submit(entry.name, called, source, server.shelf.folder / called, changes).document()


def _cancel(handler: Handler, asked: Mapping[str, str]) -> Any:
    return handler.server.jobs.cancel(_number(handler.body().get("n")))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _number(value: Any) -> int:
    text = str(value)
    if not text.isdecimal() or len(text) > 9:
        raise RefusedError(HTTPStatus.BAD_REQUEST, "n is the number of a run")
    return int(text)


_GET: dict[str, Callable[[Handler, Mapping[str, str]], Any]] = {
    "/": _index, "/report": _report, "/knobs": _knobs, "/results": _results, "/jobs": _jobs, "/job": _job,
}  # fmt: skip
_POST: dict[str, Callable[[Handler, Mapping[str, str]], Any]] = {"/run": _run, "/cancel": _cancel}
_JSON = ("/results", "/jobs", "/job", *_POST)

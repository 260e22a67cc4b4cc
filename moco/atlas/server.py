"""A local server of one atlas, for this machine and its user only.

It listens on the loopback address. A request must name this address or localhost as its host, so that a web site whose
name points here (DNS rebinding) gets nothing; it must come from the page itself, not from another site; and its path
must begin with a token that is new at each start, so that other users of the machine get nothing, either.
"""

import hmac
import json
import secrets
import socketserver
import threading
import time
from email.message import Message
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NoReturn

from moco.atlas.answers import Answers, Refused, Response
from moco.recipe import RecipeError
from moco.text import message_of

ADDRESS = "127.0.0.1"
CONNECTIONS = 64  # at a time
IDLE = 30  # [s] until a silent connection is closed
SLOWEST = 60  # [s] for the body of a request
BLOCK = 2**16  # [bytes] read at a time
HEADERS = {  # of each response; the page has a policy of its own besides
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}


class Server(ThreadingHTTPServer):
    """The server. It listens at once; `answers` must be set before `serve_forever` runs it.

    Args:
        port: 0: a free one.

    Raises:
        RecipeError: the port is not free.
    """

    daemon_threads = True

    answers: Answers

    def __init__(self, port: int = 0):
        self.token = secrets.token_urlsafe(16)
        self._free = threading.BoundedSemaphore(CONNECTIONS)
        try:
            super().__init__((ADDRESS, port), Handler)
        except (OSError, OverflowError) as error:
            raise RecipeError(f"--port {port} cannot be used: {message_of(error)}. Give another one") from error
        self.hosts = {f"{name}:{self.server_port}" for name in (ADDRESS, "localhost")}

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{ADDRESS}:{self.server_port}/{self.token}/"

    def server_bind(self) -> None:
        """As of the base class, without a search for the name of this machine, which may take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = ADDRESS, self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a new thread; with too many connections, close this one."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that breaks is no error of ours."""


class Handler(BaseHTTPRequestHandler):
    """The requests of one connection."""

    server: Any  # a Server
    protocol_version = "HTTP/1.1"
    timeout = IDLE

    def do_GET(self) -> None:
        self._answer(lambda path: self.server.answers.get(path))

    def do_POST(self) -> None:
        self._answer(lambda path: self.server.answers.post(path, self._body(self.server.answers.most_bytes(path))))

    def _answer(self, answer: Any) -> None:
        try:
            self._send(HTTPStatus.OK, answer(self._allowed_path()))
        except Refused as refused:
            self._refuse(refused.status, str(refused))
        except TimeoutError:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "the request took too long")

    def _allowed_path(self) -> str:
        """What follows the token in the path of a request that is allowed. Raises Refused for any other."""
        check_host(self.headers.get_all("Host") or [], self.server.hosts)
        start, _, path = self.path.removeprefix("/").partition("/")
        token = start if self.path.startswith("/") else ""
        if not hmac.compare_digest(token.encode(errors="replace"), self.server.token.encode()):
            raise Refused(HTTPStatus.NOT_FOUND, "open the address that moco atlas has printed")
        page = self.command == "GET" and path == ""
        check_origin(self.headers, {f"http://{host}" for host in self.server.hosts}, page=page)
        return path

    def _body(self, most: int) -> bytes:
        """The body, of at most so many bytes. Raises Refused."""
        lengths = self.headers.get_all("Content-Length") or []
        if (
            len(lengths) != 1
            or not lengths[0].isascii()
            or not lengths[0].isdigit()
            or "Transfer-Encoding" in self.headers
        ):
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "a request must give its length")
        if len(lengths[0]) > 12 or int(lengths[0]) > most:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"more than the {most:,} bytes allowed")
        body, until = bytearray(), time.monotonic() + SLOWEST
        while len(body) < int(lengths[0]):
            block = self.rfile.read1(min(BLOCK, int(lengths[0]) - len(body)))
            if not block or time.monotonic() > until:
                raise TimeoutError
            body += block
        return bytes(body)

    def _send(self, status: HTTPStatus, answer: Response) -> None:
        self.send_response(status)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(answer.content)))
        self.send_header("Cache-Control", "private, max-age=86400, immutable" if answer.stays else "no-store")
        for name, value in HEADERS.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(answer.content)

    def _refuse(self, status: HTTPStatus, reason: str) -> None:
        self.close_connection = True  # what is left of the request is not read
        self._send(status, Response("application/json", json.dumps({"error": reason}).encode()))

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """The refusals of the base class: a request that is not HTTP, a method that is not there."""
        self._refuse(HTTPStatus(code), HTTPStatus(code).phrase)

    def version_string(self) -> str:
        return "moco"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: paths have the token."""


def check_host(given: list[str], hosts: set[str]) -> None:
    """Raise Refused unless the request names one host, this one."""
    if len(given) != 1 or given[0].lower() not in hosts:
        raise Refused(HTTPStatus.MISDIRECTED_REQUEST, "this server answers for its own address only")


def check_origin(headers: Message, own: set[str], *, page: bool) -> None:
    """Raise Refused for a request that another site has made. A link to the page may be anywhere."""
    origin, site = headers.get("Origin"), headers.get("Sec-Fetch-Site")
    followed = page and headers.get("Sec-Fetch-Dest") == "document"
    if (origin is not None and origin not in own) or (site not in (None, "same-origin", "none") and not followed):
        _forbid()


def _forbid() -> NoReturn:
    raise Refused(HTTPStatus.FORBIDDEN, "this server answers its own page only")

"""A web server on this machine that serves a folder, and fails as it is told."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

Fault = Callable[["Handler"], bool]  # answers a request in its own way, and says whether it has


@dataclass
class Plan:
    """What the server does, and what it was asked for."""

    fault: Fault | None = None
    latency: float = 0.0  # [s] before each answer
    asked: Counter[str] = field(default_factory=Counter)  # "GET /a.png" -> times
    ranges: list[str] = field(default_factory=list)  # the values of Range
    etags: bool = False


class Handler(SimpleHTTPRequestHandler):
    """Answers with files, or ranges of their bytes."""

    protocol_version = "HTTP/1.1"

    def __init__(self, *args: Any, plan: Plan, **options: Any):
        self.plan = plan
        super().__init__(*args, **options)

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def do_HEAD(self) -> None:
        self._answer(super().do_HEAD)

    def do_GET(self) -> None:
        self._answer(self._get)

    def _answer(self, usual: Callable[[], None]) -> None:
        time.sleep(self.plan.latency)
        self.plan.asked[f"{self.command} {self.path}"] += 1
        if getattr(self.server, "gone", False):  # its threads answer on connections that are open
            reset(self)
        elif self.plan.fault is None or not self.plan.fault(self):
            usual()

    def _get(self) -> None:
        wanted, path = self.headers.get("Range"), Path(self.translate_path(self.path))
        if wanted is None or not path.is_file():
            super().do_GET()
            return
        self.plan.ranges.append(wanted)
        content = path.read_bytes()
        first, last = wanted.removeprefix("bytes=").split("-")
        part = content[int(first) : int(last) + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)

    def end_headers(self) -> None:
        path = Path(self.translate_path(self.path))
        if self.plan.etags and path.is_file():
            self.send_header("ETag", f'"{hash(path.read_bytes())}"')
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that has gone


@contextmanager
def web_server(folder: Path, plan: Plan | None = None) -> Iterator[str]:
    """The URL, without a slash at its end, at which `folder` is served."""
    server = Server(("127.0.0.1", 0), partial(Handler, directory=str(folder), plan=plan or Plan()))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.gone = True  # type: ignore[attr-defined]
        server.shutdown()
        server.server_close()
        thread.join()


def answer(handler: Handler, status: int, content: bytes = b"", **headers: str) -> bool:
    """Answer with a status. For a `Fault`."""
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(content)
    return True


def cut_short(handler: Handler) -> bool:
    """Promise more bytes than come, and close the connection."""
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    handler.wfile.write(b"\x89PNG too little")
    handler.close_connection = True
    return True


def reset(handler: Handler) -> bool:
    """Close the connection without an answer."""
    handler.close_connection = True
    handler.connection.close()
    return True


def times(fault: Fault, count: int, method: str = "GET", ending: str = ".png") -> Fault:
    """`fault` at the first `count` requests of each path with that ending; then none."""
    seen: Counter[str] = Counter()

    def planned(handler: Handler) -> bool:
        if handler.command != method or not handler.path.endswith(ending):
            return False
        seen[handler.path] += 1
        return seen[handler.path] <= count and fault(handler)

    return planned

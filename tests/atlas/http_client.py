"""Requests to the server of a map, byte by byte, and the server in a thread."""

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from moco.atlas.server import Server
from moco.recipe import Recipe
from moco.weights.encoder_folder import save_encoder
from tests.evaluate.samples import DATA, SPEC, trained_encoder


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


def running(server: Server) -> Iterator[Server]:
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(10)


def make_run(folder: Path) -> Path:
    save_encoder(folder / "run", trained_encoder(), recipe=Recipe(name="r", encoder=SPEC, data=DATA), facts={})
    return folder / "run"


def send(server: Server, content: bytes) -> bytes:
    """Everything that the server sends after `content`, until it closes the connection."""
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=20) as connection:
        connection.sendall(content)
        received = b""
        while block := connection.recv(65536):
            received += block
    return received


def ask(
    server: Server, path: str = "", *, method: str = "GET", body: bytes | None = None, token: str | None = None,
    host: str | None = "own", headers: str = "",
) -> Reply:  # fmt: skip
    """The reply to one request."""
    own = f"127.0.0.1:{server.server_port}"
    lines = [f"{method} /{server.token if token is None else token}/{path} HTTP/1.1", "Connection: close"]
    lines += [] if host is None else [f"Host: {own if host == 'own' else host}"]
    lines += [] if body is None else [f"Content-Length: {len(body)}"]
    text = "\r\n".join([*lines, *filter(None, headers.split("\n")), "", ""])
    return parse(send(server, text.encode("latin-1") + (body or b"")))


def parse(received: bytes) -> Reply:
    head, _, content = received.partition(b"\r\n\r\n")
    first, *rest = head.decode().split("\r\n")
    return Reply(int(first.split()[1]), dict(line.split(": ", 1) for line in rest), content)


def search_body(**changes: object) -> bytes:
    return json.dumps({"like": [3], "not": [], "uploads": [], "k": 5} | changes).encode()

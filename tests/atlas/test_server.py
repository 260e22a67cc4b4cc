"""The local server: what it answers, and each kind of request that it refuses, by a plain socket."""

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from making import make_pictures
from PIL import Image
from typer.testing import CliRunner

from moco.atlas import answers as answers_module
from moco.atlas import layout as layout_module
from moco.atlas import server as server_module
from moco.atlas.search import combine
from moco.atlas.serve import make_server
from moco.atlas.server import Server
from moco.cli import app
from moco.recipe import Recipe, RecipeError
from moco.weights.encoder_folder import save_encoder
from tests.atlas.samples import make_embedded
from tests.evaluate.samples import DATA, SPEC, trained_encoder

OTHER = "http://example.org"
HERE: dict[str, Any] = {"device": "cpu", "workers": 0}


@pytest.fixture(autouse=True)
def without_pacmap(monkeypatch):
    monkeypatch.setattr(layout_module, "_import_pacmap", lambda: None)


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


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return make_pictures(tmp_path / "photos", 12, classes=3)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Of all tests that change nothing."""
    folder = tmp_path_factory.mktemp("served")
    yield from running(make_server(make_run(folder), make_pictures(folder / "photos", 12, classes=3), **HERE))


@pytest.fixture
def own_server(run: Path, photos: Path) -> Iterator[Server]:
    yield from running(make_server(run, photos, **HERE))


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


def test_the_page_comes_at_the_address_that_was_printed(server: Server):
    reply = ask(server)
    assert reply.status == 200
    assert b'content="momentum-contrast atlas"' in reply.body
    assert b"connect-src &#39;self&#39;" in reply.body
    assert server.url == f"http://127.0.0.1:{server.server_port}/{server.token}/"
    assert len(server.token) >= 20
    assert reply.headers["Cache-Control"] == "no-store"
    assert "frame-ancestors 'none'" in reply.headers["Content-Security-Policy"]


def test_a_sheet_and_a_picture_are_images(server: Server):
    for path in ("sheet/0", "small/3", "image/3"):
        reply = ask(server, path)
        assert (reply.status, reply.headers["Content-Type"]) == (200, "image/webp")
        Image.open(io.BytesIO(reply.body)).verify()


def test_a_search_gives_the_nearest_images_without_the_examples(server: Server):
    x = server.answers.contents.collection.x
    found = json.loads(ask(server, "search", method="POST", body=search_body(like=[3, 5], **{"not": [7]})).body)
    scores = x @ combine(x[[3, 5]], x[[7]])
    expected = [i for i in np.argsort(-scores) if i not in (3, 5, 7)][:5]
    assert [row for row, _ in found["found"]] == expected
    np.testing.assert_allclose([value for _, value in found["found"]], scores[expected], atol=1e-5)


def test_an_uploaded_file_is_encoded_and_found(server: Server):
    """In another format: its own pixels are the most similar."""
    file, path = io.BytesIO(), server.answers.contents.collection.path(4)
    Image.open(path).convert("RGB").save(file, "BMP")
    name = json.loads(ask(server, "query", method="POST", body=file.getvalue()).body)["id"]
    reply = ask(server, "search", method="POST", body=search_body(like=[], uploads=[name]))
    row, value = json.loads(reply.body)["found"][0]
    assert server.answers.contents.collection.path(row) == path
    assert value == pytest.approx(1, abs=1e-4)


def test_a_file_of_features_needs_its_encoder_for_uploads(tmp_path: Path):
    for server in running(make_server(*make_embedded(tmp_path, 40), workers=0)):
        assert ask(server, "search", method="POST", body=search_body()).status == 200
        assert ask(server, "query", method="POST", body=b"x").status == 404
        assert b'"encodes":false' in ask(server).body


def test_an_encoder_of_other_features_is_refused(tmp_path: Path, run: Path):
    with pytest.raises(RecipeError, match="do not belong together"):
        make_server(*make_embedded(tmp_path, 40), encoder=run, device="cpu")


@pytest.mark.parametrize(
    "host", ["example.org", "127.0.0.1", "127.0.0.1:1", "localhost.example.org:{port}", "127.0.0.1:{port}.example.org",
             "0.0.0.0:{port}", "", None, "127.0.0.1:{port}, example.org"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["", "sheet/0", "image/0"])
def test_another_host_is_refused(server: Server, host: str | None, path: str):
    reply = ask(server, path, host=None if host is None else host.format(port=server.server_port))
    assert reply.status == 421
    assert json.loads(reply.body)["error"]


def test_two_hosts_are_refused(server: Server):
    assert ask(server, headers="Host: example.org").status == 421


def test_localhost_is_this_host(server: Server):
    assert ask(server, host=f"localhost:{server.server_port}").status == 200


@pytest.mark.parametrize(
    "headers", [f"Origin: {OTHER}", "Origin: null", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site",
                "Origin: http://127.0.0.1:1", "Origin: https://127.0.0.1:{port}",
                "Sec-Fetch-Site: cross-site\nSec-Fetch-Dest: iframe",
                "Sec-Fetch-Site: cross-site\nSec-Fetch-Dest: image"],
)  # fmt: skip
@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("GET", "image/0"), ("POST", "search"), ("POST", "query")])
def test_a_request_of_another_site_is_refused(server: Server, headers: str, method: str, path: str):
    body = search_body() if method == "POST" else None
    reply = ask(server, path, method=method, body=body, headers=headers.format(port=server.server_port))
    assert reply.status == 403
    assert "Access-Control-Allow-Origin" not in reply.headers


def test_a_link_to_the_page_may_be_followed_but_not_one_to_an_image(server: Server):
    link = "Sec-Fetch-Site: cross-site\nSec-Fetch-Dest: document"
    assert ask(server, headers=link).status == 200
    assert ask(server, "image/0", headers=link).status == 403


def test_the_page_itself_may_ask(server: Server):
    headers = f"Origin: http://127.0.0.1:{server.server_port}\nSec-Fetch-Site: same-origin"
    assert ask(server, "search", method="POST", body=search_body(), headers=headers).status == 200


@pytest.mark.parametrize("token", ["", "x", "..", "None"])
def test_without_the_token_nothing_is_given(server: Server, token: str):
    for path in ("", "sheet/0", "image/0"):
        assert ask(server, path, token=token).status == 404


def test_each_start_has_another_token():
    servers = [Server(), Server()]
    assert servers[0].token != servers[1].token
    for one in servers:
        one.server_close()


@pytest.mark.parametrize(
    "path",
    ["../../../etc/passwd", "image/../../../../etc/passwd", "image/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
     "..%2f..%2fetc/passwd",
     "image//etc/passwd", "/etc/passwd", "image/0/../../etc/passwd", "image/0%00.png", "image/0?file=/etc/passwd",
     "file:///etc/passwd", "image/class0/0000.png", "image/-1", "image/12", "image/999999999", "image/00000000000000",
     "image/\xb2", "image/1e0", "image/", "sheet/1", "sheet/-1", "small/12", "search", "query", "images/0"],
)  # fmt: skip
def test_a_path_names_nothing_but_rows_and_sheets(server: Server, path: str):
    reply = ask(server, path)
    assert reply.status in (400, 404)
    assert b"root:" not in reply.body
    assert b"0000.png" not in reply.body


def test_an_address_in_the_request_line_is_refused(server: Server):
    own = f"127.0.0.1:{server.server_port}"
    line = f"GET http://example.org/{server.token}/ HTTP/1.1\r\nHost: {own}\r\n\r\n"
    assert parse(send(server, line.encode())).status == 404


def test_a_file_that_was_replaced_by_a_link_is_not_shown(own_server: Server, photos: Path, tmp_path: Path):
    """The other picture is outside of the data."""
    secret, shown = tmp_path / "secret.png", photos / "class0" / "0000.png"
    Image.new("RGB", (30, 30), (200, 10, 10)).save(secret)
    row = [own_server.answers.contents.collection.path(i) for i in range(12)].index(str(shown))
    assert ask(own_server, f"image/{row}").status == 200
    shown.unlink()
    shown.symlink_to(secret)
    for path in (f"image/{row}", f"small/{row}"):
        assert ask(own_server, path).status == 404


def test_a_file_that_is_no_picture_any_more_is_not_given(own_server: Server, photos: Path):
    shown = photos / "class0" / "0000.png"
    status = shown.stat()
    shown.write_bytes(b"secret".ljust(status.st_size))
    os.utime(shown, ns=(status.st_atime_ns, status.st_mtime_ns))
    row = [own_server.answers.contents.collection.path(i) for i in range(12)].index(str(shown))
    reply = ask(own_server, f"image/{row}")
    assert reply.status == 404
    assert b"secret" not in reply.body


def test_an_upload_over_the_limit_is_refused_before_it_is_read(server: Server):
    own = f"127.0.0.1:{server.server_port}"
    for path, most in (("query", answers_module.MOST_UPLOAD), ("search", answers_module.MOST_JSON)):
        head = f"POST /{server.token}/{path} HTTP/1.1\r\nHost: {own}\r\nContent-Length: {most + 1}\r\n\r\n"
        assert parse(send(server, head.encode())).status == 413  # without a byte of the body


@pytest.mark.parametrize(
    "headers", ["", "Content-Length: -1", "Content-Length: x", "Content-Length: 1\r\nContent-Length: 2",
                "Content-Length: 5\r\nTransfer-Encoding: chunked", "Content-Length: \xb2", "Content-Length: 1_0"],
)  # fmt: skip
def test_an_upload_without_one_clear_length_is_refused(server: Server, headers: str):
    own = f"Host: 127.0.0.1:{server.server_port}"
    lines = [f"POST /{server.token}/query HTTP/1.1", own, *filter(None, headers.split("\r\n")), "", ""]
    assert parse(send(server, "\r\n".join(lines).encode("latin-1"))).status == 411


def test_a_body_that_does_not_come_ends_the_request(server: Server, monkeypatch):
    monkeypatch.setattr(server_module.Handler, "timeout", 0.3)
    own = f"127.0.0.1:{server.server_port}"
    head = f"POST /{server.token}/query HTTP/1.1\r\nHost: {own}\r\nContent-Length: 100\r\n\r\nabc"
    assert parse(send(server, head.encode())).status == 408


@pytest.mark.parametrize(
    "body", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + b"\0" * 40, b"GIF89a" + b"\xff" * 6, b"<svg xmlns='http://www.w3.org/2000/svg'/>"],
)  # fmt: skip
def test_an_upload_that_is_no_picture_is_refused_with_a_reason(server: Server, body: bytes):
    reply = ask(server, "query", method="POST", body=body)
    assert reply.status == 415
    assert json.loads(reply.body)["error"].startswith("this file: ")
    assert ask(server).status == 200  # it still answers


def test_a_small_upload_with_very_many_pixels_is_refused(server: Server):
    file = io.BytesIO()
    Image.new("1", (40_000, 40_000)).save(file, "PNG")
    assert len(file.getvalue()) < answers_module.MOST_UPLOAD
    assert ask(server, "query", method="POST", body=file.getvalue()).status == 415


@pytest.mark.parametrize(
    "body", [b"", b"[", b"[]", b"{}", b"\xff", b"[" * 60_000, search_body(like="3"),
             search_body(like=[12]), search_body(like=[-1]),
             search_body(like=[True]), search_body(like=[0.5]), search_body(like=[]), search_body(k=0),
             search_body(k=10**9), search_body(k="5"), search_body(uploads=[[1]]),
             search_body(like=[3] * 201), search_body(like={"3": 3})],
)  # fmt: skip
def test_what_is_no_search_is_refused(server: Server, body: bytes):
    assert ask(server, "search", method="POST", body=body).status == 400


def test_an_upload_that_is_forgotten_is_named(server: Server):
    reply = ask(server, "search", method="POST", body=search_body(uploads=["x"]))
    assert reply.status == 410
    assert "drop it in again" in json.loads(reply.body)["error"]


def test_the_number_of_remembered_uploads_is_bounded(own_server: Server, photos: Path, monkeypatch):
    monkeypatch.setattr(answers_module, "UPLOADS", 2)
    body = (photos / "class0" / "0000.png").read_bytes()
    names = [json.loads(ask(own_server, "query", method="POST", body=body).body)["id"] for _ in range(3)]
    replies = [ask(own_server, "search", method="POST", body=search_body(uploads=[name])).status for name in names]
    assert replies == [410, 200, 200]


@pytest.mark.parametrize("method", ["HEAD", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND"])
def test_other_methods_are_refused(server: Server, method: str):
    received = send(
        server, f"{method} /{server.token}/ HTTP/1.1\r\nHost: 127.0.0.1:{server.server_port}\r\n\r\n".encode()
    )
    assert re.match(rb"HTTP/1.1 (501|405) ", received)


def test_it_listens_on_one_loopback_address_only(server: Server):
    """A server that listens on all addresses answers on 127.0.0.2 too."""
    assert server.server_address[0] == "127.0.0.1"
    socket.create_connection(("127.0.0.1", server.server_port), timeout=5).close()
    with pytest.raises(OSError), socket.create_connection(("127.0.0.2", server.server_port), timeout=5):
        pass


def test_too_many_connections_are_closed_and_later_ones_answered(own_server: Server, monkeypatch):
    own_server._free = threading.BoundedSemaphore(2)
    place = ("127.0.0.1", own_server.server_port)
    held = [socket.create_connection(place, timeout=20) for _ in range(2)]
    time.sleep(0.2)
    with socket.create_connection(place, timeout=20) as third:
        assert third.recv(1) == b""
    for one in held:
        one.close()
    time.sleep(0.2)
    assert ask(own_server).status == 200


def test_a_port_that_is_taken_is_refused_before_images_are_read(tmp_path: Path):
    taken = Server()
    with pytest.raises(RecipeError, match=f"--port {taken.server_port}"):
        make_server(tmp_path / "no", tmp_path / "no", port=taken.server_port)
    taken.server_close()


@pytest.mark.parametrize("options", [["--serve", "--out", "a.html"], ["--port", "80"], ["--encoder", "run"]])
def test_options_that_do_not_belong_together_are_refused(tmp_path: Path, options: list[str]):
    result = CliRunner().invoke(app, ["atlas", *map(str, make_embedded(tmp_path, 10)), *options])
    assert result.exit_code == 2
    assert "--serve" in result.stderr


def test_the_command_prints_the_address_and_ends_with_ctrl_c(tmp_path: Path):
    file, data = make_embedded(tmp_path, 10)
    command = [sys.executable, "-m", "moco", "atlas", str(file), str(data), "--serve", "--json"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell ignores it for what runs behind it
    ) as process:  # fmt: skip
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        port, token = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/([\w-]+)/", url).groups()
        with socket.create_connection(("127.0.0.1", int(port)), timeout=20) as connection:
            connection.sendall(
                f"GET /{token}/ HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode()
            )
            assert connection.recv(15) == b"HTTP/1.1 200 OK"
        process.send_signal(signal.SIGINT)
        try:
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0, errors
    assert token not in errors
    assert not list(tmp_path.glob("*.html"))

"""The server of a map refuses what other sites, other users and damaged requests ask for."""

import io
import json
import os
import re
from pathlib import Path

import pytest
from PIL import Image

from moco.atlas import answers as answers_module
from moco.atlas import server as server_module
from moco.atlas.server import Server
from tests.atlas.http_client import ask, parse, search_body, send

OTHER = "http://example.org"
pytestmark = pytest.mark.usefixtures("without_pacmap")


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
    assert json.loads(reply.body)["error"].startswith("this file cannot be read as an image: ")
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


@pytest.mark.parametrize("method", ["HEAD", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND"])
def test_other_methods_are_refused(server: Server, method: str):
    received = send(
        server, f"{method} /{server.token}/ HTTP/1.1\r\nHost: 127.0.0.1:{server.server_port}\r\n\r\n".encode()
    )
    assert re.match(rb"HTTP/1.1 (501|405) ", received)

"""The local server of a map: what it answers, by a plain socket."""

import io
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from moco.atlas import answers as answers_module
from moco.atlas.search import combine
from moco.atlas.serve import make_server
from moco.atlas.server import Server
from moco.cli import app
from moco.recipe import RecipeError
from tests.atlas.http_client import ask, running, search_body
from tests.atlas.samples import make_embedded

pytestmark = pytest.mark.usefixtures("without_pacmap")


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
    with pytest.raises(RecipeError, match="give the weights that `moco embed` made it with"):
        make_server(*make_embedded(tmp_path, 40), encoder=run, device="cpu")


def test_an_upload_that_is_forgotten_is_named(server: Server):
    reply = ask(server, "search", method="POST", body=search_body(uploads=["x"]))
    assert reply.status == 410
    assert "drop it on the page again" in json.loads(reply.body)["error"]


def test_the_number_of_remembered_uploads_is_bounded(own_server: Server, photos: Path, monkeypatch):
    monkeypatch.setattr(answers_module, "UPLOADS", 2)
    body = (photos / "class0" / "0000.png").read_bytes()
    names = [json.loads(ask(own_server, "query", method="POST", body=body).body)["id"] for _ in range(3)]
    replies = [ask(own_server, "search", method="POST", body=search_body(uploads=[name])).status for name in names]
    assert replies == [410, 200, 200]


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

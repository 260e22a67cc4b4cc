"""Released weights from a server: on loopback, where it can be made to fail in every way."""

import hashlib
import http.server
import io
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from moco.files import temporary_name
from moco.weights.encoder_folder import WeightsError, load_encoder
from moco.weights.load import read_weights
from moco.weights.official import fetch as fetching
from moco.weights.official.fetch import cache, check_content, fetch
from moco.weights.official.released import LINEAR_PROBE, RELEASED, Released, find_released
from tests.weights import reference_files


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but loopback is reached."""
    true = socket.socket.connect

    def connect(self: socket.socket, address: tuple[str, int]) -> None:
        if address[0] != "127.0.0.1":
            raise ConnectionError(f"a test reached for {address}")
        true(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def checkpoint() -> bytes:
    file = io.BytesIO()
    torch.save(reference_files.stripped(reference_files.v2(), keep="encoder_q."), file)
    return file.getvalue()


CONTENT = checkpoint()
PAGE = b"<!DOCTYPE html><html><body>Please log in</body></html>"
MD5 = hashlib.md5(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves /whole, /cut (half of what it promises), /endless (no length), /half (half, no length), /page, /empty,
    /moved (to /whole), /silent (nothing); notes what was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []

    def file(
        self, name: str, *, md5: str | None = None, layout: str = "MoCo v2", network: str = "resnet18"
    ) -> Released:
        address = f"http://127.0.0.1:{self.server_address[1]}/{name}"
        return Released("fair:test", address, "none: a test", layout, network, md5)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        self.server.asked.append(self.path)
        if self.path == "/silent":
            time.sleep(1)
            return
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", self.server.file("whole").address)
            self.end_headers()
            return
        half = CONTENT[: len(CONTENT) // 2]
        bodies = {"whole": CONTENT, "cut": half, "endless": CONTENT, "half": half, "page": PAGE, "empty": b""}
        body = bodies.get(self.path.removeprefix("/"))
        if body is None:
            self.send_error(404)
            return
        self.send_response(200)
        if self.path not in ("/endless", "/half"):
            self.send_header("Content-Length", str(len(CONTENT if self.path == "/cut" else body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None: ...


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_file_is_downloaded_completely_and_reported(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = fetch(server.file("whole", md5=MD5[:8]), folder=tmp_path)
    assert file == tmp_path / "test.pth.tar"
    assert file.read_bytes() == CONTENT
    said = capsys.readouterr().err
    assert "licence none: a test" in said
    assert f"its MD5 begins with {MD5[:8]}, as published" in said


def test_a_second_use_downloads_nothing(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fetch(server.file("whole"), folder=tmp_path)
    capsys.readouterr()
    assert fetch(server.file("whole"), folder=tmp_path).read_bytes() == CONTENT
    assert server.asked == ["/whole"]
    assert capsys.readouterr().err == ""


def test_without_a_published_checksum_the_sha256_is_stored_and_reported(server: Server, tmp_path: Path, capsys) -> None:
    fetch(server.file("whole"), folder=tmp_path)
    digest = hashlib.sha256(CONTENT).hexdigest()
    assert json.loads((tmp_path / "test.pth.tar.json").read_text())["sha256"] == digest
    assert (
        f"no checksum is published, so later calls compare it with its present SHA-256, {digest}"
        in capsys.readouterr().err
    )


def test_a_file_that_has_changed_since_is_refused(server: Server, tmp_path: Path) -> None:
    file = fetch(server.file("whole"), folder=tmp_path)
    file.write_bytes(CONTENT[:-1] + b"?")
    with pytest.raises(
        WeightsError, match=r"has changed since its download: its SHA-256 is .* Remove it and its \.json"
    ):
        fetch(server.file("whole"), folder=tmp_path)


def left_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".lock"}


@pytest.mark.parametrize(
    ("name", "md5", "said"),
    [
        ("whole", "b251726a", rf"its MD5 begins with {MD5[:8]}, expected b251726a as published"),
        ("cut", None, rf"ended after {len(CONTENT) // 2:,} of {len(CONTENT):,} bytes"),
        ("nothing", None, "404"),
        ("page", None, r"the server sent a web page \(HTML\)"),
        ("empty", None, "the server sent an empty file"),
        ("half", None, "the server sent "),
        ("moved", None, "redirects to http://127.0.0.1.*expected an https address"),
    ],
    ids=["wrong checksum", "cut off", "not there", "a page", "empty", "cut off, of no known length", "sent to http"],
)
def test_a_failed_download_is_an_error_and_leaves_no_file(server: Server, tmp_path: Path, name, md5, said) -> None:
    with pytest.raises(WeightsError, match=rf"fair:test could not be downloaded from http.*{said}.*No file was saved"):
        fetch(server.file(name, md5=md5), folder=tmp_path)
    assert left_in(tmp_path) == set()


@pytest.mark.parametrize(
    ("layout", "network"),
    [("MoCo v2", "resnet50"), ("MoCo v1", "resnet18"), ("MoCo v3", "resnet18"), (LINEAR_PROBE, "resnet18")],
)
def test_a_checkpoint_of_another_network_or_method_is_not_kept(server, tmp_path: Path, layout, network) -> None:
    said = rf"the server sent MoCo v2 .* of resnet18, expected {layout} of {network}.*No file was saved"
    with pytest.raises(WeightsError, match=said):
        fetch(server.file("whole", layout=layout, network=network), folder=tmp_path)
    assert left_in(tmp_path) == set()


@pytest.mark.parametrize(
    ("made", "layout", "network"),
    [
        (reference_files.v1, "MoCo v1", "resnet18"),
        (reference_files.v2, "MoCo v2", "resnet18"),
        (reference_files.v3_resnet, "MoCo v3", "resnet18"),
        (reference_files.linear_probe, LINEAR_PROBE, "resnet18"),
    ],
)
def test_each_kind_of_checkpoint_is_recognised(tmp_path: Path, made, layout: str, network: str) -> None:
    torch.save(made(), tmp_path / "file")
    check_content(Released("fair:test", "", "", layout, network), tmp_path / "file")


def test_weights_that_are_not_finite_are_not_kept(tmp_path: Path) -> None:
    content = reference_files.v2()
    next(iter(content["state_dict"].values()))[:] = float("nan")
    torch.save(content, tmp_path / "file")
    with pytest.raises(OSError, match=r"the server sent no sound checkpoint: it has NaN"):
        check_content(Released("fair:test", "", "", "MoCo v2", "resnet18"), tmp_path / "file")


def test_an_unreachable_server_is_an_error_and_leaves_no_file(server: Server, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(WeightsError, match="could not be downloaded"):
        fetch(Released("fair:test", f"http://127.0.0.1:{port}/whole", "none", "MoCo v2", "resnet18"), folder=tmp_path)
    assert left_in(tmp_path) == set()


def test_a_failed_fetch_can_be_repeated(server: Server, tmp_path: Path) -> None:
    with pytest.raises(WeightsError):
        fetch(server.file("cut"), folder=tmp_path)
    assert fetch(server.file("whole"), folder=tmp_path).read_bytes() == CONTENT


def test_leftovers_of_a_killed_download_are_removed_and_the_file_downloaded_again(
    server: Server, tmp_path: Path
) -> None:
    temporary_name(tmp_path / "test.pth.tar").write_bytes(CONTENT[:100])
    (tmp_path / "test.pth.tar").write_bytes(CONTENT)  # renamed, but its record is not there yet
    fetch(server.file("whole"), folder=tmp_path)
    assert server.asked == ["/whole"]
    assert left_in(tmp_path) == {"test.pth.tar", "test.pth.tar.json"}


def test_a_file_of_unknown_length_is_downloaded(server: Server, tmp_path: Path) -> None:
    assert fetch(server.file("endless"), folder=tmp_path).read_bytes() == CONTENT


def test_many_at_once_fetch_it_once(server: Server, tmp_path: Path) -> None:
    threads = [
        threading.Thread(target=fetch, args=[server.file("whole")], kwargs={"folder": tmp_path}) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.asked == ["/whole"]


def test_commands_accept_the_name_of_released_weights(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from moco.weights.official import released as table

    monkeypatch.setattr(table, "RELEASED", (server.file("whole"),))
    monkeypatch.setenv("MOCO_CACHE", str(tmp_path / "cache"))
    _, config = load_encoder("fair:test")
    assert config.encoder.name == "resnet18"
    assert "read from fair:test (layout: MoCo v2" in config.note
    assert config.facts["licence"] == "none: a test"
    assert read_weights("fair:test", whole=True).head.keys() == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert server.asked == ["/whole"]


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(WeightsError, match="did you mean fair:moco_v2_800ep"):
        load_encoder("fair:moco_v2_800")


def test_the_user_can_set_the_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOCO_CACHE", "/some/where")
    assert cache() == Path("/some/where")
    monkeypatch.delenv("MOCO_CACHE")
    assert cache() == Path.home() / ".cache" / "moco"


def test_the_table_lists_the_released_files_with_their_published_checksums() -> None:
    checksums = {one.name: one.md5 for one in RELEASED if one.md5}
    assert checksums == {  # by the first eight digits, in the authors' README
        "fair:moco_v1_200ep": "b251726a", "fair:moco_v2_200ep": "59fd9945", "fair:moco_v2_800ep": "a04e12f8",
    }  # fmt: skip
    assert len({one.name for one in RELEASED}) == len({one.address for one in RELEASED}) == len(RELEASED) == 13
    for one in RELEASED:
        assert one.address.startswith("https://dl.fbaipublicfiles.com/moco")
        assert "CC-BY-NC 4.0" in one.licence
        assert one.licence.startswith("unclear") == (one.md5 is not None)  # v1 and v2
        networks = {"r50": "resnet50", "vit_s": "vit_small", "vit_b": "vit_base"}
        assert one.network == next((made for part, made in networks.items() if part in one.name), "resnet50")
        assert one.layout == (
            LINEAR_PROBE if "linear" in one.name else f"MoCo v{one.name.removeprefix('fair:moco_v')[0]}"
        )
    assert find_released("fair:moco_v3_vit_s_300ep").address.endswith("/moco-v3/vit-s-300ep/vit-s-300ep.pth.tar")


def test_waiting_for_a_silent_server_ends(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "TIMEOUT", 0.2)
    with pytest.raises(WeightsError, match=r"could not be downloaded .*timed out"):
        fetch(server.file("silent"), folder=tmp_path)
    assert left_in(tmp_path) == set()

"""S3, against a compatible server on this machine. Skipped without s3fs and moto, which are large."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from moco.data.shards.pack import pack
from moco.data.sources.images import DataError
from moco.data.sources.manifest import manifest_of
from moco.data.sources.open import open_images
from moco.data.sources.split import split_sources
from moco.train.pretrain import pretrain
from tests.data.loader.loading import loader, same
from tests.train.helpers import assert_same, final_state

pytest.importorskip("s3fs")
moto = pytest.importorskip("moto.server")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint, photos, monkeypatch, request) -> str:
    """The URL of a new bucket with the folder `photos`."""
    import boto3

    for name, value in {
        "AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "topsecret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    name = f"bucket-{abs(hash(request.node.name)) % 10**9}"
    boto3.client("s3").create_bucket(Bucket=name)
    upload(photos, name, "photos")
    return f"s3://{name}"


def upload(folder: Path, bucket: str, prefix: str) -> None:
    import boto3

    client = boto3.client("s3")
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            client.put_object(Bucket=bucket, Key=f"{prefix}/{path.relative_to(folder)}", Body=path.read_bytes())


def test_a_folder_of_a_bucket_is_the_same_as_on_disk(photos, bucket):
    remote, local = open_images(f"{bucket}/photos"), open_images(photos)
    assert list(remote.names) == list(local.names)
    assert remote.sizes.tolist() == local.sizes.tolist()
    assert remote.labels.tolist() == local.labels.tolist()
    assert len(set(remote.mtimes.tolist())) > 1  # ETags
    assert all(np.array_equal(remote.read(i), local.read(i)) for i in range(24))


@pytest.mark.parametrize("options", [{"workers": 2}, {"workers": 2, "processes": True}], ids=str)
def test_mini_batches_from_a_bucket_are_those_from_the_disk(photos, bucket, options):
    images = open_images(f"{bucket}/photos")
    images.read(0)  # before the fork
    assert same(list(loader(images, **options)), list(loader(open_images(photos))))


def test_shards_and_lists_of_a_bucket_are_read(photos, bucket):
    shards = photos.parent / "shards"
    pack(open_images(photos), shards, shard_size=10)
    upload(shards, bucket.removeprefix("s3://"), "shards")
    (photos.parent / "lists").mkdir()
    (photos.parent / "lists" / "all.txt").write_text(f"{bucket}/photos/ä/0001.png\n../photos/b c/0002.png\n")
    upload(photos.parent / "lists", bucket.removeprefix("s3://"), "lists")
    remote, local = open_images(f"{bucket}/shards"), open_images(photos)
    assert manifest_of(remote).fingerprint == manifest_of(local).fingerprint
    assert all(np.array_equal(remote.read(i), local.read(i)) for i in range(24))
    listed = open_images(f"{bucket}/lists/all.txt")
    places = [local.names.index(name) for name in ("ä/0001.png", "b c/0002.png")]
    assert all(np.array_equal(listed.read(i), local.read(place)) for i, place in enumerate(places))


def test_a_split_in_a_bucket_is_found(photos, bucket):
    upload(photos, bucket.removeprefix("s3://"), "set/train")
    upload(photos, bucket.removeprefix("s3://"), "set/test")
    split = split_sources(f"{bucket}/set")
    assert [len(split.train), len(split.test), list(split.train.classes)] == [24, 24, ["b c", "ä"]]


def test_a_missing_object_or_bucket_is_refused(photos, bucket):
    import boto3

    with pytest.raises(DataError, match=r"no images in|does not exist"):
        open_images(f"{bucket}/nothing")
    with pytest.raises(DataError, match=r"no-such-bucket-x/photos does not exist"):
        open_images("s3://no-such-bucket-x/photos")
    images = open_images(f"{bucket}/photos")
    boto3.client("s3").delete_object(Bucket=bucket.removeprefix("s3://"), Key=f"photos/{images.names[3]}")
    with pytest.raises(Exception, match="not in the store any more"):
        images.read(3)


def test_a_run_on_a_bucket_has_the_bits_of_a_run_on_disk(photos, bucket, tiny, tmp_path):
    short = tiny.but("short", {"method.size": 8})
    pretrain(photos, tmp_path / "disk", recipe=short)
    pretrain(f"{bucket}/photos", tmp_path / "bucket", recipe=short, workers=2)
    assert_same(final_state(tmp_path / "disk"), final_state(tmp_path / "bucket"))
    assert not any(b"topsecret" in path.read_bytes() for path in (tmp_path / "bucket").rglob("*") if path.is_file())

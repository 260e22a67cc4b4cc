"""URLs: without credentials where they are shown, and how names and addresses come from them."""

import pytest

from moco.data.remote.settings import parse_size
from moco.data.remote.urls import folder_of, is_url, join, names_from_urls, path_in, public, redact
from moco.data.sources.images import DataError

SIGNED = "https://me:secret@host:8443/a%20b/1.jpg?X-Amz-Signature=abc&X-Amz-Credential=key#part"


def test_a_public_url_has_no_password_no_query_and_no_fragment():
    assert public(SIGNED) == "https://host:8443/a%20b/1.jpg"
    assert public("http://user@host/a") == "http://host/a"
    assert public("s3://bucket/a?b#c") == "s3://bucket/a?b#c"  # these are characters of a key
    assert public("abfs://container@account.dfs/a") == "abfs://container@account.dfs/a"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"cannot read {SIGNED} twice", "cannot read https://***@host:8443/a%20b/1.jpg?... twice"),
        (f"url='{SIGNED}')", "url='https://***@host:8443/a%20b/1.jpg?...')"),
        ("sftp://me:p@ss@host/a", "sftp://***@host/a"),
        ("photos/a@b:c", "photos/a@b:c"),
        ("is it? yes", "is it? yes"),
    ],
)
def test_texts_lose_the_credentials_of_their_urls(text, expected):
    assert redact(text) == expected


def test_names_are_told_apart_where_only_the_query_differs():
    names = names_from_urls(
        ["http://h/i?id=1&key=s3cret", "http://h/i?id=2&key=s3cret", "http://h/j?sig=x", "http://h/k"]
    )
    assert len(set(names)) == 4
    assert not any("s3cret" in name or "sig" in name for name in names)
    assert names[2:] == ["http://h/j", "http://h/k"]
    assert names_from_urls(["http://h/j?sig=new"]) == ["http://h/j"]  # a new signature is the same image


def test_addresses_of_paths_are_encoded_on_web_servers_only():
    assert join("http://h/a%20b/?x", "c d/é#1.png") == "http://h/a%20b/c%20d/%C3%A9%231.png"
    assert join("s3://bucket/a b", "c d/é#1.png") == "s3://bucket/a b/c d/é#1.png"
    assert join("http://h/a/b", "../../../../c.png") == "http://h/c.png"
    assert path_in("http://h/a%20b/%231.png?x") == "a b/#1.png"
    assert path_in("s3://bucket/a%20b") == "a%20b"
    assert folder_of("http://h/a/b.tar?sig=/x/y") == "http://h/a"


@pytest.mark.parametrize("data", ["s3://b", "https://h/a", "memory://x"])
def test_urls_are_told_from_paths(data):
    assert is_url(data)


@pytest.mark.parametrize("data", ["photos", "/a/b", "C:/photos", "a:b", "./x://y", "://a"])
def test_paths_are_no_urls(data):
    assert not is_url(data)


@pytest.mark.parametrize(("text", "size"), [("20G", 20 * 2**30), ("1.5 MiB", 3 * 2**19), ("512", 512), ("2tb", 2**41)])
def test_sizes_are_numbers_with_units(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "G", "-1G", "1e9", "20 apples"])
def test_other_sizes_are_refused(text):
    with pytest.raises(DataError, match="expected a size such as 500M"):
        parse_size(text)

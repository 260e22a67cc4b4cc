"""Several folders or lists as one source of images."""

from moco.data.sources.folder import find_images
from tests.data.sources.trees import tree


def test_several_roots_come_one_after_the_other_under_their_names(tmp_path):
    found = find_images([tree(tmp_path / "b", "x.png"), tree(tmp_path / "a", "y.png", "x.png")])
    assert list(found.names) == ["b/x.png", "a/x.png", "a/y.png"]
    assert found.path(1) == str(tmp_path / "a" / "x.png")
    assert found.read(2).shape == (2, 3, 3)


def test_roots_of_one_name_get_different_prefixes(tmp_path):
    one, other = tree(tmp_path / "1" / "images", "x.png"), tree(tmp_path / "2" / "images", "x.png")
    found = find_images([one, other])
    assert list(found.names) == ["images/x.png", "images~2/x.png"]
    assert found.path(1) == str(other / "x.png")


def test_labels_of_several_roots_are_joined_by_name(tmp_path):
    one, other = tree(tmp_path / "1", "cat/a.png", "dog/b.png"), tree(tmp_path / "2", "ant/c.png", "dog/d.png")
    found = find_images([one, other])
    assert list(found.classes) == ["ant", "cat", "dog"]
    assert found.labels is not None
    assert found.labels.tolist() == [1, 2, 0, 2]


def test_one_root_without_labels_means_no_labels(tmp_path):
    assert find_images([tree(tmp_path / "1", "cat/a.png", "dog/b.png"), tree(tmp_path / "2", "c.png")]).labels is None


def test_a_single_path_is_a_source(tmp_path):
    tree(tmp_path, "a.png")
    assert list(find_images(str(tmp_path)).names) == list(find_images(tmp_path).names) == ["a.png"]


def test_a_relative_source_is_still_found_from_elsewhere(tmp_path, monkeypatch):
    tree(tmp_path / "data", "a.png")
    monkeypatch.chdir(tmp_path)
    found = find_images("data")
    monkeypatch.chdir("/")
    assert found.read(0).shape == (2, 3, 3)

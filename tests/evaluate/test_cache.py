"""Features that are kept: the same bits as computed ones, and never those of other weights, images or settings."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sample_pictures import make_pictures
from torch import nn

from moco.data.decode.decode import BadImage
from moco.data.loader.bad_images import Quarantine
from moco.data.sources.folder import DataError, find_images
from moco.data.sources.images import Images, Subset
from moco.encoders import Encoder, build_headless
from moco.evaluate import cache as module
from moco.evaluate.baselines import Pixels
from moco.evaluate.cache import FeatureCache, extract_each_cached, hash_weights
from moco.evaluate.features import Features, extract_each
from moco.evaluate.progress import Progress
from moco.recipe import DataSpec, EncoderSpec
from tests.evaluate.samples import CPU, DATA, trained_encoder


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The encoders whose features were computed, a list for each time."""
    calls: list[list[str]] = []

    def counted(encoders, *arguments, **more):
        calls.append(list(encoders))
        return extract_each(encoders, *arguments, **more)

    monkeypatch.setattr(module, "extract_each", counted)
    return calls


def features(
    folder: Path, images: Images, encoder: Encoder | None = None, data: DataSpec = DATA, max_bad: float | None = None
) -> dict[str, Features]:
    encoders = {"pixels": Pixels(data), "mine": encoder or trained_encoder()}
    said: list[str] = []
    found = extract_each_cached(
        encoders, images, data, device=CPU, workers=0, quarantine=Quarantine(None, max_bad, len(images)),
        cache=FeatureCache(folder / "features", said.append), progress=Progress(),
    )  # fmt: skip
    assert len(said) <= 1
    return found


def equal(some: dict[str, Features], others: dict[str, Features]) -> bool:
    return all(
        torch.equal(some[name].x, others[name].x)
        and torch.equal(some[name].ids, others[name].ids)
        and list(some[name].names) == list(others[name].names)
        and torch.equal(some[name].known_labels(), others[name].known_labels())
        for name in others
    )


def test_stored_features_equal_computed_ones(tmp_path: Path, labelled: Path, computed: list):
    images = find_images(labelled / "train")
    expected = extract_each({"pixels": Pixels(DATA), "mine": trained_encoder()}, images, DATA, device=CPU)
    first, second = features(tmp_path, images), features(tmp_path, images)
    assert computed == [["pixels", "mine"]]
    assert equal(first, expected)
    assert equal(second, expected)


def test_stored_features_are_used_for_moved_images(tmp_path: Path, labelled: Path, computed: list):
    first = features(tmp_path, find_images(labelled / "train"))
    labelled.rename(tmp_path / "moved")
    assert equal(features(tmp_path, find_images(tmp_path / "moved" / "train")), first)
    assert len(computed) == 1


def change_weight(encoder: Encoder) -> Encoder:
    parameter = next(encoder.parameters())
    parameter.data.view(-1)[0] = parameter.data.view(-1)[0].nextafter(torch.tensor(9.0))
    return encoder


def change_statistics(encoder: Encoder) -> Encoder:
    next(buffer for name, buffer in encoder.named_buffers() if name.endswith("running_mean"))[0] += 1
    return encoder


@pytest.mark.parametrize("change", [change_weight, change_statistics])
def test_other_weights_have_other_features(tmp_path: Path, labelled: Path, computed: list, change):
    images = find_images(labelled / "train")
    features(tmp_path, images)
    found = features(tmp_path, images, change(trained_encoder()))
    assert computed[1:] == [["mine"]]  # those of raw pixels are there
    assert equal(found, {"mine": extract_each({"mine": change(trained_encoder())}, images, DATA, device=CPU)["mine"]})


@pytest.mark.parametrize("setting", [{"eval_resize": 19}, {"mean": (0.4, 0.5, 0.5)}, {"std": (0.2, 0.25, 0.2)}])
def test_other_settings_have_other_features(tmp_path: Path, labelled: Path, computed: list, setting: dict):
    images, data = find_images(labelled / "train"), DATA.model_copy(update=setting)
    features(tmp_path, images)
    found = features(tmp_path, images, data=data)
    assert len(computed) == 2
    assert equal(found, extract_each({"pixels": Pixels(data), "mine": trained_encoder()}, images, data, device=CPU))


def test_an_image_of_the_same_size_and_time_with_other_content_is_noticed(
    tmp_path: Path, labelled: Path, computed: list
):
    images = find_images(labelled / "train")
    features(tmp_path, images)
    path = Path(images.path(3))
    status, data = path.stat(), bytearray(path.read_bytes())
    data[-20] ^= 1  # in the checksum of the last chunk: decoded or not, it is another file
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    features(tmp_path, find_images(labelled / "train"))
    assert len(computed) == 2


def test_images_in_another_order_have_other_features(tmp_path: Path, labelled: Path, computed: list):
    images = find_images(labelled / "train")
    features(tmp_path, Subset(images, [0, 1, 2]))
    found = features(tmp_path, Subset(images, [2, 0, 1]))
    assert len(computed) == 2
    assert list(found["mine"].names) == [images.names[i] for i in (2, 0, 1)]


@pytest.mark.parametrize("version", ["9.9", ""])
def test_another_version_of_a_library_has_other_features(
    tmp_path: Path, labelled: Path, computed: list, version: str, monkeypatch: pytest.MonkeyPatch
):
    images = find_images(labelled / "train")
    features(tmp_path, images)
    monkeypatch.setattr(module, "_version", lambda package: version)
    features(tmp_path, images)
    assert len(computed) == 2


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "swap"])
def test_damaged_features_are_computed_again(tmp_path: Path, labelled: Path, computed: list, damage: str):
    images = find_images(labelled / "train")
    first = features(tmp_path, images)
    some, other = sorted((tmp_path / "features").iterdir())
    content = bytearray(some.read_bytes())
    if damage == "flip":
        content[-7] ^= 4
    elif damage == "swap":
        content = bytearray(b"moco features 1 " + b"0" * 64 + b"\n" + other.read_bytes())
    some.write_bytes({"cut": content[:-8], "empty": b""}.get(damage, content))
    assert equal(features(tmp_path, images), first)
    assert len(computed) == 2
    assert equal(features(tmp_path, images), first)
    assert len(computed) == 2  # it was mended


def test_images_that_cannot_be_read_are_left_out_and_counted_as_the_first_time(
    tmp_path: Path, labelled: Path, computed: list
):
    (labelled / "train" / "class1" / "0001.png").write_bytes(b"no")
    images = find_images(labelled / "train")
    first = features(tmp_path, images)
    assert equal(features(tmp_path, images), first)
    assert (len(first["mine"].x), len(computed)) == (59, 1)
    with pytest.raises(DataError, match="more than the 0 allowed"):
        features(tmp_path, images, max_bad=0)


def test_an_image_that_became_readable_is_used(
    tmp_path: Path, labelled: Path, computed: list, monkeypatch: pytest.MonkeyPatch
):
    images = find_images(labelled / "train")
    bad = replace(images)
    real = type(images).read

    def failing(self, index: int):
        if index == 5:
            raise BadImage(self.names[index], "the network was away")
        return real(self, index)

    monkeypatch.setattr(type(images), "read", failing)
    assert len(features(tmp_path, bad)["mine"].x) == 59
    monkeypatch.setattr(type(images), "read", real)
    assert len(features(tmp_path, images)["mine"].x) == 60


def test_features_of_images_that_change_meanwhile_are_not_kept(
    tmp_path: Path, labelled: Path, monkeypatch: pytest.MonkeyPatch
):
    images = find_images(labelled / "train")

    def meanwhile(*arguments, **more):
        found = extract_each(*arguments, **more)
        make_pictures(labelled / "train", 1, classes=1, seed=7)
        return found

    monkeypatch.setattr(module, "extract_each", meanwhile)
    features(tmp_path, images)
    assert not (tmp_path / "features").exists()


def test_features_of_a_module_of_the_user_are_not_stored(tmp_path: Path, labelled: Path, computed: list):
    class Mean(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean(dim=(2, 3))

    own = build_headless(EncoderSpec(name="custom"), model=Mean(), size=16)
    images = find_images(labelled / "train")
    features(tmp_path, images, own)
    features(tmp_path, images, own)
    assert computed == [["pixels", "mine"], ["mine"]]


def test_a_folder_that_cannot_be_written_changes_no_result(tmp_path: Path, labelled: Path):
    images = find_images(labelled / "train")
    expected = features(tmp_path, images)
    (tmp_path / "file").write_text("")
    said: list[str] = []
    FeatureCache(tmp_path / "file" / "features", said.append).write("0" * 64, expected["mine"].x, expected["mine"].ids)
    assert "are not stored" in said[0]


def test_a_link_in_place_of_the_folder_is_not_written_through(tmp_path: Path, labelled: Path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "features").symlink_to(tmp_path / "theirs")
    features(tmp_path, find_images(labelled / "train"))
    assert not list((tmp_path / "theirs").iterdir())


def test_the_least_recently_used_features_are_removed_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    cache, x = FeatureCache(tmp_path / "features"), torch.zeros(100, 10)
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / "mine.txt").write_text("not ours")
    monkeypatch.setattr(module, "MAX_TOTAL", 12_000)
    for i in range(4):
        cache.write(f"{i:064x}", x, torch.arange(100))
        for path in (tmp_path / "features").iterdir():
            os.utime(path, (i, i))
    kept = sorted(path.name for path in (tmp_path / "features").iterdir())
    assert len(kept) < 5
    assert "mine.txt" in kept
    assert f"{3:064x}.features" in kept


def test_the_weights_of_encoders_tell_their_specs_apart():
    def of(**more: object) -> str:
        torch.manual_seed(0)
        return hash_weights(build_headless(EncoderSpec(name="resnet10", width=0.0625, **more), size=16))  # pyright: ignore[reportArgumentType]

    assert of() == of()
    assert of(stem="3x3") != of(stem="3x3/2")  # the same tensors


def test_a_file_of_features_with_another_ones_name_is_not_used(tmp_path):
    said: list[str] = []
    cache, ids = FeatureCache(tmp_path / "features", said.append), torch.arange(3)
    cache.write("a" * 64, torch.zeros(3, 2), ids)
    os.rename(tmp_path / "features" / f"{'a' * 64}.features", tmp_path / "features" / f"{'b' * 64}.features")
    assert cache.read("b" * 64) is None
    assert "it is damaged" in said[0]

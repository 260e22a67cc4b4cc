import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sample_pictures import make_pictures
from torch import nn
from torch.utils.data import Dataset
from torchvision.transforms import v2

import moco.data.loader.loader
from moco.data.loader.bad_images import Quarantine
from moco.data.sources.folder import BadImage, DataError, find_images
from moco.encoders import Encoder, build_headless
from moco.evaluate.features import (
    PictureList,
    Pretrained,
    batch_for,
    extract,
    extract_each,
    load_pretrained,
    set_eval_mode,
)
from moco.recipe import DataSpec, EncoderSpec, Recipe, RecipeError
from moco.weights.encoder_folder import save_encoder
from tests.evaluate.samples import CPU, DATA, SPEC, trained_encoder


def torchvisions(data: DataSpec) -> v2.Compose:
    return v2.Compose([
        v2.Resize(data.eval_resize), v2.CenterCrop(data.size), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(data.mean, data.std),
    ])  # fmt: skip


def features_by_hand(encoder: Encoder, paths: list[Path]) -> torch.Tensor:
    look = torchvisions(DATA)
    with torch.no_grad():
        return encoder.eval().features(torch.stack([look(Image.open(path).convert("RGB")) for path in paths]))


@pytest.mark.parametrize("side", [(40, 30), (31, 77), (18, 18)])
def test_the_transform_is_torchvisions(pretrained: Pretrained, tmp_path: Path, side: tuple[int, int]):
    pixels = np.random.default_rng(0).integers(0, 256, (*side, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    picture.save(tmp_path / "a.png")
    expected = torchvisions(DATA)(picture)
    for given in (picture, tmp_path / "a.png", str(tmp_path / "a.png"), pixels):
        torch.testing.assert_close(pretrained.transform(given), expected, atol=1e-6, rtol=0)


def test_a_path_that_is_not_an_image_is_a_bad_image(pretrained: Pretrained, tmp_path: Path):
    (tmp_path / "a.jpg").write_text("no")
    with pytest.raises(BadImage, match=r"a\.jpg"):
        pretrained.transform(tmp_path / "a.jpg")


def test_features_are_the_encoders_in_eval_mode(pretrained: Pretrained, pictures: Path):
    paths = sorted(pictures.iterdir())[:8]
    expected = features_by_hand(pretrained.encoder, paths)
    pretrained.encoder.train()
    x = torch.stack([pretrained.transform(path) for path in paths])
    torch.testing.assert_close(pretrained.features(x), expected, atol=1e-5, rtol=1e-5)
    assert not pretrained.features(x).requires_grad


class InPlace(nn.Module):
    """Normalizes its input in place."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sub_(0.5).div_(0.25).mean(dim=(2, 3))


def test_a_network_that_changes_its_input_leaves_the_images_to_the_other_networks(pictures: Path):
    images, first = find_images(pictures), build_headless(EncoderSpec(name="custom"), size=16, model=InPlace())
    expected = extract(trained_encoder(), images, DATA, device=CPU)
    both = extract_each({"first": first, "second": trained_encoder()}, images, DATA, device=CPU)
    assert torch.equal(both["second"].x, expected.x)


def test_dense_features_have_a_place_for_each_part_of_the_image(pretrained: Pretrained):
    x = torch.randn(2, 3, 16, 16)
    dense = pretrained.features(x, dense=True)
    assert dense.shape == (2, pretrained.encoder.num_features, 1, 1)
    torch.testing.assert_close(dense.mean(dim=(2, 3)), pretrained.features(x))


def test_embeddings_come_in_the_order_of_the_paths(pretrained: Pretrained, pictures: Path):
    paths = sorted(pictures.iterdir())[:6][::-1]
    expected = features_by_hand(pretrained.encoder, paths).numpy()
    np.testing.assert_allclose(pretrained.embed(paths), expected, atol=1e-5, rtol=1e-5)


def test_pictures_and_their_paths_have_the_same_embedding(pretrained: Pretrained, pictures: Path):
    paths = sorted(pictures.iterdir())[:3]
    mixed = [Image.open(paths[0]), str(paths[1]), paths[2]]
    np.testing.assert_array_equal(pretrained.embed(mixed), pretrained.embed(paths))


def test_a_folder_is_embedded_in_the_order_of_its_names(pretrained: Pretrained, pictures: Path):
    np.testing.assert_array_equal(pretrained.embed(pictures), pretrained.embed(sorted(pictures.iterdir())))


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 0), (7, 2), (64, 1)])
def test_batches_and_workers_change_no_embedding(pretrained: Pretrained, pictures: Path, batch_size: int, workers: int):
    one = pretrained.embed(pictures, batch_size=batch_size, workers=workers)
    np.testing.assert_allclose(one, pretrained.embed(pictures), atol=1e-5, rtol=1e-5)


def test_normalized_embeddings_have_length_1_and_the_same_direction(pretrained: Pretrained, pictures: Path):
    plain, unit = pretrained.embed(pictures), pretrained.embed(pictures, normalize=True)
    np.testing.assert_allclose(unit, plain / np.linalg.norm(plain, axis=1, keepdims=True), atol=1e-6)


class FromOneFile(Dataset):
    """Images of one file, each read by a seek and a read: several threads at once would get each other's."""

    def __init__(self, path: Path, images: np.ndarray):
        path.write_bytes(images.tobytes())
        self.file, self.shape, self.count = path.open("rb", buffering=0), images.shape[1:], len(images)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        size = int(np.prod(self.shape))
        self.file.seek(index * size)
        time.sleep(0.001)
        return np.frombuffer(self.file.read(size), dtype=np.uint8).reshape(self.shape), 0


def test_data_sets_and_arrays_are_embedded_as_the_pictures_in_them(pretrained: Pretrained, tmp_path: Path):
    images = np.random.default_rng(0).integers(0, 256, (24, 16, 16, 3), dtype=np.uint8)
    expected = pretrained.embed([Image.fromarray(one) for one in images], workers=0)
    dataset = FromOneFile(tmp_path / "images.raw", images)
    for given in (dataset, images, torch.from_numpy(images).permute(0, 3, 1, 2), list(images)):
        np.testing.assert_array_equal(pretrained.embed(given, workers=3), expected)


def test_one_picture_that_is_given_several_times_is_decoded_by_one_thread(tmp_path: Path):
    noise = np.random.default_rng(0).integers(0, 256, (600, 600, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    given = PictureList([Image.open(tmp_path / "a.png")] * 8)
    with ThreadPoolExecutor(8) as pool:
        assert all(np.array_equal(one, noise) for one in pool.map(given.read, range(8)))


def test_an_empty_input_gives_an_empty_array(pretrained: Pretrained):
    assert pretrained.embed([]).shape == (0, pretrained.encoder.num_features)


def test_a_broken_file_among_the_paths_is_named(pretrained: Pretrained, pictures: Path):
    (pictures / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    with pytest.raises(DataError, match=r"broken\.png"):
        pretrained.embed(sorted(pictures.iterdir()))


def test_a_picture_that_cannot_be_decoded_is_named_by_its_place(pretrained: Pretrained, pictures: Path):
    path = min(pictures.iterdir())
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match="picture 0"):
        pretrained.embed([Image.open(path)])


def test_a_skipped_image_leaves_the_others_with_their_labels(encoder: Encoder, labelled: Path):
    images = find_images(labelled / "train")
    Path(images.path(7)).write_bytes(b"broken")
    quarantine = Quarantine(None, None, len(images))
    features = extract(encoder, images, DATA, device=CPU, quarantine=quarantine, batch_size=8)
    kept = [i for i in range(60) if i != 7]
    assert list(quarantine.bad) == [images.names[7]]
    assert features.ids.tolist() == kept
    assert features.names == [images.names[i] for i in kept]
    assert features.known_labels().tolist() == [images.labels[i] for i in kept]
    expected = features_by_hand(encoder, [Path(images.path(i)) for i in kept])
    torch.testing.assert_close(features.x, expected, atol=1e-5, rtol=1e-5)


def test_no_image_that_can_be_read_is_an_error(encoder: Encoder, tmp_path: Path):
    (tmp_path / "a.png").write_bytes(b"broken")
    with pytest.raises(DataError, match="none of the 1 images can be read"):
        extract(encoder, find_images(tmp_path), DATA, device=CPU, quarantine=Quarantine(None, 5, 1))


def test_images_are_read_once_for_all_encoders(encoder: Encoder, pictures: Path, monkeypatch: pytest.MonkeyPatch):
    cut, original = [], moco.data.loader.loader.cpu.eval_crop
    monkeypatch.setattr(moco.data.loader.loader.cpu, "eval_crop", lambda *args: cut.append(1) or original(*args))
    both = extract_each({"one": encoder, "other": trained_encoder(seed=1)}, find_images(pictures), DATA, device=CPU)
    assert len(cut) == 40
    assert not torch.equal(both["one"].x, both["other"].x)


def test_features_that_are_not_finite_are_an_error_that_names_an_image(encoder: Encoder, pictures: Path):
    nn.init.constant_(next(encoder.parameters()), float("nan"))
    with pytest.raises(FloatingPointError, match=r"40 of 40 images are not finite numbers, the first is 0000\.png"):
        extract(encoder, find_images(pictures), DATA, device=CPU)


def test_rows_of_features_keep_their_labels_and_names(encoder: Encoder, labelled: Path):
    features = extract(encoder, find_images(labelled / "train"), DATA, device=CPU)
    some = features[torch.tensor([5, 50])]
    assert torch.equal(some.x, features.x[[5, 50]])
    assert some.known_labels().tolist() == [int(features.known_labels()[i]) for i in (5, 50)]
    assert some.names == [features.names[5], features.names[50]]


def test_evaluating_gives_every_part_its_own_mode_back(encoder: Encoder):
    encoder.train()
    frozen = next(part for part in encoder.modules() if isinstance(part, nn.BatchNorm2d))
    frozen.eval()
    before = {name: part.training for name, part in encoder.named_modules()}
    with set_eval_mode(encoder):
        assert not any(part.training for part in encoder.modules())
        assert not torch.is_grad_enabled()
    assert {name: part.training for name, part in encoder.named_modules()} == before
    with pytest.raises(KeyError), set_eval_mode(encoder):
        raise KeyError
    assert {name: part.training for name, part in encoder.named_modules()} == before
    assert len(set(before.values())) == 2
    assert torch.is_grad_enabled()


def test_features_can_be_used_in_training(pretrained: Pretrained):
    """Tensors of inference mode could not: "Inference tensors cannot be saved for backward"."""
    x = pretrained.features(torch.randn(4, 3, 16, 16))
    nn.Linear(x.shape[1], 2)(x).sum().backward()


def test_load_gives_what_was_saved(encoder: Encoder, tmp_path: Path, pictures: Path):
    recipe = Recipe(name="r", encoder=SPEC, data=DATA)
    save_encoder(tmp_path / "run" / "encoder", encoder, recipe=recipe, facts={})
    loaded = load_pretrained(tmp_path / "run", device="cpu")
    assert (loaded.name, loaded.data.size, loaded.data.mean) == ("run", 16, DATA.mean)
    assert not loaded.encoder.training
    paths = sorted(pictures.iterdir())
    np.testing.assert_allclose(loaded.embed(paths), features_by_hand(encoder, paths).numpy(), atol=1e-5)


def test_load_puts_weights_into_a_module_of_ones_own(tmp_path: Path):
    def network() -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    spec = EncoderSpec(name="custom")
    saved = build_headless(spec, model=network(), size=16)
    save_encoder(tmp_path / "e", saved, recipe=Recipe(name="r", encoder=spec, data=DATA), facts={})
    x = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(load_pretrained(tmp_path / "e", model=network()).features(x), saved.features(x).detach())


def test_a_missing_device_is_an_error_that_says_what_is_expected(tmp_path: Path):
    with pytest.raises(RecipeError, match="auto, cpu, cuda"):
        load_pretrained(tmp_path, device="abacus")


@pytest.mark.parametrize("size", [16, 224, 4000])
def test_a_batch_has_some_four_million_pixels_at_most(size: int):
    assert 8 <= batch_for(DataSpec(size=size)) <= 512
    assert batch_for(DataSpec(size=size)) * size**2 <= max(2**22, 8 * size**2)


def test_pictures_of_another_mode_are_embedded_too(pretrained: Pretrained, tmp_path: Path):
    make_pictures(tmp_path, 1)
    grey = Image.open(tmp_path / "0000.png").convert("L")
    np.testing.assert_array_equal(pretrained.embed([grey]), pretrained.embed([grey.convert("RGB")]))

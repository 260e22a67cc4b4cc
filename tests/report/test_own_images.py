"""Pictures of a run on one's own images."""

import numpy as np
import pytest
import torch
from PIL import Image
from sample_pictures import make_pictures

from moco.data.sources.folder import find_images
from moco.data.sources.open import open_images
from moco.encoders import build_headless
from moco.evaluate.features import extract
from moco.recipe import DataSpec, EncoderSpec
from moco.report import neighbours_of_run, sample
from moco.report.neighbours_of_run import draw_own_neighbours
from moco.report.sample import take_sample, take_views
from moco.train import draw_pictures
from moco.train.pretrain import pretrain
from moco.train.reporters import Silent

CPU, DATA = torch.device("cpu"), DataSpec(size=16, eval_resize=16)


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return build_headless(EncoderSpec(name="resnet10", stem="3x3", width=0.0625), size=16)


def all_of(images, encoder):
    return take_sample(images, encoder, DATA, device=CPU, workers=0, seconds=60)


def test_views_find_their_own_key_where_the_encoder_knows_nothing_but_the_colour(tmp_path, encoder):
    """The place of the own key is the one that sorting all similarities gives, and views are those of training."""
    images = find_images(make_pictures(tmp_path / "pictures", 40))
    found = all_of(images, encoder)
    views = take_views(found, images, encoder, DATA, device=CPU, workers=0, seconds=60)
    assert views is not None
    assert len(set(views.rows.tolist())) == len(views.rows) == sample.BATCH
    assert views.queries.shape == views.keys.shape == (sample.BATCH, 16, 16, 3)
    q, k = (_features(encoder, part) for part in (views.queries, views.keys))
    order = (-(q @ k.T)).argsort(dim=1)
    expected = [1 + order[i].tolist().index(i) for i in range(len(q))]
    assert np.mean(views.places == expected) > 0.9  # the pictures are rounded to bytes


def _features(encoder, pictures):
    mean, std = (torch.tensor(part).view(3, 1, 1) for part in (DATA.mean, DATA.std))
    x = (torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255 - mean) / std
    encoder.eval()
    with torch.no_grad():
        return torch.nn.functional.normalize(encoder.features(x))


def test_the_sample_has_the_features_of_evaluation(tmp_path, encoder):
    images = find_images(make_pictures(tmp_path / "pictures", 40))
    found = take_sample(images, encoder, DATA, device=CPU, workers=0, seconds=60)
    assert sorted(found.ids) == list(range(40))
    expected = extract(encoder, images, DATA, device=CPU)
    torch.testing.assert_close(found.features["this run"], expected.x[found.ids])
    assert [found.names[0], found.total] == [images.names[found.ids[0]], 40]


def test_the_time_bounds_the_sample_but_for_the_first_batch(tmp_path, encoder):
    images = find_images(make_pictures(tmp_path / "pictures", 80))
    assert len(take_sample(images, encoder, DATA, device=CPU, workers=0, seconds=0)) == sample.BATCH


def test_an_image_is_not_its_own_neighbour_and_its_copy_is(monkeypatch, tmp_path, encoder):
    folder = make_pictures(tmp_path / "pictures", 30)
    for path in sorted(folder.iterdir()):
        path.with_name(f"copy_{path.name}").write_bytes(path.read_bytes())
    drawn = {}
    monkeypatch.setattr(neighbours_of_run, "neighbour_sheet", lambda out, q, **named: drawn.update(named, q=q))
    draw_own_neighbours(tmp_path / "n.png", all_of(find_images(folder), encoder))
    for each in drawn["neighbours"]:
        for query, row in zip(drawn["q"], each.images, strict=True):
            assert [np.array_equal(query, one) for one in row] == [True] + [False] * (len(row) - 1)


def test_with_classes_each_neighbour_is_marked_as_right_or_wrong(monkeypatch, tmp_path, encoder):
    drawn = {}
    monkeypatch.setattr(neighbours_of_run, "neighbour_sheet", lambda out, queries, **named: drawn.update(named))
    images = find_images(make_pictures(tmp_path / "pictures", 40, classes=4))
    draw_own_neighbours(tmp_path / "n.png", all_of(images, encoder))
    assert sorted(drawn["labels"]) == ["class0", "class1", "class2", "class3"]
    raw = drawn["neighbours"][0]
    assert np.mean(raw.correct) > 0.9  # a class is a colour here


def test_images_of_a_data_set_are_drawn_too(tmp_path, encoder):
    class Shades(torch.utils.data.Dataset):
        def __len__(self):
            return 20

        def __getitem__(self, index):
            return Image.fromarray(np.full((16, 16, 3), 12 * index, np.uint8)), 0

    draw_own_neighbours(tmp_path / "n.png", all_of(open_images(Shades()), encoder))
    assert (tmp_path / "n.png").stat().st_size > 0


def test_the_encoder_stays_in_its_mode(tmp_path, encoder):
    encoder.train()
    draw_own_neighbours(tmp_path / "n.png", all_of(find_images(make_pictures(tmp_path / "p", 8)), encoder))
    assert all(part.training for part in encoder.modules())


def test_a_run_writes_curves_and_neighbours_as_png(tmp_path, pictures, tiny):
    run = pretrain(pictures, tmp_path / "run", recipe=tiny, workers=0, device="cpu")
    for name in ("curves.png", "neighbours.png"):
        with Image.open(run.path / name) as picture:
            assert picture.format == "PNG"


def test_pictures_that_cannot_be_drawn_are_reported_and_the_run_finishes(monkeypatch, tmp_path, pictures, tiny):
    said: list[str] = []

    class Heard(Silent):
        def say(self, text: str) -> None:
            said.append(text)

    def fail(*_, **__):
        raise MemoryError("no room")

    monkeypatch.setattr(draw_pictures, "curves", fail)
    monkeypatch.setattr(draw_pictures, "draw_own_neighbours", fail)
    run = pretrain(pictures, tmp_path / "run", recipe=tiny, workers=0, device="cpu", reporter=Heard())
    assert (run.path / "finished.json").is_file()
    told = [text for text in said if "could not be drawn: MemoryError: no room" in text]
    assert len(told) == 2


def test_a_file_with_the_name_of_a_picture_is_kept(monkeypatch, tmp_path, pictures, tiny):
    monkeypatch.setattr(draw_pictures, "draw_own_neighbours", lambda out, *_, **__: out.write_bytes(b"drawn"))
    user_s = tmp_path / "run" / "curves.png"

    class PutsAFileThere(Silent):
        def live(self, *parts: str) -> None:
            user_s.write_bytes(b"the user's")

    run = pretrain(pictures, tmp_path / "run", recipe=tiny, workers=0, device="cpu", reporter=PutsAFileThere())
    assert user_s.read_bytes() == b"the user's"
    assert (run.path / "neighbours.png").read_bytes() == b"drawn"

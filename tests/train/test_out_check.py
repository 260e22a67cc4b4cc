"""A run folder must not be among the images of the run."""

import shutil

import pytest
from sample_pictures import make_pictures

from moco.data.sources.folder import find_images
from moco.train.out_overlap import check_no_overlap
from moco.train.pretrain import pretrain
from moco.train.run_folder import RunError
from tests.train.run_folders import contents, whole


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("where", [".", "run", "inner/..", ".."])
def test_out_must_not_be_contain_or_lie_in_the_image_folder(tmp_path, tiny, where, overwrite):
    pictures = make_pictures(tmp_path / "all" / "pictures", 40)
    (pictures / "inner").mkdir()
    (pictures / "recipe.json").write_text(tiny.to_json())
    shutil.copy(pictures / "0000.png", pictures / "curves.png")
    before = contents(tmp_path)
    with pytest.raises(RunError, match="the image folder"):
        pretrain(pictures, pictures / where, recipe=tiny, overwrite=overwrite)
    assert contents(tmp_path) == before


def test_out_must_not_be_the_image_folder_by_a_link(tmp_path, tiny):
    pictures = make_pictures(tmp_path / "pictures", 40)
    (tmp_path / "link").symlink_to(pictures)
    with pytest.raises(RunError, match="the image folder"):
        check_no_overlap(tmp_path / "link" / "run", find_images(pictures))


def test_a_list_may_lie_beside_the_run_but_its_images_not_in_it(tmp_path, tiny):
    make_pictures(tmp_path / "pictures", 4)
    (tmp_path / "list.txt").write_text("pictures/0000.png\npictures/0001.png\n")
    images = find_images(tmp_path / "list.txt")
    check_no_overlap(tmp_path / "run", images)
    check_no_overlap(tmp_path / "pictures" / "run", images)
    with pytest.raises(RunError, match="contains images of the run"):
        check_no_overlap(tmp_path / "pictures", images)


@pytest.mark.parametrize("kind", ["to a folder", "to a file"])
def test_images_that_are_links_into_out_are_detected(tmp_path, tiny, kind):
    out = tmp_path / "run"
    whole(out, tiny)
    pictures = make_pictures(tmp_path / "pictures", 4)
    if kind == "to a file":
        shutil.copy(pictures / "0000.png", out / "curves.png")
        (pictures / "x.png").symlink_to(out / "curves.png")
    else:
        make_pictures(out / "more", 2)
        (pictures / "more").symlink_to(out / "more")
    with pytest.raises(RunError, match="is the file" if kind == "to a file" else "contains images of the run"):
        check_no_overlap(out, find_images(pictures), overwrite=True)


def test_overwrite_does_not_remove_the_initial_weights(tmp_path, tiny):
    whole(tmp_path / "run", tiny)
    images = find_images(make_pictures(tmp_path / "pictures", 4))
    for init in (tmp_path / "run", tmp_path / "run" / "encoder", tmp_path / "run" / "encoder" / "model.safetensors"):
        with pytest.raises(RunError, match="which --overwrite removes"):
            check_no_overlap(tmp_path / "run", images, init=init, overwrite=True)
    with pytest.raises(RunError, match=r"--eval-data .* lies in --out"):
        check_no_overlap(tmp_path / "run", images, eval_data=tmp_path / "run" / "labelled")
    check_no_overlap(tmp_path / "run", images, eval_data=tmp_path, init="timm/resnet18", overwrite=True)

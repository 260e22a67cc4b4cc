"""Reading Pascal VOC: the layouts, and what real files hold."""

from pathlib import Path

import pytest

from moco.data.sources.images import DataError
from moco.transfer.readers.entries import AnnotationError
from moco.transfer.readers.formats import read_scenes
from moco.transfer.readers.images import size_of
from moco.transfer.readers.shared import ReadOptions
from moco.transfer.readers.voc import VOC_CLASSES
from tests.transfer.sample_voc import PERSON_WITH_HEAD, devkit, element, picture, xml


def test_trainval_is_that_of_all_years_in_the_order_of_the_lists(tmp_path: Path):
    scenes = read_scenes(devkit(tmp_path), ReadOptions(split="trainval"))
    assert [scene.id for scene in scenes.scenes] == ["000012", "000005", "000007", "2008_000001"]
    assert scenes.classes == VOC_CLASSES
    assert all(scene.path.is_file() for scene in scenes.scenes)


@pytest.mark.parametrize("below", ["", "VOCdevkit", "VOCdevkit/VOC2007"])
def test_the_folder_may_be_the_devkit_what_holds_it_or_one_year(tmp_path: Path, below: str):
    devkit(tmp_path)
    scenes = read_scenes(tmp_path / below, ReadOptions(split="2007_test"))
    assert [scene.id for scene in scenes.scenes] == ["000009"]
    assert len(scenes.scenes[0].objects) == 0
    assert scenes.scenes[0].objects.boxes.shape == (0, 4)


def test_splits_of_years_are_joined(tmp_path: Path):
    scenes = read_scenes(devkit(tmp_path), ReadOptions(split="2012_trainval+2007_test"))
    assert [scene.id for scene in scenes.scenes] == ["2008_000001", "000009"]


def test_boxes_count_from_0_and_a_box_of_one_pixel_has_an_area_of_1(tmp_path: Path):
    objects = read_scenes(devkit(tmp_path), ReadOptions(split="2007_trainval")).scenes[0].objects
    assert objects.boxes.tolist() == [[0, 0, 50, 40], [6, 8, 7, 9]]
    assert objects.areas.tolist() == [2000, 1]
    assert [VOC_CLASSES[label] for label in objects.labels] == ["car", "dog"]


def test_difficult_objects_are_kept_and_marked(tmp_path: Path):
    scenes = read_scenes(devkit(tmp_path), ReadOptions(split="2007_trainval")).scenes
    assert [scene.objects.difficult.tolist() for scene in scenes] == [[False, False], [True], [False]]


def test_the_parts_of_a_person_are_no_objects_and_no_size_is_none(tmp_path: Path):
    scene = read_scenes(devkit(tmp_path), ReadOptions(split="2007_trainval")).scenes[2]
    assert scene.objects.boxes.tolist() == [[10, 4, 30, 40]]
    assert (scene.width, scene.height) == (None, None)
    assert size_of(scene.path) == (50, 40)


def test_fractions_of_2011_and_later_and_a_size_of_0_are_read(tmp_path: Path):
    scene = read_scenes(devkit(tmp_path), ReadOptions(split="2012_trainval")).scenes[0]
    assert scene.objects.boxes.tolist() == [[45.70000076293945 - 1, 1, 49.5, 39]]
    assert scene.objects.difficult.tolist() == [False]
    assert (scene.width, scene.height) == (None, None)


def test_a_missing_split_is_an_error_that_lists_the_existing_ones(tmp_path: Path):
    for split in ("val", None, "2012_test"):
        with pytest.raises(DataError, match="2007_test, 2007_trainval, 2012_trainval"):
            read_scenes(devkit(tmp_path), ReadOptions(split=split))


def test_a_list_of_one_class_is_no_split(tmp_path: Path):
    with pytest.raises(AnnotationError, match=r"car_test\.txt, line 1: .*the list of a single class"):
        read_scenes(devkit(tmp_path), ReadOptions(split="car_test"))


@pytest.mark.parametrize("name", ["../../secret", "/etc/secret", "a/../../b", "..\\secret"])
def test_a_name_in_a_list_that_leads_out_of_the_folder_is_an_error(tmp_path: Path, name: str):
    root = devkit(tmp_path)
    (root / "VOC2007" / "ImageSets" / "Main" / "test.txt").write_text(f"000009\n{name}\n")
    with pytest.raises(AnnotationError, match=r"test\.txt, line 2: .* is a path outside of the folder"):
        read_scenes(root, ReadOptions(split="2007_test"))


def test_an_image_twice_in_a_list_is_an_error(tmp_path: Path):
    root = devkit(tmp_path)
    (root / "VOC2007" / "ImageSets" / "Main" / "test.txt").write_text("000009\n\n000009\n")
    with pytest.raises(AnnotationError, match=r"test\.txt, line 3: image 000009 is in line 1 already"):
        read_scenes(root, ReadOptions(split="2007_test"))


def test_xml_files_beside_the_images_are_read_with_the_classes_that_occur(tmp_path: Path):
    (tmp_path / "b.xml").write_text(xml(element("zebra", (1, 1, 5, 5)), element("ant", (2, 2, 9, 9))))
    (tmp_path / "a.xml").write_text("\ufeff" + xml(PERSON_WITH_HEAD), encoding="utf-8")
    picture(tmp_path / "a.PNG")
    picture(tmp_path / "b.jpg")
    scenes = read_scenes(tmp_path)
    assert [scene.path.name for scene in scenes.scenes] == ["a.PNG", "b.jpg"]
    assert scenes.classes == ("ant", "person", "zebra")
    assert scenes.scenes[1].objects.labels.tolist() == [2, 0]
    fewer = ReadOptions(classes=("person", "zebra"), skip_bad=True)
    assert [len(scene.objects) for scene in read_scenes(tmp_path, fewer).scenes] == [1, 1]
    with pytest.raises(AnnotationError, match=r"b\.xml, b, object 2 \(ant\): ant is none of the classes"):
        read_scenes(tmp_path, ReadOptions(classes=("person", "zebra")))


def test_a_missing_image_names_the_xml_file_and_the_folders(tmp_path: Path):
    root = devkit(tmp_path)
    (root / "VOC2007" / "JPEGImages" / "000009.jpg").unlink()
    with pytest.raises(AnnotationError, match=r"000009\.xml: there is no image 000009\.jpg, in .*JPEGImages"):
        read_scenes(root, ReadOptions(split="2007_test"))


BOMB = '<!DOCTYPE a [<!ENTITY b "bbbbbbbbbb"><!ENTITY c "&b;&b;&b;&b;">]><annotation>&c;</annotation>'
MALFORMED = {
    "": "not valid XML",
    "<annotation>": "not valid XML",
    "\0": "not valid XML",
    "<other/>": "expected the element <annotation>, got <other>",
    BOMB: "document type",
    '<?xml version="1.0" encoding="nonsense"?><annotation/>': "not valid XML",
    xml("<object></object>"): r"object 1 \(without name\): has no <name>",
    xml(element("car", (1, 1, 5, 5)), "<object><name>dog</name></object>"): r"object 2 \(dog\): has no <bndbox/xmin>",
    xml(element("car", ("", 1, 5, 5))): r"object 1 \(car\): has no <bndbox/xmin>",
    xml(element("car", ("one", 1, 5, 5))): r"object 1 \(car\): <bndbox/xmin> must be a number, got 'one'",
    xml(element("car", ("nan", 1, 5, 5))): "must be a number, got 'nan'",
    xml(element("car", (1, 1, "inf", 5))): "must be a number, got 'inf'",
    xml(element("car", (1, 1, "9" * 400, 5))): "must be a number",
    xml(element("car", (9, 1, 5, 5))): r"object 1 \(car\): the box ends before it begins: xmin 9.*xmax 5",
    xml(element("car", (1, 5, 9, 4))): "the box ends before it begins",
    xml(element("car", (1, 1, 5, 5), difficult="<difficult>2</difficult>")): "<difficult> must be 0 or 1, got '2'",
    xml(size="<size><width>-4</width><height>4</height></size>"): "<size> must be positive",
    xml(size="<size><width>x</width><height>4</height></size>"): "<size/width> must be a number",
    xml(element("unicorn", (1, 1, 5, 5))): "unicorn is none of the classes: aeroplane",
}


@pytest.mark.parametrize("text", MALFORMED)
def test_a_malformed_file_is_an_error_that_names_file_and_object(tmp_path: Path, text: str):
    root = devkit(tmp_path)
    file = root / "VOC2007" / "Annotations" / "000009.xml"
    file.write_text(text)
    with pytest.raises(AnnotationError, match=MALFORMED[text]) as caught:
        read_scenes(root, ReadOptions(split="2007_test"))
    assert caught.value.file == file


def test_objects_that_cannot_be_used_may_be_skipped_and_are_remembered(tmp_path: Path):
    root = devkit(tmp_path)
    file = root / "VOC2007" / "Annotations" / "000009.xml"
    file.write_text(xml(element("car", (9, 1, 5, 5)), element("car", (1, 1, 5, 5))))
    scenes = read_scenes(root, ReadOptions(split="2007_test", skip_bad=True))
    assert scenes.scenes[0].objects.boxes.tolist() == [[0, 0, 5, 5]]
    assert len(scenes.skipped) == 1
    assert "object 1 (car): the box ends" in scenes.skipped[0]

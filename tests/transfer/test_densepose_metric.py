"""DensePose's score, on a generated surface in the formats of the true one."""

import io
import math
import pickle
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from moco.data.sources.images import DataError
from moco.transfer.body_surface import BodySurface, read_body_surface
from moco.transfer.metrics.densepose import (
    NORMS,
    BodyResults,
    Similarities,
    _curves,
    densepose_scores,
    match_predictions,
    similarity,
)  # fmt: skip
from moco.transfer.readers.entries import AnnotationError
from moco.transfer.scenes import BodyPoints, SceneSet
from tests.transfer.sample_scenes import objects, scene_set
from tests.transfer.sample_surface import positions, write_surface

BOX = np.array([10.0, 20, 60, 80])


@pytest.fixture(scope="module")
def surface(tmp_path_factory: pytest.TempPathFactory) -> BodySurface:
    folder = tmp_path_factory.mktemp("surface")
    write_surface(folder)
    return read_body_surface(folder)


def person(part: list[int], x: list[float], y: list[float], u: float = 0.0, v: float = 0.0) -> BodyPoints:
    n = len(part)
    mask = np.zeros((256, 256), dtype=np.uint8)
    return BodyPoints(np.array(x), np.array(y), np.array(part), np.full(n, u), np.full(n, v), mask)


def found(part: int, u: float, v: float, box: np.ndarray = BOX, score: float = 1.0) -> BodyResults:
    """One prediction: the same part, U and V everywhere."""
    height, width = int(box[3] - box[1]), int(box[2] - box[0])
    uv = np.stack([np.full((height, width), float(u)), np.full((height, width), float(v))])
    return BodyResults(box[None], np.array([score]), (np.full((height, width), part, dtype=np.uint8),), (uv,))


def of_one(points: BodyPoints | None, **more) -> SceneSet:
    one = replace(objects([BOX], [0], **more), body_points=(points,))
    return scene_set(["person"], [one])


def test_vertices_and_distances_are_those_of_the_files(tmp_path: Path, surface: BodySurface):
    part, u, v, places = positions()
    rng = np.random.default_rng(0)
    chosen = rng.integers(0, len(part), 200)
    near = surface.nearest(part[chosen], u[chosen] + rng.uniform(-0.05, 0.05, 200), v[chosen])
    assert near.tolist() == chosen.tolist()
    other = rng.integers(0, len(part), 200)
    expected = np.linalg.norm(places[chosen] - places[other], axis=1)
    assert surface.geodesics(chosen, other) == pytest.approx(expected, abs=1e-5)
    assert surface.geodesics(np.array([3, -1, -1]), np.array([-1, 3, -1])).tolist() == [math.inf] * 3
    assert surface.nearest(np.array([0]), np.array([0.5]), np.array([0.5])).tolist() == [-1]
    condensed = write_surface(tmp_path)
    (tmp_path / "Pdist_matrix.pkl").unlink()
    np.save(tmp_path / "Pdist_matrix.npy", condensed)
    assert (read_body_surface(tmp_path).distances == surface.distances).all()


def test_the_similarity_falls_with_the_distance_by_the_norm_of_the_part(surface: BodySurface):
    points = person([5, 5], [100.0, 200.0], [100.0, 200.0])  # k of part 5
    assert similarity(points, BOX, found(5, 0, 0), 0, surface) == pytest.approx(1)
    off = similarity(points, BOX, found(5, 1.0, 0), 0, surface)  # 0.5 m away
    assert off == pytest.approx(math.exp(-(0.5**2) / (2 * 0.126**2)), rel=1e-5)
    assert similarity(points, BOX, found(6, 0, 0), 0, surface) == pytest.approx(math.exp(-1 / (2 * 0.126**2)), rel=1e-5)
    assert similarity(points, BOX, found(0, 0, 0), 0, surface) == 0
    assert [NORMS[part - 1] for part in (1, 3, 8, 14, 18, 22, 24)] == [0.351, 0.107, 0.237, 0.173, 0.142, 0.128, 0.150]


def test_a_point_outside_of_the_predicted_box_counts_as_infinitely_far(surface: BodySurface):
    points = person([5, 5], [0.0, 255.0], [0.0, 0.0])
    half = np.array([10.0, 20, 35, 80])
    assert similarity(points, BOX, found(5, 0, 0, half), 0, surface) == pytest.approx(1 / 2)
    assert similarity(points, BOX, found(5, 0, 0, np.array([200.0, 20, 235, 80])), 0, surface) == 0


def test_a_right_prediction_has_ap_1_and_a_wrong_one_0(surface: BodySurface):
    scenes = of_one(person([5], [100.0], [100.0]))
    right = densepose_scores(scenes, [found(5, 0, 0)], surface).stats()
    assert [*right] == ["AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl"]
    assert (right["AP"], right["AR"], right["APm"]) == (pytest.approx(1), 1, pytest.approx(1))  # 3,000 pixels
    assert math.isnan(right["APl"])
    assert densepose_scores(scenes, [found(9, 0, 0)], surface).stats()["AP"] == 0


def test_predictions_on_persons_that_are_not_annotated_do_not_count(surface: BodySurface):
    both = replace(objects([BOX, BOX + 100], [0, 0]), body_points=(person([5], [100.0], [100.0]), None))
    scenes = scene_set(["person"], [both])
    results = [found(5, 0, 0, BOX, 0.5), found(5, 0, 0, BOX + 100, 0.9)]
    joined = BodyResults(
        np.concatenate([one.boxes for one in results]), np.array([0.5, 0.9]),
        results[0].parts + results[1].parts, results[0].uv + results[1].uv,
    )  # fmt: skip
    assert densepose_scores(scenes, [joined], surface).stats()["AP"] == pytest.approx(1)
    elsewhere = replace(joined, boxes=joined.boxes + np.array([[0, 0, 0, 0], [500, 0, 500, 0]]))
    assert densepose_scores(scenes, [elsewhere], surface).stats()["AP"] == pytest.approx(1 / 2)
    nobody = densepose_scores(of_one(None), [found(5, 0, 0)], surface).stats()
    assert math.isnan(nobody["AP"])


def random_image(rng: np.random.Generator) -> Similarities:
    """Persons that are all annotated, and predictions whose boxes overlap none by 0.8, as COCO alone has them."""
    g, p = int(rng.integers(1, 5)), int(rng.integers(0, 8))
    return Similarities(
        np.round(rng.random((p, g)), 1), np.zeros((p, g)), np.sort(np.round(rng.random(p), 1))[::-1].copy(),
        rng.uniform(500, 20000, p), rng.uniform(500, 20000, g), np.ones(g, dtype=bool), np.zeros(g, dtype=bool),
    )  # fmt: skip


def of_pycocotools(images: list[Similarities]) -> np.ndarray:
    """Precision of pycocotools' keypoint evaluation, given these similarities."""
    truth, results = COCO(), COCO()
    truth.dataset = {"images": [{"id": i} for i in range(len(images))], "categories": [{"id": 1}], "annotations": []}
    results.dataset = {**truth.dataset, "annotations": []}
    for number, image in enumerate(images):
        for area in image.areas:
            entry = {"id": len(truth.dataset["annotations"]) + 1, "image_id": number, "category_id": 1, "area": area}
            truth.dataset["annotations"].append({**entry, "iscrowd": 0, "num_keypoints": 1})
        for area, score in zip(image.box_areas, image.scores, strict=True):
            entry = {"id": len(results.dataset["annotations"]) + 1, "image_id": number, "category_id": 1, "area": area}
            results.dataset["annotations"].append({**entry, "score": score})
    with redirect_stdout(io.StringIO()):
        truth.createIndex()
        results.createIndex()
        evaluation = COCOeval(truth, results, "keypoints")
        evaluation.computeOks = lambda image, category: images[image].gps if images[image].gps.size else []
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"]


def test_matching_and_curves_are_coco_s_on_200_random_sets():
    limits = [(0, 1e5**2), (32**2, 96**2), (96**2, 1e5**2)]
    for seed in range(200):
        rng = np.random.default_rng(seed)
        images = [random_image(rng) for _ in range(int(rng.integers(1, 5)))]
        expected = of_pycocotools(images)
        for column, limit in enumerate(limits):
            judged = [match_predictions(image, limit) for image in images]
            if any(one.persons_ignored.all() for one in judged):
                continue  # of such an image COCO counts the predictions
            count = sum(int((~one.persons_ignored).sum()) for one in judged)
            assert np.allclose(_curves(judged, count)[0], expected[:, :, 0, column, 0], rtol=0, atol=1e-12), seed


def test_results_that_do_not_fit_are_errors(surface: BodySurface):
    scenes = of_one(person([5], [100.0], [100.0]))
    with pytest.raises(DataError, match="0 results for 1 images"):
        densepose_scores(scenes, [], surface)
    with pytest.raises(DataError, match="image 0 have 1 boxes, 1 scores, 0 maps of parts"):
        densepose_scores(scenes, [replace(found(5, 0, 0), parts=())], surface)
    with pytest.raises(DataError, match="expected one class, persons; got a, b"):
        densepose_scores(replace(scenes, classes=("a", "b")), [found(5, 0, 0)], surface)


def test_a_pickle_with_code_is_not_executed_and_damaged_files_are_errors(tmp_path: Path):
    write_surface(tmp_path)
    ran = tmp_path / "ran"
    whole = (tmp_path / "Pdist_matrix.pkl").read_bytes()
    hostile = {
        "call": b"cos\nsystem\n(S'touch " + str(ran).encode() + b"'\ntR.",
        "call before the array": b"cos\nsystem\n(S'touch " + str(ran).encode() + b"'\ntR0" + whole,
        "cut": whole[: len(whole) // 2], "empty": b"", "text": b"no pickle" * 1000,
        "other numbers": pickle.dumps({"Pdist_matrix": np.zeros(10_000, dtype=np.float32)}, protocol=4),
    }  # fmt: skip
    for name, content in hostile.items():
        (tmp_path / "Pdist_matrix.pkl").write_bytes(content)
        if name == "call before the array":  # its bytes are numbers, and nothing else is looked at
            read_body_surface(tmp_path)
        else:
            with pytest.raises(AnnotationError, match=r"Pdist_matrix\.pkl"):
                read_body_surface(tmp_path)
        assert not ran.exists(), name
    (tmp_path / "Pdist_matrix.pkl").unlink()
    with pytest.raises(AnnotationError, match=r"Pdist_matrix\.pkl: no such file"):
        read_body_surface(tmp_path)
    scipy.io.savemat(tmp_path / "SMPL_SUBDIV_TRANSFORM.mat", {"other": np.zeros(3)})
    with pytest.raises(AnnotationError, match=r"SMPL_SUBDIV_TRANSFORM\.mat, index: has no variable of this name"):
        read_body_surface(tmp_path)

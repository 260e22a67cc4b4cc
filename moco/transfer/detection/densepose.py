"""The task `densepose`: detect persons, and map their pixels to the surface of the body (Table 6, appendix A.3)."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import nn

from moco.recipe_error import RecipeError
from moco.transfer.body_surface import SURFACE_FILES, read_body_surface
from moco.transfer.body_symmetry import FILE, read_body_symmetry
from moco.transfer.detection.body_pictures import draw_bodies, hardest_bodies, mean_gps
from moco.transfer.detection.loader import SceneLoader, eval_images
from moco.transfer.detection.pictures import details_of, draw_precision_recall
from moco.transfer.detection.recipe import DetectionRecipe
from moco.transfer.detection.scene_images import hash_scenes
from moco.transfer.detection.task import Detection
from moco.transfer.metrics.densepose import MOST_PREDICTIONS, BodyResults, score_similarities, similarities
from moco.transfer.models.boxes import Detections
from moco.transfer.models.densepose import surface
from moco.transfer.models.detector import Detector
from moco.transfer.models.resize import resize
from moco.transfer.models.settings import Task
from moco.transfer.recipe import TransferRecipe
from moco.transfer.scenes import Scene, SceneSet
from moco.transfer.task_interface import ModelResults, TransferData


@dataclass(frozen=True)
class DensePose(Detection):
    """DensePose R-CNN. `folder` has the files of the body surface that scores are computed on."""

    name: Task = "densepose"
    schedule: str = "s1x"
    format: str | None = "densepose"
    folder: Path | None = None

    def with_body_surface(self, folder: Path) -> "DensePose":
        return replace(self, folder=folder)

    def digest(self, annotated: SceneSet) -> str:
        """As in other detection tasks, and of the points on bodies."""
        persons = [one for scene in annotated.scenes for one in scene.objects.body_points or ()]
        parts = [b"" if one is None else b"".join(x.tobytes() for x in vars(one).values()) for one in persons]
        return hash_scenes(annotated, more=repr(parts))

    def columns(self, data: Path, format: str | None) -> tuple[str, ...]:
        return ("AP_densepose", "AP50_densepose", "AP75_densepose")

    def fit(self, recipe: TransferRecipe, data: TransferData[SceneSet]) -> TransferRecipe:
        """Check the files of the body surface. Without the file of symmetries, images are not flipped."""
        read_body_surface(self._surface())
        for part in (data.train, data.test):
            if len(part.classes) != 1 or not any(any(scene.objects.body_points or ()) for scene in part.scenes):
                raise RecipeError(
                    "the annotations have no points on bodies, or several classes: name those of DensePose-COCO"
                )
        symmetry = read_body_symmetry(self._surface())
        return recipe if symmetry is not None else recipe.but(None, {"sizes.flip": 0.0})

    def _surface(self) -> Path:
        if self.folder is None:
            raise RecipeError(
                f"--body-surface FOLDER is missing: it needs the files {', '.join(SURFACE_FILES[:2])} and "
                f"{SURFACE_FILES[2]}.pkl of DensePose's authors, and {FILE} to flip images; they are not downloaded"
            )
        return self.folder

    def describe(self, recipe: TransferRecipe) -> str:
        assert isinstance(recipe, DetectionRecipe)
        flips = "" if recipe.sizes.flip else f", without flipped images (no {FILE} in the folder of --body-surface)"
        return super().describe(recipe) + flips

    def batches(self, annotated: SceneSet, recipe: TransferRecipe, *, steps: range, workers: int) -> SceneLoader:
        assert isinstance(recipe, DetectionRecipe)
        symmetry = read_body_symmetry(self._surface()) if recipe.sizes.flip else None
        mirror = None if symmetry is None else symmetry.mirror
        return SceneLoader(annotated, recipe, steps=steps, workers=workers, mirror_body=mirror)

    def score(self, model: nn.Module, test: SceneSet, recipe: TransferRecipe, *, workers: int) -> dict[str, float]:
        """AP by geodesic point similarity."""
        return self.evaluate(model, test, recipe, workers=workers).scores

    @torch.no_grad()
    def evaluate(self, model: nn.Module, test: SceneSet, recipe: TransferRecipe, *, workers: int) -> ModelResults:
        """AP by geodesic point similarity, also by size, and pictures.

        Maps take much memory, so those of the hardest images are predicted again for the picture.
        """
        assert isinstance(model, Detector)
        assert isinstance(recipe, DetectionRecipe)
        body = read_body_surface(self._surface())
        pairs = zip(test.scenes, bodies_in(model, test.scenes, recipe, workers=workers), strict=True)
        similar = [similarities(scene, persons, body) for scene, persons in pairs]
        scores = score_similarities(test, similar)
        values = {"AP": scores.ap(), "AP50": scores.ap(threshold=0.5), "AP75": scores.ap(threshold=0.75)}

        def draw_hardest() -> bytes:
            chosen = hardest_bodies(similar)
            found = bodies_in(model, tuple(test.scenes[i] for i in chosen), recipe, workers=0)
            return draw_bodies(test, chosen, list(found), [mean_gps(similar[i]) for i in chosen])

        pictures = {
            "predictions.png": draw_hardest,
            "precision_recall.png": lambda: draw_precision_recall({"persons": scores}, measure="GPS"),
        }
        return ModelResults(
            {f"{name}_densepose": 100 * value for name, value in values.items()},
            details_of({"persons": scores}), pictures,
        )  # fmt: skip

    def predict(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, model: nn.Module, recipe: TransferRecipe, image: UInt8[np.ndarray, "H W 3"]
    ) -> BodyResults:
        """The persons in an RGB image, by decreasing score, with part, U and V of the pixels of their boxes."""
        assert isinstance(recipe, DetectionRecipe)
        pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).contiguous()
        resized, _ = resize(pixels, None, shorter=recipe.sizes.eval_shorter, longest=recipe.sizes.longest)
        place = next(model.parameters()).device
        return bodies(model([resized.to(place)], sizes=[image.shape[:2]])[0])


@torch.no_grad()
def bodies_in(
    detector: Detector, scenes: tuple[Scene, ...], recipe: DetectionRecipe, *, workers: int
) -> Iterator[BodyResults]:
    """The detected persons, scene by scene, because their maps take much memory."""
    detector.eval()
    place = next(detector.parameters()).device
    for image, size in eval_images(scenes, recipe, workers=workers):
        yield bodies(detector([image.to(place)], sizes=[size])[0], limit=MOST_PREDICTIONS)


def bodies(detections: Detections, limit: int | None = None) -> BodyResults:
    """Detections in the format of the metric: the `limit` with the highest scores; None: all."""
    scores = detections["scores"]
    order = scores.argsort(descending=True, stable=True)[:limit].tolist()
    maps = [surface(detections, index) for index in order]
    return BodyResults(
        detections["boxes"][order].cpu().numpy(), scores[order].cpu().numpy(),
        tuple(part.cpu().numpy() for part, _ in maps), tuple(uv.cpu().numpy() for _, uv in maps),
    )  # fmt: skip

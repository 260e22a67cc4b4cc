"""`python -m benchmarks.atlas_copies WEIGHTS DATA...`: precision and recall of near-duplicates with planted copies.

Of random images of DATA, changed copies are made: re-encoded (JPEG, quality 50), resized to half the sides, cropped by
3 % at each side, made 10 % brighter; and cropped, resized and re-encoded (JPEG, quality 75). `moco dedup` then groups
originals and copies. An image that it leaves out is right if the one that is kept is a change of the same image.

Prints a table in Markdown: the share of copies that are similar enough to their original, for each change; recall and
precision of what is left out; and the number of wrong ones. Those may be duplicates in DATA: --wrong writes sheets of
them, to look at.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

from moco.atlas.collection import normalize_rows
from moco.atlas.duplicates import group_near
from moco.data.decode.decode import BadImage, decode
from moco.data.sources.open import open_folder
from moco.evaluate.features import load_pretrained

THRESHOLDS = (0.8, 0.85, 0.9, 0.93, 0.95, 0.96, 0.97, 0.98, 0.99, 0.995)
MOST_PIXELS = 2_000_000  # of an original: larger ones are left out, as they take long
SHOWN = 96  # [pixels] of an image on a sheet


def half(image: Image.Image) -> Image.Image:
    return image.resize((max(1, image.width // 2), max(1, image.height // 2)), Image.Resampling.BICUBIC)


def cropped(image: Image.Image) -> Image.Image:
    x, y = round(0.03 * image.width), round(0.03 * image.height)
    return image.crop((x, y, image.width - x, image.height - y))


CHANGES: dict[str, tuple[Callable[[Image.Image], Image.Image], dict[str, int] | None]] = {  # and options of JPEG
    "re-encoded": (lambda image: image, {"quality": 50}),
    "half size": (half, None),
    "cropped": (cropped, None),
    "brighter": (lambda image: ImageEnhance.Brightness(image).enhance(1.1), None),
    "all": (lambda image: half(cropped(image)), {"quality": 75}),
}


def plant(data: list[str], folder: Path, count: int) -> tuple[list[Path], np.ndarray, np.ndarray]:
    """Files of originals and copies in random order; of each the number of its original, and its change (-1: none)."""
    images, rng = open_folder(data), np.random.default_rng(0)
    made = list[tuple[Path, int, int]]()
    for index in rng.permutation(len(images)).tolist():
        try:
            pixels = decode(images.path(index))
        except BadImage:
            continue
        if pixels.shape[0] * pixels.shape[1] > MOST_PIXELS:
            continue
        original, family = Image.fromarray(pixels), len(made) // (1 + len(CHANGES))
        if family == count:
            break
        original.save(folder / f"{family:04d}.png")
        made.append((folder / f"{family:04d}.png", family, -1))
        for k, (change, jpeg) in enumerate(CHANGES.values()):
            file = folder / f"{family:04d}_{k}.{'png' if jpeg is None else 'jpg'}"
            change(original).save(file, **(jpeg or {}))
            made.append((file, family, k))
    order = rng.permutation(len(made))
    files, families, changes = zip(*(made[i] for i in order), strict=True)
    return list(files), np.array(families), np.array(changes)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.atlas_copies", description=__doc__)
    parser.add_argument("weights")
    parser.add_argument("data", nargs="+")
    parser.add_argument("--images", type=int, default=300, metavar="N", help="originals")
    parser.add_argument("--wrong", type=Path, metavar="FOLDER", help="write a sheet of pairs for each threshold")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files, families, changes = plant(asked.data, Path(folder), asked.images)
        x = normalize_rows(load_pretrained(asked.weights, device="cpu").embed(files))
        print(f"| threshold | {' | '.join(CHANGES)} | recall | precision | wrong |\n|{'---|' * (len(CHANGES) + 4)}")
        for threshold in THRESHOLDS:
            pairs = [(group.keep, row) for group in group_near(x, threshold=threshold) for row in group.others]
            right = [(keep, row) for keep, row in pairs if families[keep] == families[row]]
            wrong = [(keep, row) for keep, row in pairs if families[keep] != families[row]]
            report(threshold, len(right), wrong, x, families, changes)
            if asked.wrong and wrong:
                sheet([(files[a], files[b]) for a, b in wrong[:60]], asked.wrong / f"{threshold}.png")


def report(
    threshold: float, right: int, wrong: list[tuple[int, int]], x: np.ndarray, families: np.ndarray, changes: np.ndarray
) -> None:
    """Print a row of the table."""
    originals = x[np.argsort(np.where(changes < 0, families, len(x)), kind="stable")[: (changes < 0).sum()]]
    to_original = np.einsum("nd,nd->n", x, originals[families])
    shares = [100 * float((to_original[changes == k] >= threshold).mean()) for k in range(len(CHANGES))]
    recall, precision = 100 * right / (changes >= 0).sum(), 100 * right / max(1, right + len(wrong))
    cells = [f"{share:.1f}" for share in [*shares, recall, precision]]
    print(f"| {threshold:g} | {' | '.join(cells)} | {len(wrong)} |", flush=True)


def sheet(pairs: list[tuple[Path, Path]], file: Path) -> None:
    """Pairs side by side, ten pairs in a row."""
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = -(-len(pairs) // 10)
    page = Image.new("RGB", (10 * (2 * SHOWN + 8), rows * (SHOWN + 8)), "white")
    for i, pair in enumerate(pairs):
        for k, one in enumerate(pair):
            image = Image.open(one).convert("RGB")
            image.thumbnail((SHOWN, SHOWN))
            page.paste(image, ((i % 10) * (2 * SHOWN + 8) + k * SHOWN, i // 10 * (SHOWN + 8)))
    page.save(file)


if __name__ == "__main__":
    main()

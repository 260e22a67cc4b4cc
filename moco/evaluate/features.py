"""Extract frozen features of images; and `moco.load`, which gives an encoder that is ready to use."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int, UInt8
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

from moco.data.augment.cpu import eval_crop
from moco.data.augment.normalize import normalize
from moco.data.decode.bands import Raw, decode_bands, to_unit
from moco.data.decode.decode import decode, open_file, reason_of
from moco.data.loader.bad_images import Quarantine
from moco.data.loader.loader import eval_batches
from moco.data.remote.urls import are_urls
from moco.data.sources.dataset_items import bands_in, pixels
from moco.data.sources.folder import BadImage, DataError, Images
from moco.data.sources.labels import HOW
from moco.data.sources.open import Sources, open_images
from moco.device import pick_device, workers_for
from moco.encoders import Encoder
from moco.evaluate.baselines import Pixels
from moco.evaluate.progress import Progress
from moco.recipe import DataSpec, EncoderSpec
from moco.text import escape
from moco.weights.encoder_folder import Config, Weights, load_encoder

Picture = str | os.PathLike[str] | Image.Image


def batch_for(data: DataSpec) -> int:
    """Images to encode at a time; changes no feature. 512 up to 90 pixels square, 83 at 224."""
    return max(8, min(512, 2**22 // data.size**2))


@dataclass(frozen=True, eq=False)
class Features:
    """The features of n images, on the CPU."""

    x: Float[Tensor, "n D"]
    labels: Int[Tensor, "n"] | None  # index into `classes`
    classes: Sequence[str]
    names: Sequence[str]
    ids: Int[Tensor, "n"]  # index of each image in the data; bad images are missing

    def known_labels(self) -> Int[Tensor, "n"]:
        """The labels. Raises DataError where there are none."""
        if self.labels is None:
            raise DataError(f"these images have no labels. {HOW}")
        return self.labels

    def __getitem__(self, rows: Tensor) -> "Features":
        """Some of the images."""
        labels = None if self.labels is None else self.labels[rows]
        which: list[int] = rows.tolist()
        return Features(self.x[rows], labels, self.classes, [self.names[i] for i in which], self.ids[rows])


@contextmanager
def set_eval_mode(module: nn.Module) -> Iterator[None]:
    """While open, `module` is in eval mode, without gradients. Afterwards each part is in its former mode again."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad():  # not inference_mode: a module could not train with tensors that it caches there
            yield
    finally:
        for part, mode in modes:
            part.training = mode


def extract(
    encoder: Encoder | Pixels,
    images: Images,
    data: DataSpec,
    *,
    device: torch.device,
    batch_size: int | None = None,
    workers: int = 0,
    quarantine: Quarantine | None = None,
    progress: Progress | None = None,
) -> Features:
    """The features of `images` from `encoder`, which is on `device`. See `extract_each`."""
    return extract_each(
        {"": encoder}, images, data, device=device, batch_size=batch_size, workers=workers, quarantine=quarantine,
        progress=progress,
    )[""]  # fmt: skip


def extract_each(
    encoders: Mapping[str, Encoder | Pixels],
    images: Images,
    data: DataSpec,
    *,
    device: torch.device,
    batch_size: int | None = None,
    workers: int = 0,
    quarantine: Quarantine | None = None,
    progress: Progress | None = None,
) -> dict[str, Features]:
    """The pooled features that each encoder gives, by name; the images are read once for all of them.

    Raises:
        DataError: an image cannot be read; with a `quarantine`, only if too many cannot.
        FloatingPointError: a feature that is not finite.
    """
    rows: dict[str, Tensor] = {}
    ids = torch.zeros(len(images), dtype=torch.int64)
    n, progress = 0, progress or Progress()
    progress.stage("features", len(images))
    batch_size = batch_for(data) if batch_size is None else batch_size
    batches = eval_batches(images, data, batch_size=batch_size, workers=workers, device=device, quarantine=quarantine)
    for x, which in batches:
        ids[n : n + len(x)] = which.cpu()
        for name, encoder in encoders.items():
            with set_eval_mode(encoder):
                y = encoder.features(x.clone()).float().cpu()  # some networks change their input in place
            rows.setdefault(name, torch.empty(len(images), y.shape[1]))[n : n + len(x)] = y
        n += len(x)
        progress.add(len(x))
    if not n:
        raise DataError(f"none of the {len(images):,} images can be read")
    found = {name: features_of_rows(images, rows[name][:n], ids[:n]) for name in encoders}
    for name, features in found.items():
        check_finite(features.x, features.names, of=name)
    return found


def features_of_rows(images: Images, x: Float[Tensor, "n D"], ids: Int[Tensor, "n"]) -> Features:
    """Features `x` of some of `images`, with their labels and names."""
    labels = None if images.labels is None else torch.from_numpy(images.labels)[ids]
    kept: list[int] = ids.tolist()
    return Features(x, labels, list(images.classes), [images.names[i] for i in kept], ids)


def check_finite(x: Float[Tensor, "n D"], names: Sequence[str], *, of: str = "") -> None:
    """Raise FloatingPointError if a feature of one of the images `names` is not finite."""
    bad = ~torch.isfinite(x).all(dim=1)
    if bad.any():
        first = escape(names[int(bad.nonzero()[0])])
        raise FloatingPointError(
            f"the features {f'of {of} ' if of else ''}of {int(bad.sum()):,} of {len(bad):,} images are not finite "
            f"numbers, the first is {first}: the weights are damaged, or from a run that diverged"
        )


@dataclass(frozen=True, eq=False)
class Pretrained:
    """An encoder, ready to use, with its settings for images. `moco.load` returns it."""

    encoder: Encoder  # in eval mode, without a head
    config: Config  # what else is known about it
    device: torch.device
    name: str

    def __repr__(self) -> str:
        network, D = self.config.encoder.name, self.encoder.num_features
        return f"Pretrained({self.name!r}: {network}, {D:,} features, images of {self.data.size} pixels, {self.device})"

    @property
    def data(self) -> DataSpec:
        """Size, eval_resize, mean and std of its images."""
        return self.config.data

    def transform(self, picture: Picture | UInt8[np.ndarray, "H W 3"] | Raw) -> Float32[Tensor, "c S S"]:
        """Prepare a picture, or the file at a path, for `features`: resize, crop the centre, normalize; on the CPU.

        An encoder for bands takes arrays [H, W, C] of the values as they are in the files.

        Raises:
            BadImage: a file that cannot be read.
        """
        pixels = _pixels(picture) if self.data.bands is None else to_unit(_bands(picture), self.data.bands)
        crop = torch.from_numpy(eval_crop(pixels, self.data))
        return normalize(crop[None], mean=self.data.mean, std=self.data.std)[0]

    def features(self, x: Float[Tensor, "N c H W"], dense: bool = False) -> Float[Tensor, "N ..."]:
        """The features N x D of transformed images, or with `dense` the map or patch tokens; without gradients."""
        with set_eval_mode(self.encoder):
            return self.encoder.features(x.to(self.device), dense)

    def embed(
        self,
        pictures: str | Path | Sequence[Picture] | Sources,
        *,
        normalize: bool = False,
        batch_size: int | None = None,
        workers: int | None = None,
    ) -> Float32[np.ndarray, "n D"]:
        """The pooled features of images in their order: a path, a list, a Dataset, an array, or all of a folder.

        Args:
            normalize: divide each feature vector by its Euclidean length.

        Raises:
            DataError: an image that cannot be read, or a folder without any.
        """
        images = _open_pictures(pictures, bands=self.data.bands is not None)
        if not len(images):
            return np.zeros((0, self.encoder.num_features), dtype=np.float32)
        workers = workers_for(workers)
        x = extract(self.encoder, images, self.data, device=self.device, batch_size=batch_size, workers=workers).x
        return (F.normalize(x) if normalize else x).numpy()


def load_pretrained(
    weights: Weights,
    *,
    model: nn.Module | None = None,
    architecture: str | EncoderSpec | None = None,
    device: str | torch.device = "auto",
    prefix: str = "",
) -> Pretrained:
    """A pre-trained encoder. `moco.load` documents the arguments and errors."""
    chosen = pick_device(device)
    encoder, config = load_encoder(weights, architecture=architecture, model=model, prefix=prefix)
    name = os.path.basename(os.path.abspath(weights)) if os.path.exists(weights) else str(weights)
    return Pretrained(encoder.to(chosen).eval(), config, chosen, name)


def _open_pictures(pictures: Any, *, bands: bool) -> Images:
    """The input of `embed` as Images. A list may mix paths and pictures; other input is opened as by `pretrain`."""
    if isinstance(pictures, str | Path) or are_urls(pictures):
        return open_images(pictures, single=True)
    if isinstance(pictures, Dataset | np.ndarray | Tensor) or hasattr(pictures, "names"):
        return open_images(pictures, bands=bands)
    listed = isinstance(pictures, Sequence) or isinstance(next(iter(pictures), None), str | os.PathLike)
    return PictureList(list(pictures)) if listed else open_images(pictures, bands=bands)


def _pixels(picture: Any) -> UInt8[np.ndarray, "H W 3"]:
    return decode(picture) if isinstance(picture, str | os.PathLike) else pixels(picture)


def _bands(picture: Any) -> Raw:
    if not isinstance(picture, str | os.PathLike):
        return bands_in(picture)
    try:
        with open_file(picture) as file:
            return decode_bands(file)
    except ImportError as error:
        raise DataError(str(error)) from error
    except Exception as error:
        raise BadImage(os.fspath(picture), reason_of(error)) from error


class PictureList:
    """A list of pictures and paths, as Images."""

    labels: None = None
    classes: Sequence[str] = ()

    def __init__(self, pictures: Sequence[Any]):
        self.pictures = pictures
        self.names = [
            os.fspath(one) if isinstance(one, str | os.PathLike) else f"picture {i}" for i, one in enumerate(pictures)
        ]
        self.sizes = self.mtimes = np.zeros(len(pictures), dtype=np.int64)
        self._locks = {
            id(one): Lock() for one in pictures
        }  # Pillow decodes on first use: only one thread may use a picture

    def __len__(self) -> int:
        return len(self.pictures)

    def read(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        return self._read(index, _pixels)

    def read_bands(self, index: int) -> Raw:
        return self._read(index, _bands)

    def _read(self, index: int, read: Callable[[Any], Any]) -> Any:
        try:
            with self._locks[id(self.pictures[index])]:
                return read(self.pictures[index])
        except (BadImage, DataError):
            raise
        except Exception as error:  # Pillow decodes an image only here, with errors of any kind
            raise BadImage(self.names[index], f"{type(error).__name__}: {error}") from error

"""The probe set: a fixed sample of the images with two fixed views of each, the same in every run on these images."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from moco.data.augment.normalize import normalize
from moco.data.check.distinct import SamePictures, estimate_distinct, measure_same_pictures, picture_signature
from moco.data.decode.bands import to_picture
from moco.data.loader.bad_images import Quarantine
from moco.data.loader.loader import ViewLoader
from moco.data.sources.images import Images, Subset
from moco.recipe_specs import DataSpec, Jitter, View
from moco.rng import fold, permute

Crops = UInt8[Tensor, "n 3 S S"] | Float32[Tensor, "n c S S"]
ROWS = 64  # images in a mini-batch of the loader
SEED = 0
BYTES = 2**27  # of a view of all images, at most: 891 images of 224 pixels
WHOLE = View(
    crop_area=(1.0, 1.0), crop_ratio=(1.0, 1.0), jitter=Jitter(p=0.0), grey=0.0, blur=0.0, solarize=0.0, flip=0.0,
)  # fmt: skip
PICTURE = DataSpec(size=32, eval_resize=32, views=(WHOLE,))  # in which copies of a picture are looked for


@dataclass(frozen=True, eq=False)
class ProbeSet:
    """The probe set, in the memory of the host."""

    views: tuple[Crops, Crops]
    ids: Int64[Tensor, " n"]
    data: DataSpec
    images: int  # in the data
    same: float  # the probability that two different files show the same picture
    blank: float  # share of images of a single colour

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def distinct(self) -> float:
        """Different pictures in the data, estimated from the probe set."""
        return estimate_distinct(self.images, len(self), SamePictures(self.same, self.blank))

    def view(self, which: int, rows: Tensor, device: torch.device) -> Tensor:
        """Some rows of a view, normalized."""
        return normalize(self.views[which][rows].to(device), mean=self.data.mean, std=self.data.std)


def make_probe(
    images: Images, data: DataSpec, *, count: int, device: torch.device, workers: int, processes: bool = False
) -> ProbeSet:
    """The probe set of about `count` images. Unreadable ones are replaced by others.

    Raises:
        DataError: none of the images can be read.
    """
    count = min(count, len(images), max(ROWS, BYTES // data.view_bytes))
    count = count // ROWS * ROWS or count
    chosen = permute(np.arange(count), len(images), fold(SEED))

    def read(data: DataSpec) -> tuple[list[Tensor], Tensor]:
        rows = min(ROWS, count)
        loader = ViewLoader(
            Subset(images, chosen), data, batch_size=rows, seed=SEED, steps=range(count // rows), workers=workers,
            device=device, quarantine=Quarantine(None, count, count), processes=processes,
        )  # fmt: skip
        parts = [([_as_stored(view, data) for view in views], ids.cpu()) for views, ids in loader]
        views = [torch.cat([views[which] for views, _ in parts]) for which in range(len(data.views))]
        return views, torch.cat([ids for _, ids in parts])

    views, places = read(data.pair)
    (pictures,), which = read(_for_pictures(data))
    first = np.unique(which.numpy(), return_index=True)[1]  # a replacement of a bad image may occur twice
    found = measure_same_pictures(
        [picture_signature(to_picture(one)) for one in pictures[first].permute(0, 2, 3, 1).numpy()]
    )
    return ProbeSet((views[0], views[1]), torch.from_numpy(chosen)[places], data, len(images), found.same, found.blank)


def _for_pictures(data: DataSpec) -> DataSpec:
    """PICTURE, with the bands of `data`."""
    if data.bands is None:
        return PICTURE
    return PICTURE.model_copy(update={"mean": data.mean, "std": data.std, "bands": data.bands})


def _as_stored(view: Tensor, data: DataSpec) -> Crops:
    """The inverse of `normalize`, exactly for bytes."""
    mean, std = (torch.tensor(x, device=view.device).view(-1, 1, 1) for x in (data.mean, data.std))
    if data.bands is not None:
        return (view * std + mean).clamp(0, 1).to("cpu", torch.float32)
    return ((view * std + mean) * 255).round().clamp(0, 255).to("cpu", torch.uint8)

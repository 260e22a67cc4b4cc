"""A cache of features in files, so that several evaluations compute them once.

The key is a hash of everything that the bits of features depend on: weights, contents of the images, settings, device,
our code, and the versions of libraries. The files are in the folder `features` of a run or encoder.
"""

import hashlib
import json
import os
import platform
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from threading import Event

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

import moco
from moco.data.decode.decode import BadImage, open_file
from moco.data.loader.bad_images import Quarantine
from moco.data.loader.threads import Abandoned, in_order
from moco.data.sources.folder import Folder
from moco.data.sources.images import Images, Subset
from moco.encoders import Encoder
from moco.evaluate.baselines import Pixels
from moco.evaluate.features import Features, batch_for, extract_each, features_of_rows
from moco.evaluate.progress import Progress
from moco.files import refuse_special, remove_temporary_files, write_atomically
from moco.recipe import DataSpec
from moco.text import escape, message_of

FOLDER = "features"  # in the folder of a run or encoder
FORMAT = 2  # of the keys and of the files
HEAD = f"moco features {FORMAT} ".encode()  # followed by the SHA-256 of key and body, and a line break
NAME = re.compile(r"[0-9a-f]{64}\.features")
MAX_FILE, MAX_TOTAL = 2**30, 2**32  # [bytes]
PACKAGES = ("torch", "torchvision", "timm", "pillow", "numpy", "simplejpeg", "numba")  # their versions may change bits
CODE = ("encoders", "data/decode", "data/augment", "data/loader", "evaluate/baselines.py", "evaluate/features.py")
CHUNK = 64  # files that a thread hashes at a time

Rows = tuple[Float[Tensor, "n D"], Int[Tensor, "n"]]  # features, and for each row the index of its image


@dataclass(frozen=True)
class FeatureCache:
    """Files of features in one folder. A damaged file is reported, and counts as missing.

    Args:
        say: called with a sentence about a file that cannot be read or written.
    """

    folder: Path
    say: Callable[[str], None] = lambda text: None

    def read(self, key: str) -> Rows | None:
        """The features stored under this key; None if there are none, or they are damaged."""
        file = self._file(key)
        try:
            refuse_special(file)
            head, _, body = file.read_bytes().partition(b"\n")
            if head != _header(key, body):
                raise ValueError("it is damaged")
            tensors = load(body)
            x, ids = tensors["x"], tensors["ids"]
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            self.say(f"features are computed again, {escape(str(file))} cannot be used: {message_of(error)}")
            return None
        with suppress(OSError):
            os.utime(file)  # mark as recently used
        return x, ids

    def write(self, key: str, x: Float[Tensor, "n D"], ids: Int[Tensor, "n"]) -> None:
        """Store features. A failure is reported by `say` and is not an error."""
        if x.nbytes > MAX_FILE or self.folder.is_symlink():
            return
        body = save({"x": x.contiguous(), "ids": ids.contiguous()})
        head = _header(key, body) + b"\n"
        try:
            self.folder.mkdir(exist_ok=True)
            write_atomically(self._file(key), lambda file: (file.write(head), file.write(body)))
            self._remove_old()
        except OSError as error:
            self.say(f"features are not stored in {escape(str(self.folder))}: {message_of(error)}")

    def _file(self, key: str) -> Path:
        return self.folder / f"{key}.features"

    def _remove_old(self) -> None:
        """Remove the least recently used files over the size limit, and temporary files of killed processes."""
        remove_temporary_files(self.folder)
        ours = [(path.stat(), path) for path in self.folder.iterdir() if NAME.fullmatch(path.name)]
        total = 0
        for status, path in sorted(ours, key=lambda one: one[0].st_mtime, reverse=True):
            total += status.st_size
            if total > MAX_TOTAL:
                path.unlink(missing_ok=True)


def _header(key: str, body: bytes) -> bytes:
    """The first line of the file of `key`; it depends on the key, so a renamed file is noticed."""
    return HEAD + hashlib.sha256(key.encode() + body).hexdigest().encode()


def cache_of(weights: str | Path, say: Callable[[str], None] = lambda text: None) -> FeatureCache | None:
    """The cache in the folder of a run or encoder; None for weights that are not a folder."""
    return FeatureCache(Path(weights) / FOLDER, say) if os.path.isdir(weights) else None


def extract_each_cached(
    encoders: Mapping[str, Encoder | Pixels],
    images: Images,
    data: DataSpec,
    *,
    device: torch.device,
    workers: int,
    quarantine: Quarantine,
    cache: FeatureCache | None,
    progress: Progress,
) -> dict[str, Features]:
    """As `extract_each`, with features read from `cache` if it has them, and stored there if not.

    Not stored: features of images that are not files, of the user's own modules (no key covers their code), and of
    files that changed during the extraction.

    Raises: as `extract_each`.
    """
    paths = cacheable_paths(images) if cache is not None else None
    keys: dict[str, str] = {}
    stamp, kept = "", {}
    if cache is not None and paths is not None:
        stamp = _file_stamp(paths)
        content = _hash_contents(paths, workers=workers, progress=progress)
        for name, encoder in encoders.items():
            if not (isinstance(encoder, Encoder) and encoder.spec.name == "custom"):
                keys[name] = key_of(encoder, data, content, device=device)
        kept = _read_cached(cache, keys, images, quarantine)
    found = {name: features_of_rows(images, *rows) for name, rows in kept.items()}
    missing = {name: encoder for name, encoder in encoders.items() if name not in kept}
    if missing:
        found |= extract_each(
            missing, images, data, device=device, workers=workers, quarantine=quarantine, progress=progress
        )
        if cache is not None and paths is not None and _file_stamp(paths) == stamp:
            for name in missing.keys() & keys.keys():
                cache.write(keys[name], found[name].x, found[name].ids)
    return {name: found[name] for name in encoders}


def _read_cached(
    cache: FeatureCache, keys: Mapping[str, str], images: Images, quarantine: Quarantine
) -> dict[str, Rows]:
    """The cached features, by name. None of them if an image that was unreadable before can now be read."""
    kept = {name: rows for name, key in keys.items() if (rows := cache.read(key)) is not None}
    if not kept:
        return {}
    ids = next(iter(kept.values()))[1]
    if not all(torch.equal(other, ids) for _, other in kept.values()):
        return {}
    for index in np.setdiff1d(np.arange(len(images)), ids.numpy()):
        try:
            images.read(int(index))
        except BadImage as bad:
            quarantine.add(bad.name, bad.reason)
        else:
            return {}
    return kept


def key_of(encoder: nn.Module, data: DataSpec, content: str, *, device: torch.device) -> str:
    """The key of the features of these images by this encoder: 64 hexadecimal digits."""
    parts = {
        "format": FORMAT, "encoder": hash_weights(encoder), "images": content, "batch_size": batch_for(data),
        "data": data.model_dump(mode="json", exclude={"views", "decode"}), "device": _describe_device(device),
        "code": _hash_code(), "versions": {name: _version(name) for name in PACKAGES},
    }  # fmt: skip
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def hash_weights(encoder: nn.Module) -> str:
    """SHA-256 of the class, the spec, and every parameter and buffer with its name."""
    spec = f"{encoder.spec.model_dump_json()} {encoder.size}" if isinstance(encoder, Encoder) else ""
    digest = hashlib.sha256(f"{type(encoder).__qualname__} {spec}\n".encode())
    for name, tensor in [*encoder.named_parameters(), *encoder.named_buffers()]:
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def cacheable_paths(images: Images) -> list[str] | None:
    """The files of images; None if they are not files, so that their pixels may differ each time."""
    places = np.arange(len(images))
    while isinstance(images, Subset):
        places, images = images.indices[places], images.images
    return [images.path(int(i)) for i in places] if isinstance(images, Folder) and images.local else None


def _hash_contents(paths: list[str], *, workers: int, progress: Progress) -> str:
    """SHA-256 of the concatenated SHA-256 of the files, in order."""

    def hashes(some: list[str], gone: Event) -> list[bytes]:
        if gone.is_set():
            raise Abandoned
        return [_hash_file(path) for path in some]

    progress.stage("hashing images, to find stored features", len(paths))
    digest = hashlib.sha256()
    chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
    for some in in_order(hashes, chunks, workers=workers):
        digest.update(b"".join(some))
        progress.add(len(some))
    return digest.hexdigest()


def _hash_file(path: str) -> bytes:
    try:
        with open_file(path) as file:
            return hashlib.file_digest(file, "sha256").digest()
    except (OSError, ValueError):  # a bad image: `_kept` tries it again each time
        return hashlib.sha256(b"cannot be read").digest()


def _file_stamp(paths: list[str]) -> str:
    """SHA-256 of size, inode and times of each file: it changes with the files."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            status = os.stat(path)
            facts = f"{status.st_size} {status.st_dev} {status.st_ino} {status.st_mtime_ns} {status.st_ctime_ns}\n"
        except OSError as error:
            facts = f"{error.errno}\n"
        digest.update(facts.encode())
    return digest.hexdigest()


def _describe_device(device: torch.device) -> list[str]:
    """The device and its numeric settings."""
    precision = torch.get_float32_matmul_precision()
    if device.type == "cuda":
        name, cudnn = torch.cuda.get_device_name(device), str(torch.backends.cudnn.version())
        return [name, str(torch.version.cuda), cudnn, precision, str(torch.backends.cudnn.allow_tf32)]
    cpu = [platform.machine(), torch.backends.cpu.get_cpu_capability(), str(torch.get_num_threads())]
    return [device.type, precision, *cpu]


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _hash_code() -> str:
    """SHA-256 of the source files that features depend on."""
    root, digest = Path(moco.__file__).parent, hashlib.sha256(moco.__version__.encode())
    for part in CODE:
        for file in sorted((root / part).rglob("*.py")) if (root / part).is_dir() else [root / part]:
            digest.update(file.read_bytes())
    return digest.hexdigest()

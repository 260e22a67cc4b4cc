"""Files of every kind, and ways to damage them."""

import io

import numpy as np
from PIL import Image


def seed_files() -> dict[str, bytes]:
    """A file of each kind, to be damaged."""
    noise = np.random.default_rng(0).integers(0, 256, (24, 24, 4), dtype=np.uint8)
    rgb, files = Image.fromarray(noise[..., :3]), {}
    kinds: dict[str, tuple[Image.Image, dict]] = {
        "baseline.jpg": (rgb, {}),
        "progressive.jpg": (rgb, {"progressive": True}),
        "cmyk.jpg": (rgb.convert("CMYK"), {}),
        "grey.jpg": (rgb.convert("L"), {}),
        "8.png": (rgb, {}),
        "16.png": (Image.fromarray(noise[..., 0].astype(np.uint16) * 257), {}),
        "1.png": (rgb.convert("1"), {}),
        "palette.png": (rgb.convert("P"), {"transparency": 3}),
        "alpha.png": (Image.fromarray(noise), {}),
        "still.webp": (Image.fromarray(noise), {}),
        "moving.webp": (rgb, {"save_all": True, "append_images": [rgb.rotate(90)]}),
        "x.gif": (rgb.convert("P"), {"save_all": True, "append_images": [rgb.rotate(90)]}),
        "raw.tif": (rgb, {}),
        "deflate.tif": (rgb, {"compression": "tiff_adobe_deflate"}),
        "x.bmp": (rgb, {}),
    }
    exif = Image.Exif()
    exif[274] = 6
    for name, (image, options) in kinds.items():
        buffer = io.BytesIO()
        more = {"exif": exif} if name == "baseline.jpg" else {}
        image.save(buffer, {"jpg": "JPEG", "tif": "TIFF"}.get(name[-3:], name.split(".")[1].upper()), **options, **more)
        files[name] = buffer.getvalue()
    return files


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """`data` with some bytes changed, cut off, taken out or put elsewhere; half of the time near its start."""
    out = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        place = int(rng.integers(0, len(out) if rng.random() < 0.5 else min(len(out), 64)))
        match rng.integers(5):
            case 0:
                out[place] = int(rng.integers(256))
            case 1:
                out[place : place + 4] = rng.bytes(4)
            case 2:
                del out[place : place + int(rng.integers(1, 20))]
            case 3:
                del out[max(place, 16) :]
            case _:
                out[place:place] = out[: int(rng.integers(1, 40))]
        if not out:
            break
    return bytes(out)

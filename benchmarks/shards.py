"""Images a second from shards and from the folder that they were packed from, in turn.

    python -m benchmarks.shards FOLDER SHARDS --rounds 5

Reads the same random images from both, decoded, by some threads. The pages of the files are dropped from memory before
each round where the system allows it (Linux), so that the disk is measured too; `--warm` leaves them.
"""

import argparse
import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from moco.data.sources.images import Images
from moco.data.sources.open import open_images


def drop_pages(folder: str) -> None:
    """Let the system forget the files of `folder`."""
    for path in Path(folder).rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def images_per_second(images: Images, order: np.ndarray, threads: int) -> float:
    began = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(images.read, order.tolist()):
            pass
    return len(order) / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder")
    parser.add_argument("shards")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--warm", action="store_true")
    args = parser.parse_args()
    sources = {args.folder: open_images(args.folder), args.shards: open_images(args.shards)}
    ratios = []
    for number in range(args.rounds):
        order = np.random.default_rng(number).permutation(len(sources[args.folder]))[: args.images]
        rates = {}
        for name, images in sources.items():
            if not args.warm:
                drop_pages(name)
            rates[name] = images_per_second(images, order, args.threads)
        ratios.append(rates[args.shards] / rates[args.folder])
        print(", ".join(f"{name}: {rate:,.0f} images/s" for name, rate in rates.items()), flush=True)
    print(f"shards / folder: {statistics.median(ratios):.2f} (median of {', '.join(f'{one:.2f}' for one in ratios)})")


if __name__ == "__main__":
    main()

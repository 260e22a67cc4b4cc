"""How long training waits for images of a web server that answers late, beside the same images on the disk.

    python -m benchmarks.remote --latency 20 --epochs 3

The demo's pictures, as files and as shards, are served by a process on this machine that waits before each answer. The
demo's network is trained on each in turn. Printed is the share of the time that it waited for views, in the first
epoch, in which images are read, and in all; and the load of the machine.
"""

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from moco import recipes
from moco.data.augment.kernel_loading import kernels
from moco.data.loader.bad_images import Quarantine
from moco.data.loader.loader import ViewLoader
from moco.data.shards.pack import pack
from moco.data.sources.demo import demo_data
from moco.data.sources.open import open_images
from moco.train.build import contrast_for, in_format, scaler_for, threads
from moco.train.checkpoint import Clock, TrainState
from moco.train.loop import train
from moco.train.optim import optimizer_for

CPU = torch.device("cpu")


class _Late(SimpleHTTPRequestHandler):
    """Waits, then answers with a file or a range of its bytes."""

    protocol_version = "HTTP/1.1"

    def __init__(self, *args: Any, latency: float, **options: Any):
        self.latency = latency  # [s]
        super().__init__(*args, **options)

    def do_GET(self) -> None:
        time.sleep(self.latency)
        wanted, path = self.headers.get("Range"), Path(self.translate_path(self.path))
        if wanted is None or not path.is_file():
            super().do_GET()
            return
        first, last = map(int, wanted.removeprefix("bytes=").split("-"))
        with path.open("rb") as file:
            part = os.pread(file.fileno(), last + 1 - first, first)
        self.send_response(206)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def serve(folder: str, latency: float, sender: Connection) -> None:
    """Serve `folder` until the process is ended; sends the port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Late, directory=folder, latency=latency))
    server.daemon_threads = True
    sender.send(server.server_address[1])
    server.serve_forever()


def waits(data: str, epochs: int, workers: int) -> list[tuple[float, float]]:
    """(seconds, seconds waited for views) at the end of each epoch."""
    images, recipe = open_images(data), recipes.named("demo")
    per_epoch = len(images) // recipe.optim.batch_size
    loader = ViewLoader(
        images, recipe.data, batch_size=recipe.optim.batch_size, seed=0, steps=range(epochs * per_epoch),
        workers=workers, device=CPU, quarantine=Quarantine(None, None, len(images)),
    )  # fmt: skip
    contrast = contrast_for(recipe, CPU, num_images=len(images), model=None, init=None, say=lambda _: None)
    clock = Clock(epochs * per_epoch, per_epoch)
    state = TrainState(contrast, optimizer_for(contrast, recipe.optim), clock, scaler_for(recipe, CPU))
    marks, began = list[tuple[float, float]](), time.perf_counter()

    def batches() -> Iterator[Any]:
        for number, batch in enumerate(loader, start=1):
            yield batch
            if number % per_epoch == 0:
                marks.append((time.perf_counter() - began, loader.waited))

    with threads(recipe.compute.threads):
        train(
            contrast, state, in_format(batches(), recipe), lr=recipe.optim.lr, m=recipe.method.momentum, seed=0,
            after_step=lambda *_: None,
        )  # fmt: skip
    return marks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--latency", type=float, default=20.0, help="[ms] before each answer")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    kernels(wait=True)  # they are not compiled during the measurement
    with tempfile.TemporaryDirectory() as folder:
        photos = demo_data() / "train"
        (Path(folder) / "files").symlink_to(photos)
        pack(open_images(photos), Path(folder) / "shards")
        receiver, sender = multiprocessing.Pipe(duplex=False)
        server = multiprocessing.Process(target=serve, args=(folder, args.latency / 1000, sender), daemon=True)
        server.start()
        url = f"http://127.0.0.1:{receiver.recv()}"
        places = {"disk": str(photos), "files by HTTP": f"{url}/files", "shards by HTTP": f"{url}/shards"}
        for _ in range(args.rounds):
            for name, data in places.items():
                marks = waits(data, args.epochs, args.workers)
                first, last = (f"{100 * waited / seconds:.1f} %" for seconds, waited in (marks[0], marks[-1]))
                print(
                    f"{name}: waited {first} of {marks[0][0]:.1f} s in the first epoch, {last} of {marks[-1][0]:.1f} s "
                    f"in {args.epochs}; load {os.getloadavg()[0]:.1f}",
                    flush=True,
                )
        server.terminate()


if __name__ == "__main__":
    main()

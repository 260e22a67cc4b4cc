"""Load the compiled kernels (kernels.py) in the background, and compile them first if need be.

Loading takes half a second, in a thread. Compiling takes about twenty seconds, once per machine, in a separate process;
the run never waits for it. Until the kernels are loaded, Pillow and torch make the views. Without a writable folder for
numba's cache (in a container, for example), they are compiled in a temporary folder for this process only.
"""

import functools
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

SLOW = "MOCO_SLOW_VIEWS"  # environment variable: when set, the kernels are not used


def kernels(*, wait: bool = False) -> ModuleType | None:
    """The compiled kernels, or None where numba does not work.

    Args:
        wait: load them, or wait until they are loaded. Otherwise None as long as they are not loaded.
    """
    return _loader().start().result() if wait else _loader().get_loaded()


def is_loading() -> bool:
    """Whether the kernels are being compiled or loaded: views take longer until they are."""
    return _loader().is_loading()


def load_kernels() -> None:
    """Start to load the kernels in the background, if not started yet."""
    _loader().start()


class _Loader:
    """Loads the kernels once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._future: Future[ModuleType | None] | None = None

    def start(self) -> Future[ModuleType | None]:
        """Start to load them, the first time that this is called."""
        with self._lock:
            if self._future is None:
                self._future = Future()
                if os.environ.get(SLOW):
                    self._future.set_result(None)
                else:
                    threading.Thread(
                        target=_compile_and_import, args=[self._future], name="moco-kernels-compile", daemon=True
                    ).start()
            return self._future

    def is_loading(self) -> bool:
        return self._future is not None and not self._future.done()

    def get_loaded(self) -> ModuleType | None:
        """The kernels; None while they are not loaded."""
        future = self._future
        return future.result() if future is not None and future.done() else None


@functools.cache
def _loader() -> _Loader:
    """The one of this process."""
    return _Loader()


def _compile_and_import(future: "Future[ModuleType | None]") -> None:
    """Compile the kernels if need be; then import them in a thread that the end of the process waits for."""
    cache = None
    if not _compiled_before() and not _compile():
        with suppress(OSError):  # no folder for temporary files can be written
            cache = TemporaryDirectory(prefix="moco-kernels-", ignore_cleanup_errors=True)
            _compile(cache.name)
    threading.Thread(target=_import, args=[future, cache], name="moco-kernels", daemon=False).start()


def _import(future: "Future[ModuleType | None]", cache: "TemporaryDirectory[str] | None") -> None:
    kernels = None
    try:
        with _cached_in(cache.name) if cache is not None else nullcontext():
            from moco.data.augment import kernels
    except BaseException as error:  # numba is missing, or does not support this machine or this Python
        warnings.warn(
            f"views are made by Pillow and torch, some five times more slowly, because numba does not work here "
            f"({type(error).__name__}: {error}). If it has no folder for its cache, set NUMBA_CACHE_DIR to a writable "
            "one",
            stacklevel=2,
        )
    finally:
        if cache is not None:
            cache.cleanup()  # its content has been loaded
        future.set_result(kernels)


def _compiled_before() -> bool:
    """Whether numba's cache is in the folder beside the kernels; numba uses it only where that folder is writable."""
    beside = Path(__file__).parent / "__pycache__"
    return "NUMBA_CACHE_DIR" not in os.environ and os.access(beside, os.W_OK) and any(beside.glob("kernels.*.nbi"))


@contextmanager
def _cached_in(folder: str) -> Iterator[None]:
    """While open, numba reads its cache from `folder`. The cache of the user's own functions stays where it was."""
    import numba

    before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, folder  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        numba.config.CACHE_DIR = before  # pyright: ignore[reportAttributeAccessIssue]


def _compile(cache: str | None = None) -> bool:
    """Compile the kernels in a separate process, into numba's cache or the folder `cache`. Whether it worked.

    It does not where no process can be started (limits, permissions).
    """
    added = {"PYTHONPATH": os.pathsep.join(sys.path)} | ({} if cache is None else {"NUMBA_CACHE_DIR": cache})
    try:
        done = subprocess.run(
            [sys.executable, "-c", "import moco.data.augment.kernels"], env=os.environ | added, check=False,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
    except OSError:
        return False
    return done.returncode == 0

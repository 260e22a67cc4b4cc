"""How a command's process starts and ends. The savings are for torch 2.14 on one core, minimum of five starts.

See also `moco.data.sources.background_scan`, which lists the images in another process while
this one imports torch. It saves the 0.5 s that listing 100,000 files takes, where a second core is free.
"""

import atexit
import gc
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from inspect import unwrap
from typing import Any, NoReturn


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Import modules inside. Saves 0.4 s of the 2.3 s that importing `moco.train.pretrain` takes.

    Imports create many objects that stay, and Python searches them for garbage again and again. They are not searched
    later either (`gc.freeze`).
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def without_compiler(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method of a torch optimizer without its wrapper. Saves 1.7 s when the first optimizer is made.

    The wrapper keeps the method out of compiled code, and imports torch's compiler for that.
    """
    return unwrap(method)  # `method` itself where torch has no wrapper


def end_process(code: int) -> NoReturn:
    """End this process as Python ends the processes that it forks: everything but the interpreter is closed first.

    Threads of gloo still exist after the process group is destroyed. When they meet an interpreter that is being
    finalized, they abort the process, after its work is done: 1 of 40 runs on two ranks ended with code 134.
    """
    threading._shutdown()  # pyright: ignore[reportAttributeAccessIssue]  # waits for threads, as at a normal end
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # it has no reader, or is closed
            stream.flush()
    os._exit(code)

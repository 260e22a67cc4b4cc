"""Work by forked processes gives what a loop gives, also if processes die or none can be started."""

import subprocess
import sys

import pytest

START = """if True:
    import os, sys, time
    from moco.data.sources import forked_map as module
    from moco.data.sources.forked_map import map_in_forks
    module.cores = lambda: 3
    forked, fork, main = [], os.fork, os.getpid()
    def count():
        forked.append(fork())
        return forked[-1]
    os.fork = count
    def alive():
        return [process for process in forked if os.path.exists(f"/proc/{process}")]
"""
CASES = {
    "a loop": (
        "print(list(map_in_forks(lambda x: (x * x, os.getpid() != main), range(10))))",
        str([(x * x, True) for x in range(10)]),
    ),
    "large results, of which only some are taken": (
        "results = map_in_forks(lambda x: bytes(10**6 + x), range(30)); "
        "print([len(next(results)) for _ in range(4)]); results.close()",
        str([10**6 + x for x in range(4)]),
    ),
    "processes that die": (
        "print(list(map_in_forks(lambda x: os._exit(1) if os.getpid() != main and x > 4 else x, range(10))))",
        str(list(range(10))),
    ),
    "no process can be started": (
        "def refuse(): raise OSError('none left')\n    os.fork = refuse\n"
        "    print(list(map_in_forks(lambda x: x + 1, range(4))))",
        "[1, 2, 3, 4]",
    ),
    "an error": (
        "try: list(map_in_forks(lambda x: 1 / (x - 5), range(10)))\n"
        "    except ZeroDivisionError as error: print(error)",
        "division by zero",
    ),
    "one item": ("print(list(map_in_forks(lambda x: os.getpid() == main, [1])), len(forked))", "[True] 0"),
    "a process with threads": (
        "import threading\n    threading.Thread(target=time.sleep, args=(0.5,)).start()\n"
        "    print(list(map_in_forks(lambda x: os.getpid() == main, [1, 2])), len(forked))",
        "[True, True] 0",
    ),
}


@pytest.mark.skipif(sys.platform != "linux", reason="needs a safe fork")
@pytest.mark.parametrize("case", CASES)
def test_results_come_in_order_and_no_process_is_left(case: str):
    """In a process of its own: this one has threads, so it must not fork."""
    code, expected = CASES[case]
    done = subprocess.run(
        [sys.executable, "-c", f"{START}    {code}\n    print(alive())"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.stdout.splitlines(), done.stderr) == ([expected, "[]"], "")

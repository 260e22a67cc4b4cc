"""What `moco.launch.launch` starts in its tests: quick to import, for a launched process imports it."""

import os
import signal
import time
from pathlib import Path


def second_fails() -> None:
    """Rank 1 ends with code 3 while rank 0 works on."""
    if os.environ["RANK"] == "1":
        raise SystemExit(3)
    time.sleep(60)


def second_is_killed() -> None:
    if os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def shows_the_folder() -> None:
    """The permissions of the folder in which the ranks meet."""
    print(oct(Path(os.environ["MOCO_STORE"]).parent.stat().st_mode & 0o777))

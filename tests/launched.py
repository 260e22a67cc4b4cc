"""What `moco.distributed.launch` starts in its tests: quick to import, for a launched process imports it."""

import os
import signal
import time


def second_fails() -> None:
    """Rank 1 ends with code 3 while rank 0 works on."""
    if os.environ["RANK"] == "1":
        raise SystemExit(3)
    time.sleep(60)


def second_is_killed() -> None:
    if os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)

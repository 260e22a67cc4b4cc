"""The loss over a million keys, in a process of its own: memory beyond its inputs."""

import subprocess
import sys

import pytest

PROBE = """
import sys, torch, torch.nn.functional as F
from moco.method import LookUp, info_nce

def peak():  # VmHWM [MB]; ru_maxrss would report the parent's
    return next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("VmHWM")) / 1024

torch.set_num_threads(1)
q = F.normalize(torch.randn(256, 128), dim=1).requires_grad_()
positive, small = F.normalize(torch.randn(256, 128), dim=1), F.normalize(torch.randn(8192, 128), dim=1)
keys = F.normalize(torch.randn(1 << 20, 128), dim=1)
info_nce(LookUp(q, small, positive=positive), 0.2).backward()  # warms up what is allocated once
open("/proc/self/clear_refs", "w").write("5")
before = peak()
if sys.argv[1] == "streamed":
    info_nce(LookUp(q, keys, positive=positive), 0.2).backward()
else:
    logits, label = LookUp(q, keys[: 1 << 18], positive=positive).logits()
    F.cross_entropy(logits / 0.2, label).backward()
print(peak() - before)
"""


def extra_megabytes(form: str) -> float:
    done = subprocess.run([sys.executable, "-c", PROBE, form], capture_output=True, text=True, check=True)
    return float(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_loss_over_a_million_keys_takes_less_than_10_megabytes():
    assert extra_megabytes("streamed") < 10


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_memory_probe_sees_materialized_logits():
    """256 x 262,144 float32 logits are 256 MB: the probe must find at least that in the plain form."""
    assert extra_megabytes("plain") > 256

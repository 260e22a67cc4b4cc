"""A command in a network of its own: every socket there is the command's, and the kernel counts what it sends.

That network has only a loopback interface. /etc/hosts does not have the machine's name, so a look-up of it sends a
datagram to port 53 of the loopback interface, where no name server listens. It is counted. Linux, with `unshare`.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP, MS_BIND = 0x8913, 0x8914, 1, 4096  # <linux/sockios.h>, <linux/if.h>, <sys/mount.h>
TABLES = ("tcp", "tcp6", "udp", "udp6")
UNSHARE = ["unshare", "--map-root-user", "--net", "--mount"]
LOOKS = 0.01  # [s] between two looks at the sockets


@dataclass(frozen=True)
class Seen:
    """What a command did, and what it left in the kernel's books."""

    code: int
    output: str
    listening: frozenset[str]  # addresses at which a TCP socket listened or a UDP socket was bound
    counts: dict[str, int]  # of the kernel: IP packets sent, without a route, TCP connections opened, datagrams sent

    @property
    def away(self) -> list[str]:
        """The addresses that are not those of the loopback interface."""
        return sorted(one for one in self.listening if not ip_address(one).is_loopback)


def can_unshare() -> bool:
    """Whether this user may make a network of its own."""
    try:
        return subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def watched(command: list[str], *, timeout: float = 240, **environment: str) -> Seen:
    """Run `command` in a network of its own. Raises TimeoutExpired."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder, "answer.json")
        done = subprocess.run(
            [*UNSHARE, sys.executable, __file__, str(answer), *command], env=os.environ | environment, timeout=timeout,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        found = json.loads(answer.read_text())
    return Seen(done.returncode, done.stdout, frozenset(found["listening"]), found["counts"])


def listening(proc: Path = Path("/proc/net")) -> set[str]:
    """The addresses of all TCP sockets that listen, and of all UDP sockets."""
    found: set[str] = set()
    for table in TABLES:
        path = proc / table
        for line in path.read_text().splitlines()[1:] if path.exists() else []:
            _, local, _, state, *_ = line.split()
            if state == "0A" or table.startswith("udp"):  # TCP_LISTEN
                found.add(_address(local.split(":")[0]))
    return found


def ports_of(processes: list[int]) -> set[int]:
    """The TCP ports at which these processes listen."""
    inodes: set[str] = set()
    for process in processes:
        with contextlib.suppress(FileNotFoundError):  # it has ended
            for entry in os.scandir(f"/proc/{process}/fd"):
                with contextlib.suppress(FileNotFoundError):
                    inodes.add(os.readlink(entry.path))
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {int(row[1].split(":")[1], 16) for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in inodes}


def _address(digits: str) -> str:
    """An address of /proc/net: words of 32 bits, each in the machine's order of bytes."""
    words = [int(digits[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(digits), 8)]
    return str(ip_address(b"".join(words)))


def counts() -> dict[str, int]:
    """What was sent in this network so far."""
    lines = [line.split() for line in Path("/proc/net/snmp").read_text().splitlines()]
    found = {
        f"{names[0]}{name}": int(value)
        for names, values in zip(lines[::2], lines[1::2], strict=True)
        for name, value in zip(names[1:], values[1:], strict=True)
    }
    wanted = {name: found[name] for name in ("Ip:OutNoRoutes", "Tcp:ActiveOpens", "Udp:OutDatagrams")}
    six = dict(line.split() for line in Path("/proc/net/snmp6").read_text().splitlines())
    return wanted | {name: int(six[name]) for name in ("Ip6OutNoRoutes", "Udp6OutDatagrams")}


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        name, flags = struct.unpack("16sh", fcntl.ioctl(one, SIOCGIFFLAGS, struct.pack("16sh", b"lo", 0)))
        fcntl.ioctl(one, SIOCSIFFLAGS, struct.pack("16sh", name, flags | IFF_UP))


def _instead(path: str, content: str, folder: str) -> None:
    """Let `path` have this content, for this process and its children."""
    other = Path(folder, Path(path).name)
    other.write_text(content)
    if ctypes.CDLL(None, use_errno=True).mount(str(other).encode(), path.encode(), None, MS_BIND, None):
        raise OSError(ctypes.get_errno(), f"cannot mount over {path}")


def main(answer: str, *command: str) -> int:
    """Run the command, write what was seen to `answer`, and give the command's exit code."""
    _loopback_up()
    with tempfile.TemporaryDirectory() as folder:
        _instead("/etc/hosts", "127.0.0.1 localhost\n", folder)
        _instead("/etc/resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n", folder)
        before, seen = counts(), set[str]()
        with subprocess.Popen(command) as process:
            while process.poll() is None:
                seen |= listening()
                time.sleep(LOOKS)
        sent = {name: count - before[name] for name, count in counts().items()}
    Path(answer).write_text(json.dumps({"listening": sorted(seen), "counts": sent}))
    return process.returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

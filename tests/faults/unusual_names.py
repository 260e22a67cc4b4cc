"""I6: unusual files in a folder of images, and unusual names."""

import os
import shutil
import socket
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moco.data.check.check import check
from moco.data.decode.decode import BadImage
from moco.data.loader.bad_images import Quarantine
from moco.data.sources.folder import find_images
from tests.faults.forked_child import in_child
from tests.faults.matrix import Fault, Tally
from tests.sample_pictures import make_pictures

SOUND = 4  # intact pictures in the same folder


@dataclass(frozen=True)
class Odd:
    """An unusual file in a folder of pictures."""

    what: str
    make: Callable[[Path], Any]  # puts it into the folder
    passed: str = ""  # part of the reason why it is not listed as an image; "": it is listed
    bad: str = ""  # part of the reason why it is a bad image


def socket_at(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # its whole path may be too long for a socket
    socket.socket(socket.AF_UNIX).bind(path.name)
    os.chdir(here)


def picture(folder: Path, name: str | bytes) -> None:
    shutil.copy(folder / "0000.png", os.path.join(os.fsencode(folder), os.fsencode(name)))


def looped(folder: Path) -> None:
    (folder / "a.png").symlink_to("b.png")
    (folder / "b.png").symlink_to("a.png")


def buried(folder: Path) -> None:
    """Below more directories than a path may name."""
    here = os.getcwd()
    os.chdir(folder)
    for _ in range(25):
        os.mkdir("d" * 200)
        os.chdir("d" * 200)
    os.chdir(here)


def closed(folder: Path) -> None:
    (folder / "closed").mkdir()
    picture(folder, "closed/x.png")
    (folder / "closed").chmod(0)


def unreadable(folder: Path) -> None:
    picture(folder, "x.png")
    (folder / "x.png").chmod(0)


def device(folder: Path) -> None:
    """The terminal's or memory's: a link, for only root may make devices."""
    (folder / "x.png").symlink_to("/dev/zero")


NAMES: list[str | bytes] = [
    "x" * 251 + ".png", b"caf\xe9.png", "two\nlines.png", "\u202egnp.exe.png", "<script>alert(1)<.png", " .png",
    "-rf.png", "=1+1.png", "\x1b]0;title\x07\x1b[2J.png", "'quoted\".png", "back\\slash,comma;.png", "tab\t.png",
    "%s%n{0}.png",
]  # fmt: skip
ODDS = [
    Odd("FIFO named .jpg", lambda folder: os.mkfifo(folder / "x.jpg"), passed="not a regular file"),
    Odd("device", device, passed="not a regular file"),
    Odd("socket", lambda folder: socket_at(folder / "x.png"), passed="not a regular file"),
    Odd("directory named .jpg", lambda folder: (folder / "x.jpg").mkdir()),
    Odd("links in a circle", looped, passed="broken link"),
    Odd("link to nothing", lambda folder: (folder / "x.png").symlink_to("nothing"), passed="broken link"),
    Odd("link to the folder itself", lambda folder: (folder / "x").symlink_to("."), passed="already entered"),
    Odd("link to a file of the system", lambda folder: (folder / "x.png").symlink_to("/etc/passwd"), bad="not a JPEG"),
    Odd("directory that may not be entered", closed, passed="cannot be read (permission denied)"),
    Odd("file that may not be read", unreadable, bad="permission denied"),
    Odd("more directories than a path may name", buried, passed="cannot be looked at"),
    Odd("empty file", lambda folder: (folder / "x.png").touch(), bad="0 bytes"),
    *[Odd(f"named {name!r}", lambda folder, name=name: picture(folder, name)) for name in NAMES],
]  # fmt: skip


def as_expected(odd: Odd, folder: Path) -> bool:
    """Whether the folder is read correctly with `odd` in it, and no unescaped name is printed."""
    images = find_images(folder)
    named = odd.what.startswith("named ")
    if len(images) != SOUND + named + bool(odd.bad):
        return False
    if odd.passed and not any(odd.passed in reason for reason in images.skipped.names.values()):
        return False
    bad: dict[str, str] = {}
    for i in range(len(images)):
        try:
            images.read(i)
        except BadImage as error:
            bad[error.name] = error.reason
    if len(bad) != bool(odd.bad) or not all(odd.bad in reason for reason in bad.values()):
        return False
    report = check(images)
    lines = f"{report}\n{report.skipped}".split("\n")
    return report.bad == bad and all(line.isprintable() for line in lines) and listed(images.names, folder)


def listed(names: Any, folder: Path) -> bool:
    """Whether each name comes back from the list of bad images as it was."""
    file = folder / "bad_images.csv"
    quarantine = Quarantine(file, len(names), len(names))
    for name in names:
        quarantine.add(name, "so it is")
    return set(Quarantine(file, None, len(names)).bad) == set(names)


def unprivileged(odd: Odd, folder: Path) -> bool:
    """Run as an unprivileged user, as root may read everything."""
    if os.getuid() == 0:
        os.chown(folder, 65534, 65534)
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    odd.make(folder)
    return as_expected(odd, folder)


def odd_files(count: int, scratch: Path) -> Tally:
    """Try each in its own folder, which every user may enter."""
    del scratch  # others may not enter it
    tally = Tally()
    for odd in ODDS[:count]:
        place = Path(tempfile.mkdtemp(prefix="odd-"))
        try:
            place.chmod(0o755)
            folder = make_pictures(place / "pictures", SOUND)
            seen = in_child(lambda odd=odd, folder=folder: unprivileged(odd, folder), seconds=20)
            good = seen is not None and seen.answer is True
            tally += good
            if not good:
                print(f"{odd.what}: {seen}")
        finally:
            for folder in place.glob("pictures/closed"):
                folder.chmod(0o755)
            shutil.rmtree(place, ignore_errors=True)
    return tally


FAULTS = [
    Fault(
        "I6", "odd files and names", "not listed, or skipped, with a reason; nothing hangs; no name is printed "
        "unescaped",
        "the type of a file is checked before it is opened; opening does not block; names are escaped "
        "(`tests/faults/test_guards_of_names.py`: tries are lost without each)", len(ODDS), len(ODDS), odd_files,
    ),
]  # fmt: skip

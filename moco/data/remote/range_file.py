"""An object of a store as a file that is read from its start to its end, with gaps."""

import io

from moco.data.remote.store import ByteRange, Store, StoredObject

JUMP = 2**16  # [bytes] that are read after a gap
ROW = 2**22  # [bytes] that are read where the reading goes on


class RangeFile(io.RawIOBase):
    """Reads `entry` by ranges: long ones where it is read in a row, short ones after a gap."""

    def __init__(self, store: Store, entry: StoredObject):
        super().__init__()
        self.store, self.entry = store, entry
        self.place = self.start = 0  # [bytes]: where the next read begins, and where `held` does
        self.held = b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.place, io.SEEK_END: self.entry.size}[whence]
        self.place = max(0, base + offset)
        return self.place

    def read(self, size: int | None = -1, /) -> bytes:
        end = self.entry.size if size is None or size < 0 else min(self.entry.size, self.place + size)
        parts = []
        while self.place < end:
            if not self.start <= self.place < self.start + len(self.held):
                self._fetch(end)
            part = self.held[self.place - self.start : end - self.start]
            parts.append(part)
            self.place += len(part)
        return b"".join(parts)

    def _fetch(self, end: int) -> None:
        """Hold the bytes from `place` on."""
        stop = self.start + len(self.held)
        ahead = ROW if stop <= self.place < stop + JUMP else JUMP
        size = min(self.entry.size - self.place, max(ahead, end - self.place))
        self.held = self.store.read(ByteRange(self.entry.url, size, self.entry.stamp, self.place))
        self.start = self.place

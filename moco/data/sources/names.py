"""Names of very many images in little memory: their bytes one after the other, not a string of Python for each."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, SupportsIndex, overload

import numpy as np
from jaxtyping import Int64, Integer, UInt8

ROWS = 2**14  # names that are decoded or encoded together


class NameSequence(Sequence[str]):
    """A sequence of names that makes each when it is asked for. It equals any sequence with the same names."""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str | bytes):
            return NotImplemented
        return len(self) == len(other) and all(map(str.__eq__, self, other))

    __hash__ = None  # pyright: ignore[reportAssignmentType]  # as of a list

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self[:3]))}{', ...' if len(self) > 3 else ''})"

    @abstractmethod
    def _name(self, place: int) -> str:
        """The name at `place`, which is in [0, n)."""

    @overload
    def __getitem__(self, index: SupportsIndex) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: SupportsIndex | slice) -> str | list[str]:
        places = range(len(self))[index]
        return [self._name(place) for place in places] if isinstance(places, range) else self._name(places)


class Names(NameSequence):
    """Names as UTF-8 one after the other, in memory or mapped: a million of 40 characters take 48 MB, not 130.

    Bytes of a name that are no text become lone surrogates, as in `os.fsdecode`.
    """

    def __init__(self, text: UInt8[np.ndarray, " bytes"], ends: Integer[np.ndarray, " n"]):
        self.text, self.ends = text, ends  # `ends`: [bytes] where each name ends in `text`

    def __len__(self) -> int:
        return len(self.ends)

    def __iter__(self) -> Iterator[str]:
        return self.between(0, len(self))

    def between(self, first: int, last: int) -> Iterator[str]:
        """The names from place `first` to before place `last`."""
        for start in range(first, last, ROWS):
            yield from self._decode(start, min(start + ROWS, last))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Names):
            return np.array_equal(self.ends, other.ends) and np.array_equal(self.text, other.text)
        return super().__eq__(other)

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def take(self, places: Int64[np.ndarray, " m"]) -> "Names":
        """The names at `places`."""
        starts = self._starts(0, len(self))
        lengths = (self.ends.astype(np.int64) - starts)[places]
        ends = np.cumsum(lengths)
        text = np.empty(int(ends[-1]) if len(ends) else 0, dtype=np.uint8)
        for row in range(0, len(places), ROWS):
            some = slice(row, row + ROWS)
            new = ends[some] - lengths[some]
            shift = np.repeat(starts[places[some]] - new, lengths[some])
            into = np.arange(new[0], ends[some][-1])
            text[into] = self.text[into + shift]
        return Names(text, ends)

    def _name(self, place: int) -> str:
        start = int(self.ends[place - 1]) if place else 0
        return _text(self.text[start : int(self.ends[place])].tobytes())

    def _decode(self, first: int, last: int) -> Iterator[str]:
        """The names from `first` to before `last`, decoded together where that is safe."""
        starts, ends = self._starts(first, last), self.ends[first:last].astype(np.int64)
        content = self.text[int(starts[0]) : int(ends[-1])].tobytes()
        places = zip((starts - starts[0]).tolist(), (ends - starts[0]).tolist(), strict=True)
        if content.isascii():
            text = content.decode("ascii")
            return (text[start:end] for start, end in places)
        return (_text(content[start:end]) for start, end in places)

    def _starts(self, first: int, last: int) -> Int64[np.ndarray, " n"]:
        before = self.ends[first - 1 : last - 1] if first else np.concatenate([[0], self.ends[: max(last - 1, 0)]])
        return before[: last - first].astype(np.int64)


class Chosen(NameSequence):
    """Some of `names`, in the order of `places`."""

    def __init__(self, names: Sequence[str], places: Int64[np.ndarray, " m"]):
        self.names, self.places = names, places

    def __len__(self) -> int:
        return len(self.places)

    def _name(self, place: int) -> str:
        return self.names[int(self.places[place])]


class Numbered(NameSequence):
    """The names of `count` images that have none: their numbers."""

    def __init__(self, count: int):
        self._count = count

    def __len__(self) -> int:
        return self._count

    def _name(self, place: int) -> str:
        return str(place)


def pack_names(names: Iterable[str]) -> Names:
    """The same names in one piece of memory."""
    texts, lengths, left = [b""], [np.zeros(0, dtype=np.int64)], iter(names)
    while some := [name.encode("utf-8", "surrogateescape") for name in islice(left, ROWS)]:
        texts.append(b"".join(some))
        lengths.append(np.fromiter(map(len, some), dtype=np.int64, count=len(some)))
    return Names(np.frombuffer(b"".join(texts), dtype=np.uint8), np.cumsum(np.concatenate(lengths)))


def with_prefix(prefix: str, names: Names) -> Names:
    """`names`, each with `prefix` before it."""
    if not prefix:
        return names
    letters = np.frombuffer(prefix.encode("utf-8", "surrogateescape"), dtype=np.uint8)
    shift = len(letters) * np.arange(1, len(names) + 1)
    ends = names.ends.astype(np.int64) + shift
    starts = np.concatenate([[0], ends[:-1]])[: len(ends)]
    text = np.empty(len(names.text) + len(letters) * len(names), dtype=np.uint8)
    is_name = np.ones(len(text), dtype=bool)
    for place, letter in enumerate(letters):
        text[starts + place] = letter
        is_name[starts + place] = False
    text[is_name] = names.text
    return Names(text, ends)


def join_names(parts: Sequence[Names]) -> Names:
    """The names of all `parts`, one after the other."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return pack_names([])
    before = np.cumsum([0, *(len(part.text) for part in parts)])
    ends = [part.ends.astype(np.int64) + shift for part, shift in zip(parts, before, strict=False)]
    return Names(np.concatenate([part.text for part in parts]), np.concatenate(ends))


def hashes_of(names: Iterable[str], count: int) -> Int64[np.ndarray, " n"]:
    """A 64-bit hash of each name, the same within this process: to compare very many without a dict of them."""
    return np.fromiter(map(hash, names), dtype=np.int64, count=count)


def same_names(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether two sequences have the same names in the same order."""
    if isinstance(one, NameSequence):
        return one == other
    return len(one) == len(other) and all(a == b for a, b in zip(one, other, strict=True))


def _text(content: Any) -> str:
    return content.decode("utf-8", "surrogateescape")

"""Images whose files lie inside of larger files: what their readers share."""

import io
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from moco.data.decode.bands import Raw, decode_bands
from moco.data.decode.decode import BadImage, decode_file, reason_of
from moco.data.decode.scaled import Choose, Scaled, decode_file_scaled
from moco.data.sources.images import DataError

# What is packed may be larger than this only if it is packed to no less than a share of 1 / MOST_RATIO, as images are
MOST_UNPACKED, MOST_RATIO = 2**28, 20  # [bytes]; more would be memory for nothing


class EncodedImages(ABC):
    """Images by the bytes of their files. A subclass reads these, and any number of threads may call it."""

    _names: Sequence[str]

    @property
    def names(self) -> Sequence[str]:
        """As of `Images`."""
        return self._names

    def __len__(self) -> int:
        return len(self._names)

    @abstractmethod
    def read_bytes(self, index: int) -> bytes:
        """The file of image `index`. Raises OSError, and ValueError if it is damaged."""

    def open(self, index: int) -> io.BytesIO:
        """The file of image `index`, in memory. Raises as `read_bytes`."""
        return io.BytesIO(self.read_bytes(index))

    def read(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        """Image `index` as RGB. Raises BadImage."""
        try:
            return decode_file(io.BytesIO(self.read_bytes(index)))
        except Exception as error:
            raise BadImage(self.names[index], reason_of(error)) from error

    def read_bands(self, index: int) -> Raw:
        """All bands of image `index`, as stored. Raises BadImage."""
        try:
            return decode_bands(io.BytesIO(self.read_bytes(index)))
        except ImportError as error:
            raise DataError(str(error)) from error
        except Exception as error:
            raise BadImage(self.names[index], reason_of(error)) from error

    def read_scaled(self, index: int, choose: Choose) -> Scaled:
        """Image `index` at the scale that `choose` gives for its size. Raises BadImage."""
        try:
            return decode_file_scaled(io.BytesIO(self.read_bytes(index)), choose)
        except Exception as error:
            raise BadImage(self.names[index], reason_of(error)) from error

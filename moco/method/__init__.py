"""The method of the paper (Sec. 3): tensors in, tensors out, independent of recipes, files and kinds of encoders."""

from moco.method.batchnorm import grouped, synchronized
from moco.method.contrast import Contrast, Part
from moco.method.dictionaries import Batch, Dictionary, MemoryBank, Owners, Queue
from moco.method.gradient_cache import CachedContrast
from moco.method.loss import NCE, LookUp, compare, info_nce
from moco.method.momentum import MomentumEncoder

__all__ = [
    "NCE", "Batch", "CachedContrast", "Contrast", "Dictionary", "LookUp", "MemoryBank", "MomentumEncoder", "Owners",
    "Part", "Queue", "compare", "grouped", "info_nce", "synchronized",
]  # fmt: skip

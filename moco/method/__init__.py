"""The paper, Sec. 3: tensors in, tensors out. Knows no recipe, no file and no encoder by name."""

from moco.method.contrast import Contrast, Part
from moco.method.dictionaries import Batch, Dictionary, MemoryBank, Queue
from moco.method.loss import LookUp, info_nce
from moco.method.momentum import MomentumEncoder

__all__ = ["Batch", "Contrast", "Dictionary", "LookUp", "MemoryBank", "MomentumEncoder", "Part", "Queue", "info_nce"]

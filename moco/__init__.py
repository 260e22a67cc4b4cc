"""Momentum Contrast: pre-train an image encoder without labels, and evaluate it.

    run = moco.pretrain("photos/", out="runs/photos")
    encoder = moco.load("runs/photos")

The method itself is in `moco.method`. Names are imported when they are first used, as importing torch takes seconds.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moco.atlas.dedup import dedup
    from moco.atlas.make_atlas import write_atlas
    from moco.atlas.search import search
    from moco.comparison.compare import compare
    from moco.comparison.result import Comparison
    from moco.evaluate.features import Pretrained
    from moco.exporting import export
    from moco.loading import load
    from moco.recipe import Recipe, RecipeError
    from moco.train.plan import plan
    from moco.train.pretrain import Run, pretrain
    from moco.train.report_run import write_report

__version__ = "0.1.0"
__all__ = [
    "Comparison",
    "Pretrained",
    "Recipe",
    "RecipeError",
    "Run",
    "__version__",
    "compare",
    "dedup",
    "export",
    "load",
    "plan",
    "pretrain",
    "search",
    "write_atlas",
    "write_report",
]

_HOMES = {
    "Comparison": ("moco.comparison.result", "Comparison"),
    "compare": ("moco.comparison.compare", "compare"),
    "Pretrained": ("moco.evaluate.features", "Pretrained"),
    "Recipe": ("moco.recipe", "Recipe"),
    "RecipeError": ("moco.recipe", "RecipeError"),
    "Run": ("moco.train.pretrain", "Run"),
    "dedup": ("moco.atlas.dedup", "dedup"),
    "export": ("moco.exporting", "export"),
    "load": ("moco.loading", "load"),
    "plan": ("moco.train.plan", "plan"),
    "pretrain": ("moco.train.pretrain", "pretrain"),
    "write_atlas": ("moco.atlas.make_atlas", "write_atlas"),
    "write_report": ("moco.train.report_run", "write_report"),
    "search": ("moco.atlas.search", "search"),
}


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'moco' has no attribute '{name}'")
    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)

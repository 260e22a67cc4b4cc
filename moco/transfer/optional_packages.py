"""Import the packages of the extra `transfer`, which are not installed with the package itself."""

from importlib import import_module
from types import ModuleType

from moco.text import extra


def require(module: str, *, task: str) -> ModuleType:
    """The module of that name. Raises ImportError, which names the extra, where it is not installed."""
    try:
        return import_module(module)
    except ImportError as error:
        missing = error.name or module
        raise ImportError(f"{task} needs {missing}: {extra('transfer')}") from error

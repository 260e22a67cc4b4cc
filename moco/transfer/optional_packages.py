"""Import the optional packages of the extra `transfer`."""

from importlib import import_module
from types import ModuleType

from moco.text import extra


def require(module: str, *, task: str) -> ModuleType:
    """Import a module. Raises ImportError with the command that installs it."""
    try:
        return import_module(module)
    except ImportError as error:
        missing = error.name or module
        raise ImportError(f"{task} needs {missing}: {extra('transfer')}") from error

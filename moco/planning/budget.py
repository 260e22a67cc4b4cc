"""A budget of time as text: `90s`, `10m`, `8h`, `1h30m`."""

import re

from moco.recipe_error import RecipeError

TIME_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
SHORTEST = 30  # [s]


def parse_budget(text: str | float) -> float:
    """[s]. A number is in seconds already. Raises RecipeError."""
    if isinstance(text, str):
        parts = re.findall(r"(\d+(?:\.\d+)?)(min|[dhms])", text)
        if not parts or "".join(number + unit for number, unit in parts) != text:
            raise RecipeError(f"--budget expects a time such as 90s, 10m, 8h or 1h30m, got '{text}'")
        seconds = sum(float(number) * TIME_UNITS[unit[0]] for number, unit in parts)
    else:
        seconds = float(text)
    if not SHORTEST <= seconds < 10**8:
        raise RecipeError(
            f"--budget expects at least {SHORTEST} s: the machine is measured and the network trained in it, got {text}"
        )
    return seconds


def budget_text(seconds: float) -> str:
    """The shortest text that `parse_budget` reads as that time, in whole seconds: `120` -> `2m`."""
    whole = round(seconds)
    unit = next(unit for unit, size in TIME_UNITS.items() if whole % size == 0)
    return f"{whole // TIME_UNITS[unit]}{unit}"

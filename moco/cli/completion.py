"""What the shell completes: names of recipes, settings and networks (`moco --install-completion` installs it)."""


def recipe_names(incomplete: str) -> list[str]:
    """Recipes that begin with `incomplete`."""
    from moco.recipes import RECIPES

    return [name for name in ("auto", *RECIPES) if name.startswith(incomplete)]


def list_setting_names(incomplete: str) -> list[str]:
    """Settings of a recipe, as `NAME=`; after the equals sign, the names of views for `data.views`."""
    from moco.recipe import Recipe
    from moco.recipes import PAIRS

    name, equals, value = incomplete.partition("=")
    if equals:
        return [f"{name}={pair}" for pair in PAIRS if name == "data.views" and pair.startswith(value)]
    return [f"{one}=" for one in ("data.views", *Recipe(name="default").fields()) if one.startswith(incomplete)]


def kinds_of_views(incomplete: str) -> list[str]:
    """Kinds of views that begin with `incomplete`."""
    from moco.recipes.domain_views import DOMAINS

    return [name for name in DOMAINS if name.startswith(incomplete)]


def model_names(incomplete: str) -> list[str]:
    """Networks of this project that begin with `incomplete`, and the prefixes of those of torchvision and timm."""
    from moco.cli.early_checks import NETWORKS

    return [name for name in (*NETWORKS, "torchvision/", "timm/") if name.startswith(incomplete)]


def tracker_names(incomplete: str) -> list[str]:
    """Trackers that begin with `incomplete`."""
    from moco.train.trackers import TRACKERS

    return [name for name in TRACKERS if name.startswith(incomplete)]

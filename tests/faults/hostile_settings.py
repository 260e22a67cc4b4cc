"""S6: recipes and small files of a run that are hostile or damaged."""

import json
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from sample_pictures import make_pictures

from moco.data.sources.images import DataError
from moco.recipe import RecipeError
from moco.train.pretrain import pretrain
from moco.weights.encoder_folder import load_encoder
from moco.weights.load import read_weights
from tests.faults.killed_runs import RECIPE
from tests.faults.matrix import Fault, Tally

Text = str | bytes


def with_setting(text: str) -> str:
    """The recipe's JSON with one setting replaced, given as `group.field: JSON`."""
    where, _, value = text.partition(": ")
    group, _, field = where.partition(".")
    tree = json.loads(RECIPE.to_json())
    (tree if not field else tree[group])[field or group] = "@"
    return json.dumps(tree).replace('"@"', value)


RECIPES: dict[str, Text] = {
    "not JSON": "{'name': 1}",
    "YAML with a tag": "!!python/object/apply:os.system ['touch canary']",
    "not UTF-8": b'{"name": "\xff\xfe"}',
    "a list": "[1, 2]",
    "a number": "3",
    "deep": '{"data":' * 50_000 + "1" + "}" * 50_000,
    "long": '{"name": "' + "a" * 2**21 + '"}',
    "a setting twice": '{"name": "a", "seed": 1, "seed": 2}',
    "an unknown setting": with_setting("optim.hook: 1"),
    "an unknown part": with_setting('plugins: ["os"]'),
    "text for a number": with_setting('optim.batch_size: "$(touch canary)"'),
    "NaN": with_setting("method.temperature: NaN"),
    "NaN in a schedule": with_setting('optim.lr: {"kind": "steps", "value": 0.1, "at": [NaN]}'),
    "1e999": with_setting("optim.weight_decay: 1e999"),
    "epochs without end": with_setting("optim.epochs: 1e300"),
    "a million million pixels": with_setting("data.size: 1000000000000"),
    "a huge embedding": with_setting("encoder.dim: 99999999999"),
    "a huge queue": with_setting("method.size: 9223372036854775807"),
    "threads without number": with_setting("compute.threads: 2147483648"),
    "a negative seed": with_setting("seed: -1"),
    "a path for an encoder": with_setting('encoder.name: "../../etc/passwd"'),
    "a path for timm": with_setting('encoder.name: "timm/../../../tmp/x"'),
    "a hub address": with_setting('encoder.name: "timm/hf-hub:somebody/something"'),
    "a module for an encoder": with_setting('encoder.name: "torchvision/__import__"'),
    "nothing": "",
}


def of_recipe(text: Text, images: Path, place: Path) -> None:
    file = place / "recipe.json"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    pretrain(images, place / "run", recipe=str(file), device="cpu", workers=0)


def of_run(name: str, content: bytes) -> Callable[[Path, Path], None]:
    """Resume a stopped run whose file `name` was replaced."""

    def go_on(images: Path, place: Path) -> None:
        shutil.copytree(images.parent / "stopped", place / "run")
        (place / "run" / name).write_bytes(content)
        pretrain(images, place / "run", recipe=RECIPE, device="cpu", workers=0, init=None)

    return go_on


def of_encoder(content: bytes) -> Callable[[Path, Path], None]:
    """Load an encoder folder whose config.json was replaced."""

    def load(images: Path, place: Path) -> None:
        shutil.copytree(images.parent / "stopped" / "encoder", place / "encoder")
        (place / "encoder" / "config.json").write_bytes(content)
        read_weights(place / "encoder")
        load_encoder(place / "encoder")

    return load


DEEP = b"[" * 100_000
REFUSED = {
    "recipe.json of a run": of_run("recipe.json", b"\xff{"),
    "recipe.json of a run, deep": of_run("recipe.json", DEEP),
    "init.json of a run": of_run("init.json", b"[]"),
    "manifest of a run": of_run("manifest.jsonl.gz", b"\x1f\x8b\x08 nothing"),
    "bad_images.csv of a run": of_run("bad_images.csv", b"a,b,c\n"),
    "config.json of an encoder, deep": of_encoder(b'{"a":' * 100_000),
    "config.json of an encoder, with a path": of_encoder(b'{"encoder": {"name": "/etc/passwd"}}'),
    "config.json of an encoder, in timm's form": of_encoder(
        b'{"architecture": "hf-hub:somebody/something", "pretrained_cfg": {"input_size": [3, 1e99, 1e99]}}'
    ),
}
TOLERATED = {
    "metrics.jsonl of a run": of_run("metrics.jsonl", b'\xff\n[1]\n{"step": "x"}\n' + DEEP + b"\n"),
    "provenance.json of a run": of_run("provenance.json", b"{"),
    "provenance.json of a run, deep": of_run("provenance.json", DEEP),
    "train.log of a run": of_run("train.log", b"\xff\xfe\x00"),
}


def outcome(work: Callable[[], None], place: Path) -> str:
    """The outcome: done, the message of a typed error, or the type of any other error."""
    try:
        work()
        return "done"
    except (RecipeError, DataError) as error:
        return f"refused: {error}"
    except BaseException as error:
        traceback.print_exc()
        return type(error).__name__


def settings(count: int, folder: Path) -> Tally:
    """Each is refused with what is wrong; nothing is executed or created."""
    images, tally = make_pictures(folder / "images", 50), Tally()
    for name, text in list(RECIPES.items())[:: max(1, len(RECIPES) // count)]:
        place = folder / str(tally.tried)
        place.mkdir()
        said = outcome(lambda text=text, place=place: of_recipe(text, images, place), place)
        good = said.startswith("refused") and len(said) < 20_000 and not (place / "run" / "recipe.json").exists()
        tally += good and not Path("canary").exists()
        if not good:
            print(f"{name}: {said[:300]}", file=sys.stderr)
    return tally


def files_of_a_run(count: int, folder: Path) -> Tally:
    """Damaged files that the run depends on are refused by name; damaged logs are tolerated."""
    images, tally = make_pictures(folder / "images", 50), Tally()
    pretrain(images, folder / "stopped", recipe=RECIPE, device="cpu", workers=0)
    (folder / "stopped" / "finished.json").unlink()  # as after a kill at the end
    cases = list((REFUSED | TOLERATED).items())
    for name, case in cases[:: max(1, len(cases) // count)]:
        place = folder / str(tally.tried)
        place.mkdir()
        said = outcome(lambda case=case, place=place: case(images, place), place)
        good = (
            said == "done"
            if name in TOLERATED
            else said.startswith("refused") and name.split()[0].split(".")[0] in said
        )
        tally += good
        if not good:
            print(f"{name}: {said[:300]}", file=sys.stderr)
    return tally


FAULTS = [
    Fault("S6", "hostile and nonsensical recipes", "refused before a run starts, with what is wrong",
          "strict types, bounds, no name twice, at most 1 MiB (`tests/faults/test_guards.py`: without the bounds the "
          "same files cause other errors)", len(RECIPES), 9, settings),
    Fault("S6", "damaged small files of runs and encoders", "refused by name if the run depends on them, else "
          "tolerated",
          "typed errors; invalid lines of logs are skipped (`tests/faults/test_guards_of_readers.py`: without typed "
          "errors a damaged manifest causes another error)", len(REFUSED | TOLERATED), 6, files_of_a_run),
]  # fmt: skip

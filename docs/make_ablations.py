"""Write docs/ablations.md and its pictures from what `moco ablate` measured; no number in it is typed by hand.

`python docs/make_ablations.py` writes them from docs/ablations.json; `python docs/make_ablations.py runs/ablate/demo`
makes docs/ablations.json from the results in that folder first.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from textwrap import fill
from typing import Any

from moco.ablate import table
from moco.ablate.families import FAMILIES
from moco.ablate.plot import plot
from moco.ablate.results import AblationResult, AblationRow, mean

DOCS = Path(__file__).parent
KEPT = DOCS / "ablations.json"
LINEAR, KNN = "linear, 10 labels a class", "kNN-20"


def main(arguments: list[str]) -> None:
    if arguments:
        KEPT.write_text(json.dumps(gathered(Path(arguments[0])), separators=(",", ":")) + "\n")
    results = read()
    (DOCS / "ablations.md").write_text(page(results))
    for name, result in results.items():
        plot(result, DOCS / "images" / picture(name))


def gathered(folder: Path) -> dict[str, Any]:
    """The results in `folder`, less what the page does not use."""
    found = {name: json.loads((folder / f"{name}.json").read_text()) for name in FAMILIES}
    for result in found.values():
        for row in result["rows"]:
            row["runs"] = [short(run, result["columns"]) for run in row["runs"]]
    return found


def short(run: dict[str, Any], columns: list[str]) -> dict[str, Any]:
    """A run without its draws and single neighbours."""
    if "failed" in run:
        return run
    parts = ("accuracy", "standard_error")
    return run | {"scores": {column: {part: run["scores"][column][part] for part in parts} for column in columns}}


def read() -> dict[str, AblationResult]:
    return {name: AblationResult.from_dict(tree) for name, tree in json.loads(KEPT.read_text()).items()}


def picture(name: str) -> str:
    return f"ablation_{name.replace('-', '_')}.png"


def page(results: dict[str, AblationResult]) -> str:
    """docs/ablations.md."""
    sections = [section(name, result) for name, result in results.items()]
    return "\n".join([head(results), *sections, spent(results)])


def section(name: str, result: AblationResult) -> str:
    """What came out, in words, as a picture and as a table."""
    own = replace(result, says=result.says[:-1])  # the last sentence holds for all and stands at the top
    seeds = " --seeds 0,1,2" if result.seeds > 1 else ""
    return (
        f"## {result.title}\n\n`moco ablate {name}{seeds}`\n\n{wrapped(READINGS[name](result))}\n\n"
        f"![{result.title}](images/{picture(name)})\n\n{table.markdown(own)}"
    )


def wrapped(text: str) -> str:
    """Paragraphs in lines of at most 120 characters."""
    return "\n\n".join(fill(part, 120, break_on_hyphens=False) for part in text.split("\n\n"))


def runs_of(results: dict[str, AblationResult]) -> dict[str, dict[str, Any]]:
    """Every run once, by its name."""
    return {run["run"]: dict(run) for result in results.values() for row in result.rows for run in row.runs}


def head(results: dict[str, AblationResult]) -> str:
    base = score(results["momentum"], "0.99")
    some = next(iter(results.values()))
    return (
        wrapped(f"""# Ablations at the scale of the demo

The results of the papers' ablations at a small scale, each by one command. Where a result differs from the papers', there
are measurements that may explain it. {len(runs_of(results))} runs; no result was left out.

{some.says[-1]}

Three seeds of the base recipe gave {base} ({LINEAR}; mean ± standard deviation). Single runs that differ by less than
three points are not told apart. The papers' numbers are of ImageNet and a linear classifier with all labels: order and
sign can be compared, sizes cannot.

The base is the demo's recipe with a network half as wide, mini-batches of 64 and 6 epochs instead of 40, K = 4096 and
m = 0.99; how it was chosen is in [log.md](log.md). `docs/make_ablations.py` writes this page from `docs/ablations.json`,
that is from what `moco ablate NAME` left in its folder (with `--seeds 0,1,2` for mechanism, momentum and shufflebn). The
same commands with `--scale cifar` or `--scale imagenet` run the papers' own settings on images that you give; nobody has
run those here.""")
        + "\n"
    )


def spent(results: dict[str, AblationResult]) -> str:
    """The cost of all runs."""
    whole = [run["cpu_seconds"] for run in runs_of(results).values() if run.get("cpu_seconds")]
    each = [cost["training"] + cost["judging"] for cost in whole]
    training = mean([cost["training"] for cost in whole])
    return (
        f"## What it took\n\n{len(whole)} runs took {min(each):.0f} to {max(each):.0f} CPU seconds each ({mean(each):.0f} on "
        f"average, of which {training:.0f} for training), {sum(each) / 60:.0f} CPU minutes in all, on one thread of a two-core "
        "machine that was shared with other work. A run that several ablations have in common was made once.\n"
    )


def row_of(result: AblationResult, label: str, series: str = "") -> AblationRow:
    (found,) = (row for row in result.rows if (row.label, row.series) == (label, series))
    return found


def score(result: AblationResult, label: str, series: str = "", column: str = LINEAR) -> str:
    return table.format_mean(row_of(result, label, series).scores(column))


def measure(result: AblationResult, label: str, name: str, series: str = "", form: str = ".2f") -> str:
    return format(mean(row_of(result, label, series).values_of(name)), form)


def loss(result: AblationResult, label: str) -> str:
    """The loss beside the level at which all keys are alike."""
    return f"{measure(result, label, 'loss')} of {measure(result, label, 'level')}"


def mechanism(r: AblationResult) -> str:
    bank, ends = "memory bank", "end-to-end"
    return f"""The order of MoCo and the memory bank is the paper's, and so is InfoNCE before NCE. The rise with K is not.

MoCo has {score(r, "256", "MoCo")} with 256 keys and {score(r, "4096", "MoCo")} with 4096. What was measured: in the middle of the run, with 4096 keys, new queries
find their own key in {measure(r, "4096", "stored", "MoCo", ".1f")} % of cases, but in only {measure(r, "4096", "remade", "MoCo", ".1f")} % when the queue's keys are made again by the network of that time.
So a network that still changes fast can tell the own key from the others by its being new, without learning as much about
images. With 256 keys it is {measure(r, "256", "stored", "MoCo", ".1f")} and {measure(r, "256", "remade", "MoCo", ".1f")} %. Besides, one key in ten is of the query's own class here.

The memory bank is far behind, {score(r, "1024", bank)} with 1024 keys. Its keys are of earlier epochs, and the network changes much from one to
the next: a key agrees by {measure(r, "1024", "consistency", bank)} with what the network makes of the view it was last made from, while two views of an image agree by
{measure(r, "1024", "agreement", bank)}. That is the paper's explanation (keys of an encoder that has moved on), at its strongest.

End-to-end is ahead of MoCo with few keys ({score(r, "64", ends)} with 64), where the paper has them level. Both its encoders learn from each
image and one of MoCo's does: MoCo with the symmetric loss, where both views are queries, is level with it (log.md). With
more keys it falls ({score(r, "1024", ends)} with 1024), where the paper has it grow: for the same images it takes {measure(r, "64", "steps", ends, ",.0f")} steps with 64 and
{measure(r, "1024", "steps", ends, ",.0f")} with 1024, too few here, though the learning rate grows in proportion."""


def momentum(r: AblationResult) -> str:
    return f"""m = 0 fails, as in the paper: {score(r, "0")}, where a random encoder has {table.format_mean(r.baselines["random encoder"][LINEAR])}; the loss ends at
{loss(r, "0")}. From 0.9 to 0.99 the score grows, as in the paper. Then it falls, and the paper's does not: the best is
m = 0.99 here and 0.999 there.

What was measured. Too small an m makes the queue stale: in the middle of the run its keys agree by {measure(r, "0.9", "consistency")} with what f_k
makes of the same views at m = 0.9, by {measure(r, "0.99", "consistency")} at 0.99, by {measure(r, "0.999", "consistency", form=".3f")} at 0.999; and the own key is found because it is
new ({measure(r, "0.9", "stored", form=".1f")} % of own keys at m = 0.9, {measure(r, "0.9", "remade", form=".1f")} % when the others are made anew). Too large an m leaves f_k behind: at the end it lacks
{measure(r, "0.99", "lag")} of the way that f_q has come at m = 0.99, {measure(r, "0.999", "lag")} at 0.999 and {measure(r, "0.9999", "lag")} at 0.9999. For that 1/(1-m) decides, beside the number
of steps: {measure(r, "0.999", "memory", form=",.0f")} and {measure(r, "0.9999", "memory", form=",.0f")} beside {measure(r, "0.99", "steps", form=",.0f")}. In a longer run m = 0.999 comes closer to 0.99 (log.md)."""


def queue(r: AblationResult) -> str:
    return f"""No rise with K at this length: {score(r, "256")} with 256 keys, {score(r, "8192")} with 8192, and by {KNN} a fall, from {score(r, "256", column=KNN)} to {score(r, "8192", column=KNN)}. The cause
that was measured is that of the mechanisms above: the more keys, the older they are, and the more an own key stands out by
being new. With 8192 the oldest is {measure(r, "8192", "age", form=".0f")} steps old, the keys agree by {measure(r, "8192", "consistency")} with what f_k makes of the same views, and own
keys are found {measure(r, "8192", "stored", form=".1f")} % of the time, {measure(r, "8192", "remade", form=".1f")} % when the others are made again; with 64 both are {measure(r, "64", "stored", form=".0f")} %."""


def shufflebn(r: AblationResult) -> str:
    two, plain, shuffled = "2 groups, not shuffled", "one group", "2 groups, shuffled"
    return f"""The scores cannot be told apart, but the leak is there. The trained networks find {measure(r, two, "own", form=".1f")} % of their own keys
without shuffling and {measure(r, two, "apart", form=".1f")} % when the keys' BN statistics are of other images: {gap(r, two)} of a hundred keys are found by their
statistics. With one group it is {gap(r, plain)}, with shuffling {gap(r, shuffled)}. (Of two groups, a key still shares half of its own
with its query.) So the network begins to cheat; in six epochs that does not yet cost
accuracy, and the paper's pretext accuracy of over 99.9 % is far away.

(In training own keys are found more often than by the trained network: there the queue's keys are of a network that has
moved on since, and the own key stands out by being new; see the mechanisms.)"""


def gap(r: AblationResult, label: str) -> str:
    row = row_of(r, label)
    pairs = zip(row.values_of("own"), row.values_of("apart"), strict=True)
    return table.format_mean([own - apart for own, apart in pairs])


def temperature(r: AblationResult) -> str:
    linear, mlp = "linear head", "mlp head"
    return f"""With a linear head the order is the paper's: 0.07 and 0.1 are best and level, then it falls ({score(r, "0.5", linear)} at 0.5). With an MLP
the paper's best is 0.2; here the score falls from 0.07 on, and the MLP is no gain at any temperature. It does help the
pretext task: at 0.2 it finds {measure(r, "0.2", "pretext", mlp, ".1f")} % of own keys, the linear head {measure(r, "0.2", "pretext", linear, ".1f")} %. What it learns stays in the head, which is
thrown away."""


def heads(r: AblationResult) -> str:
    return f"""At no temperature is the MLP a gain here ({score(r, "mlp head, temperature 0.2")} against {score(r, "linear head, temperature 0.2")} at 0.2, {score(r, "mlp head, temperature 0.1")} against
{score(r, "linear head, temperature 0.1")} at 0.1), in the paper it is worth 4 to 7 points. These are runs of the temperature's ablation; see there."""


def width(r: AblationResult) -> str:
    wide = "random encoder, resnet10, stem 3x3/2, width 0.25"
    return f"""Twice as wide is better, as in the paper ({score(r, "1")} to {score(r, "2")}); four times as wide is not better still ({score(r, "4")}), though its random
encoder is ({table.format_mean(r.baselines[wide][KNN])} by {KNN}). The loss says the same: {measure(r, "1", "loss")}, {measure(r, "2", "loss")} and
{measure(r, "4", "loss")}. Steps and learning rate are the same for all three, and were chosen for the middle one."""


def v2(r: AblationResult) -> str:
    last = r.rows[-1]
    return f"""Of v2's changes, more epochs help ({table.format_mean(last.scores(LINEAR))} after 9 epochs, {score(r, "MLP, aug+, cos")} after 6), as in the paper. aug+ and the
cosine change less than can be told, and the MLP with its temperature of 0.2 costs points: {score(r, "baseline")} without, {score(r, "MLP")} with. Both parts
of that are in the temperature's ablation: at 0.2 every head is worse here, and the MLP is no gain."""


def patch(r: AblationResult) -> str:
    high = f"{score(r, '0.016', 'learned projection')} and {score(r, '0.016', 'frozen projection')}"
    return f"""Learned or left random, the patch projection makes no difference that could be told, at any of the three learning rates
({high} at the highest). The paper's difference is of training that becomes unstable; no run here was: all losses fell to
the end, and {r.rows[0].facts["steps"]:,.0f} steps are few for an instability to show. By {KNN} no ViT here reaches raw pixels: a ViT learns too little in
three epochs for more than a comparison among themselves."""


def predictor(r: AblationResult) -> str:
    return f"""Without the predictor the score is not lower ({score(r, "without")} against {score(r, "with predictor")}), in the paper by one point. f_k has come {behind(r, "with predictor")} of
the way of f_q when the run ends: m grows from 0.99 to 1 in {r.rows[0].facts["steps"]:,.0f} steps, so f_k never catches up, and what a predictor is for, to
tell f_q from an f_k that is nearly the same, does not arise."""


def behind(r: AblationResult, label: str) -> str:
    return f"{100 * (1 - mean(row_of(r, label).values_of('lag'))):.0f} %"


def position(r: AblationResult) -> str:
    return f"""The order by the linear score is the paper's, but the differences are within what a seed does
({score(r, "sin-cos, fixed")}, {score(r, "learned")} and {score(r, "none")}). The pretext task does profit: with fixed positions {measure(r, "sin-cos, fixed", "pretext", form=".1f")} % of own keys are found,
without any {measure(r, "none", "pretext", form=".1f")} %. That so little depends on positions is the paper's finding too."""


def batchnorm(r: AblationResult) -> str:
    return f"""The two scores contradict each other: without BN {score(r, "without")} against {score(r, "with BN")} with a few labels, and {score(r, "without", column=KNN)} against {score(r, "with BN", column=KNN)} by
{KNN}. The pretext task is learned far more slowly without: {measure(r, "without", "pretext", form=".1f")} % of own keys are found, {measure(r, "with BN", "pretext", form=".1f")} % with BN, at losses of {loss(r, "without")} and
{loss(r, "with BN")}. That BN helps and is not needed is the paper's finding too."""


def batch(r: AblationResult) -> str:
    return f"""With the mini-batch the number of steps changes, from {r.rows[0].facts["steps"]:,.0f} to {r.rows[-1].facts["steps"]:,.0f} for the same images. By the linear score nothing can be told
apart; by {KNN} it falls beyond 128, to {score(r, "512", column=KNN)}. In the paper it rises to 2k, then falls, because training becomes unstable. No run
was unstable here; what large mini-batches lack at this length is steps: at the end f_k has come {behind(r, "512")} of the way of f_q with
512 images, {behind(r, "64")} with 64."""


READINGS: dict[str, Callable[[AblationResult], str]] = {
    "mechanism": mechanism, "momentum": momentum, "queue": queue, "shufflebn": shufflebn, "temperature": temperature,
    "head": heads, "width": width, "v2": v2, "v3-patch": patch, "v3-predictor": predictor, "v3-position": position,
    "v3-heads": batchnorm, "v3-batch": batch,
}  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1:])

"""Results as tables: one for each part, and the tests that ran on the card."""

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any


def read_tests(file: Path) -> list[dict[str, Any]]:
    """The tests in a report of pytest: name, outcome, and what each recorded."""
    if not file.exists():
        return []
    found = []
    for case in ET.parse(file).iter("testcase"):
        bad = next((child for child in case if child.tag in ("failure", "error", "skipped")), None)
        recorded = {one.get("name"): one.get("value") for one in case.iter("property")}
        found.append(
            {"name": f"{case.get('classname', '').rpartition('.')[2]}: {case.get('name')}",
             "outcome": "passed" if bad is None else bad.tag, "recorded": recorded}
            | ({} if bad is None else {"message": (bad.get("message") or "")[:300]})
        )  # fmt: skip
    return found


def to_markdown(results: dict[str, Any]) -> str:
    """The tables of docs/speed.md."""
    where = results["machine"]
    lines = [
        f"Measured on one {where['card']} ({where['memory_gb']} GB) with {where['cores']} cores, "
        f"torch {where['torch']}, torchvision {where['torchvision']}, CUDA {where['cuda']}, "
        f"cuDNN {where['cudnn']}, Python {where['python']}, in {results['seconds']} s"
        + "".join(
            f", {word} {results[name]}" for word, name in (("on", "date"), ("at commit", "commit")) if name in results
        )
        + ".",
        "",
    ]
    parts: dict[str, list[dict[str, Any]]] = {}
    for one in results["measured"]:
        parts.setdefault(one["part"], []).append(one)
    for part, rows in parts.items():
        lines += [f"**{part}**", "", "| variant | ms (spread) | rate | memory [MB] | also |", "|---|---|---|---|---|"]
        lines += [row(one) for one in rows]
        lines.append("")
    tests = results["tests"]
    bad = [one for one in tests if one["outcome"] != "passed"]
    if tests:
        lines.append(f"Tests marked `gpu`: {len(tests) - len(bad)} of {len(tests)} passed.")
    lines += [f"- {one['outcome']}: {one['name']}: {one.get('message', '')}" for one in bad]
    return "\n".join(lines).rstrip() + "\n"


def row(one: dict[str, Any]) -> str:
    if "error" in one:
        return f"| {one['variant']} | | | | failed: {one['error'].replace('|', '/')} |"
    time = f"{one['ms']:.4g} ({one['low']:.4g}-{one['high']:.4g})" if "ms" in one else ""
    rate = f"{one['rate']:,.0f} {one['unit']}/s" if "rate" in one else ""
    memory = f"{one['peak_mb']:,.0f}" if "peak_mb" in one else ""
    also = ", ".join(fact(name, value) for name, value in one.get("facts", {}).items())
    return f"| {one['variant']} | {time} | {rate} | {memory} | {also} |"


def fact(name: str, value: object) -> str:
    """What else was measured, with its unit."""
    match name:
        case "first_call_s":
            return f"first call {value} s"
        case "tflops":
            return f"{value} TFLOP/s"
        case _:
            return f"{name.replace('_', ' ')} {value}"

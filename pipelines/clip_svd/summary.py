"""Stage 4: means over sets with intervals, differences on the same shots, and both harmonic means.

Usage: python pipelines/clip_svd/summary.py OUT

Reads OUT/*/compare.json and writes OUT/summary.json and OUT/summary.md. The sets are taken as they are (not as a sample
of sets): the interval of a mean over sets comes from the sets' own intervals, which are independent of each other.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Found = Mapping[str, Any]


def harmonic(a: float, b: float) -> float:
    """Give 2ab/(a + b); 0 where both are."""
    return 2 * a * b / (a + b) if a + b > 0 else 0.0


def mean_of(figures: Sequence[Found]) -> dict[str, float | int]:
    """Average figures of several sets; half-widths of their intervals add up as independent errors do."""
    value = sum(f["value"] for f in figures) / len(figures)
    # No interval: every replicate was alike, as that of a method that always says the same class.
    spread = [0.0 if f["low"] is None else (f["high"] - f["low"]) / 2 for f in figures]
    half = math.sqrt(sum(s * s for s in spread)) / len(figures)
    found = {"value": value, "low": value - half, "high": value + half}
    return {k: round(v, 4) for k, v in found.items()} | {"num_sets": len(figures)}


def both_harmonic_means(sets: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Give the harmonic mean of the means over sets, and the mean over sets of harmonic means.

    The second can never exceed the first; published tables mix them (specs/core/clip_svd.md §6).

    Args:
        sets: Base and novel figure of each set.
    """
    base, novel = (sum(s[n] for s in sets) / len(sets) for n in (0, 1))
    return {
        "base": round(base, 4),
        "novel": round(novel, 4),
        "hm_of_means": round(harmonic(base, novel), 4),
        "mean_of_hms": round(sum(harmonic(b, n) for b, n in sets) / len(sets), 4),
    }


def summarise(results: Mapping[str, Found]) -> dict[str, Any]:
    """Sum up over sets, by each set's primary metric.

    Args:
        results: Set to what its compare.json holds.
    """
    plain = {name: r for name, r in results.items() if not name.endswith("-novel")}
    novel = {name: r for name, r in results.items() if r["novel_classes"]}
    methods = list(dict.fromkeys(_name(c["method"]) for r in plain.values() for c in r["cells"]))
    shots = sorted({c["shots"] for r in plain.values() for c in r["cells"] if c["shots"] is not None})
    means: dict[str, dict[str, Any]] = {}
    for method in methods:
        for k in (*shots, None):
            found = [f for r in plain.values() if (f := _cell(r, method, k)) is not None]
            if len(found) == len(plain):  # a mean over fewer sets would not compare
                means.setdefault(method, {})["mean" if k is None else str(k)] = mean_of(found)
    paired: dict[str, dict[str, Any]] = {}
    for reference in ("zero-shot", "linear-probe"):
        for method in methods:
            found = [f for r in plain.values() if (f := _difference(r, method, reference)) is not None]
            if found and len(found) == len(plain):
                paired.setdefault(reference, {})[method] = mean_of(found)
    asked = list(dict.fromkeys(_name(n["method"]) for r in novel.values() for n in r["novel"]))
    answered = {m: [s for r in novel.values() if (s := _sides(r, m)) is not None] for m in asked}
    return {
        "sets": {name: r["primary"] for name, r in plain.items()},
        "novel_sets": list(novel),
        "means": means,
        "paired": paired,
        "base_to_novel": {m: both_harmonic_means(s) for m, s in answered.items() if len(s) == len(novel)},
    }


def lines(summary: Mapping[str, Any]) -> Iterator[str]:
    """Write the summary in Markdown."""
    yield f"# Means over {len(summary['sets'])} sets\n"
    yield ", ".join(f"{name} ({metric.replace('_', ' ')})" for name, metric in summary["sets"].items()) + "\n"
    if summary["means"]:
        heads = list(dict.fromkeys(k for of_method in summary["means"].values() for k in of_method))
        yield "| method | " + " | ".join("K ≥ 4" if h == "mean" else f"K = {h}" for h in heads) + " |"
        yield "|---|" + "---|" * len(heads)
        order = sorted(summary["means"].items(), key=lambda kv: -kv[1].get("mean", {"value": -1})["value"])
        for method, of_method in order:
            yield f"| {method} | " + " | ".join(_said(of_method.get(h)) for h in heads) + " |"
    for reference, of_reference in summary["paired"].items():
        yield f"\n## Minus {reference}, mean over K ≥ 4\n"
        yield "| method | difference |\n|---|---|"
        for method, found in sorted(of_reference.items(), key=lambda kv: -kv[1]["value"]):
            yield f"| {method} | {_said(found)} |"
    if summary["base_to_novel"]:
        yield f"\n## From base to novel classes, {len(summary['novel_sets'])} sets\n"
        yield "| method | base | novel | hm_of_means | mean_of_hms |\n|---|---|---|---|---|"
        for method, f in summary["base_to_novel"].items():
            yield f"| {method} | {f['base']:.3f} | {f['novel']:.3f} | {f['hm_of_means']:.3f} | {f['mean_of_hms']:.3f} |"


def main(out: str) -> None:
    """Read every set's results and write the summary."""
    folder = Path(out)
    results = {p.parent.name: json.loads(p.read_text()) for p in sorted(folder.glob("*/compare.json"))}
    if not results:
        raise SystemExit(f"{folder}: no set has been measured")
    summary = summarise(results)
    (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    text = "\n".join(lines(summary)) + "\n"
    (folder / "summary.md").write_text(text)
    print(text)


def _cell(result: Found, method: str, shots: int | None) -> Found | None:
    wanted = (method, shots, result["primary"])
    return next((c for c in result["cells"] if (_name(c["method"]), c["shots"], c["metric"]) == wanted), None)


def _difference(result: Found, method: str, reference: str) -> Found | None:
    wanted = (method, reference, None, result["primary"])
    keys = ("reference", "shots", "metric")
    return next(
        (d for d in result["differences"] if (_name(d["method"]), *(d[k] for k in keys)) == wanted), None
    )  # fmt: skip


def _sides(result: Found, method: str) -> tuple[float, float] | None:
    """Base and novel accuracy, as the published tables have it."""
    found = (n for n in result["novel"] if _name(n["method"]) == method and n["metric"] == "accuracy")
    return next(((n["base"]["value"], n["novel"]["value"]) for n in found), None)


def _name(label: str) -> str:
    """Name a method without its options: rates differ from set to set."""
    return label.split(":")[0]


def _said(found: Found | None) -> str:
    return "–" if found is None else f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"


if __name__ == "__main__":
    main(*sys.argv[1:])

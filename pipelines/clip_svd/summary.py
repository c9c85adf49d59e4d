"""Stage 4: means over sets with intervals, differences on the same shots, and both harmonic means.

Usage: python pipelines/clip_svd/summary.py OUT [SUITE.yaml]

Reads OUT/*/compare.json and writes OUT/summary.json and OUT/summary.md. Every mean is of one metric: AUROC, which
every set has, and balanced accuracy over the sets that are about it. Sets that the suite leaves out of means
(`left_out`: they share images with another) have no part, so that the errors of the others are independent.

The sets are taken as they are (not as a sample of sets): the interval of a mean over sets is made of the sets' own.
What an interval is below its figure, and what it is above, add up apart, each as the root of the sum of squares (Zou &
Donner, Stat. Med. 27 (2008) 1693-1702), inside what the metric can be.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

Found = Mapping[str, Any]
Mean = dict[str, float | int | None]
Half = Callable[[Found], float | None]
METRICS: Mapping[str, str] = {"balanced_accuracy": "balanced accuracy", "macro_auroc": "AUROC"}
EVERYWHERE = "macro_auroc"
"""The metric that says the same of tasks with one answer and of findings: no threshold is chosen."""
REFERENCES = ("zero-shot", "linear-probe")
SHARE, DIFFERENCE = (0.0, 1.0), (-1.0, 1.0)


def harmonic(a: float, b: float) -> float:
    """Give 2ab/(a + b); 0 where both are."""
    return 2 * a * b / (a + b) if a + b > 0 else 0.0


def mean_of(figures: Sequence[Found], bounds: tuple[float, float] = SHARE) -> Mean:
    """Average figures of independent sets.

    Args:
        figures: value, low and high of each set.
        bounds: What a figure can be.

    Returns:
        value, low, high and the number of sets; low and high are None where any set has no interval, as where every
        replicate of a method was alike: that is not certainty.
    """
    value = sum(f["value"] for f in figures) / len(figures)
    return _figure(value, [(_below(f), _above(f)) for f in figures], bounds)


def both_harmonic_means(sets: Sequence[Found]) -> dict[str, Mean]:
    """Give the harmonic mean of the means over sets, and the mean over sets of harmonic means.

    The second can never exceed the first; published tables mix them (specs/core/clip_svd.md §6).

    Args:
        sets: For each set `base`, `novel` and `hm_of_means` (over its draws of shots), each with value, low and high.

    Returns:
        base, novel, hm_of_means and mean_of_hms. How base and novel of a set vary together is not known here, so in
        the interval of hm_of_means they add up as if they always erred to the same side: too wide, never too narrow.
    """
    base, novel = mean_of([s["base"] for s in sets]), mean_of([s["novel"] for s in sets])
    found = {"base": base, "novel": novel, "mean_of_hms": mean_of([s["hm_of_means"] for s in sets])}
    b, n = (sum(s[side]["value"] for s in sets) / len(sets) for side in ("base", "novel"))
    if len(sets) == 1:
        return found | {"hm_of_means": found["mean_of_hms"]}
    of_base, of_novel = (2 * (other / (b + n)) ** 2 if b + n > 0 else 0.0 for other in (n, b))

    def error(s: Found, half: Half) -> float | None:
        x, y = half(s["base"]), half(s["novel"])
        return None if x is None or y is None else of_base * x + of_novel * y

    halves = [(error(s, _below), error(s, _above)) for s in sets]
    return found | {"hm_of_means": _figure(harmonic(b, n), halves, SHARE)}


def summarise(results: Mapping[str, Found], left_out: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Sum up over sets.

    Args:
        results: Set to what its compare.json holds.
        left_out: Sets that no mean is over, and why.
    """
    left_out = {name: why for name, why in (left_out or {}).items() if name in results}
    plain = {name: r for name, r in results.items() if not name.endswith("-novel") and name not in left_out}
    novel = {name: r for name, r in results.items() if r["novel_classes"] and name not in left_out}
    by_metric = {m: {n: r for n, r in plain.items() if m in (EVERYWHERE, r["primary"])} for m in METRICS}
    asked = list(dict.fromkeys(_name(n["method"]) for r in novel.values() for n in r["novel"]))
    answered = {m: [s for r in novel.values() if (s := _sides(r, m)) is not None] for m in asked}
    return {
        "sets": {name: r["primary"] for name, r in plain.items()},
        "left_out": left_out,
        "metrics": {metric: _of_metric(metric, sets) for metric, sets in by_metric.items() if sets},
        "novel_sets": {name: r["primary"] for name, r in novel.items()},
        "base_to_novel": {m: both_harmonic_means(s) for m, s in answered.items() if len(s) == len(novel)},
    }


def lines(summary: Mapping[str, Any]) -> Iterator[str]:
    """Write the summary in Markdown."""
    yield f"# Means over {len(summary['sets'])} sets"
    for name, why in summary["left_out"].items():
        yield f"\nNot in the means: {name} ({why})."
    for metric, found in summary["metrics"].items():
        title = METRICS[metric]
        yield f"\n## {title[0].upper()}{title[1:]}, mean over {', '.join(found['sets'])}\n"
        heads = list(dict.fromkeys(k for of_method in found["means"].values() for k in of_method))
        yield "| method | " + " | ".join("K ≥ 4" if h == "mean" else f"K = {h}" for h in heads) + " |"
        yield "|---|" + "---|" * len(heads)
        order = sorted(found["means"].items(), key=lambda kv: -kv[1].get("mean", {"value": -1})["value"])
        for method, of_method in order:
            yield f"| {method} | " + " | ".join(_said(of_method.get(h)) for h in heads) + " |"
        for reference, of_reference in found["paired"].items():
            yield f"\n### {title[0].upper()}{title[1:]} minus {reference}, mean over K ≥ 4\n"
            yield "| method | difference |\n|---|---|"
            for method, difference in sorted(of_reference.items(), key=lambda kv: -kv[1]["value"]):
                yield f"| {method} | {_said(difference)} |"
    if summary["base_to_novel"]:
        metrics = " and ".join(dict.fromkeys(METRICS[m] for m in summary["novel_sets"].values()))
        yield f"\n## From base to novel classes: {metrics} of {', '.join(summary['novel_sets'])}\n"
        yield "| method | base | novel | hm_of_means | mean_of_hms |\n|---|---|---|---|---|"
        for method, f in summary["base_to_novel"].items():
            yield (
                f"| {method} | "
                + " | ".join(_said(f[k]) for k in ("base", "novel", "hm_of_means", "mean_of_hms"))
                + " |"
            )
        yield (
            "\n`hm_of_means`: the harmonic mean of the two means over sets; `mean_of_hms`: the mean over sets of each "
            "set's own. With one set they are the same; each set's page has both over its draws of shots."
        )


def main(out: str, suite: str = "") -> None:
    """Read every set's results and write the summary."""
    folder = Path(out)
    results = {p.parent.name: json.loads(p.read_text()) for p in sorted(folder.glob("*/compare.json"))}
    if not results:
        raise SystemExit(f"{folder}: no set has been measured")
    parts = yaml.safe_load(Path(suite).read_text(encoding="utf-8"))["sets"] if suite else []
    summary = summarise(results, {p["id"]: p["left_out"] for p in parts if "left_out" in p})
    (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    text = "\n".join(lines(summary)) + "\n"
    (folder / "summary.md").write_text(text)
    print(text)


def _of_metric(metric: str, sets: Mapping[str, Found]) -> dict[str, Any]:
    """Give means and paired differences by one metric; a mean over fewer sets would not compare, so there is none."""
    methods = list(dict.fromkeys(_name(c["method"]) for r in sets.values() for c in r["cells"]))
    shots = sorted({c["shots"] for r in sets.values() for c in r["cells"] if c["shots"] is not None})
    means: dict[str, dict[str, Mean]] = {}
    for method in methods:
        for k in (*shots, None):
            found = [f for r in sets.values() if (f := _cell(r, method, k, metric)) is not None]
            if len(found) == len(sets):
                means.setdefault(method, {})["mean" if k is None else str(k)] = mean_of(found)
    paired: dict[str, dict[str, Mean]] = {}
    for reference in REFERENCES:
        for method in methods:
            found = [f for r in sets.values() if (f := _difference(r, method, reference, metric)) is not None]
            if found and len(found) == len(sets):
                paired.setdefault(reference, {})[method] = mean_of(found, DIFFERENCE)
    return {"sets": list(sets), "means": means, "paired": paired}


def _figure(value: float, halves: Sequence[tuple[float | None, float | None]], bounds: tuple[float, float]) -> Mean:
    below, above = (_together([h[k] for h in halves]) for k in (0, 1))
    low = None if below is None else round(max(bounds[0], value - below), 4)
    high = None if above is None else round(min(bounds[1], value + above), 4)
    return {"value": round(value, 4), "low": low, "high": high, "num_sets": len(halves)}


def _together(halves: Sequence[float | None]) -> float | None:
    """Give one side of the interval of a mean from that side of each figure's."""
    known = [h for h in halves if h is not None]
    return math.sqrt(sum(h * h for h in known)) / len(halves) if len(known) == len(halves) else None


def _below(figure: Found) -> float | None:
    return None if figure["low"] is None else figure["value"] - figure["low"]


def _above(figure: Found) -> float | None:
    return None if figure["high"] is None else figure["high"] - figure["value"]


def _cell(result: Found, method: str, shots: int | None, metric: str) -> Found | None:
    wanted = (method, shots, metric)
    return next((c for c in result["cells"] if (_name(c["method"]), c["shots"], c["metric"]) == wanted), None)


def _difference(result: Found, method: str, reference: str, metric: str) -> Found | None:
    wanted = (method, reference, None, metric)
    keys = ("reference", "shots", "metric")
    return next((d for d in result["differences"] if (_name(d["method"]), *(d[k] for k in keys)) == wanted), None)


def _sides(result: Found, method: str) -> Found | None:
    """Give base, novel and their harmonic mean by the metric that the set's page has them by."""
    wanted = (method, result["primary"])
    found = (n for n in result["novel"] if (_name(n["method"]), n["metric"]) == wanted and "hm_of_means" in n)
    return next(found, None)


def _name(label: str) -> str:
    """Name a method without its options: rates differ from set to set."""
    return label.split(":")[0]


def _said(found: Found | None) -> str:
    if found is None:
        return "–"
    if found["low"] is None:
        return f"{found['value']:.3f} (no interval)"
    return f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"


if __name__ == "__main__":
    main(*sys.argv[1:])

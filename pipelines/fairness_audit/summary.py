"""Stage 3: the audit's figures beside the published ones.

Usage: python pipelines/fairness_audit/summary.py OUT

Reads OUT/audit/<set>/metrics.csv and shortcuts.csv, writes OUT/summary.csv and OUT/summary.md: one row for each
published figure of the sets and models that were audited. The mean of six labels is ours over the same labels; it has
no interval here, since its labels are of the same patients. The published figures tell the order of magnitude only:
their race mapping and their filter of the test set are not released, and they resample images, not patients.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

MEAN = "mean of six"
DEVICE_TEST = "{}: positives with and without the device"
PLACE = ("model", "label", "attribute", "group", "metric")
COLUMNS: tuple[str, ...] = ("set", *PLACE, "published", "here", "low", "high", "n", "n_pos", "note")

Row = Mapping[str, str]
Found = dict[tuple[str, ...], Row]


def read(path: Path) -> list[Row]:
    """Read a CSV; one that is not there has no rows."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as f:
        return list(csv.DictReader(f))


def audited(folder: Path) -> Found:
    """Give the audit's figures by model, label, attribute, group and metric; a device's strata are groups."""
    found: Found = {tuple(r[c] for c in PLACE): r for r in read(folder / "metrics.csv")}
    for r in read(folder / "shortcuts.csv"):
        device = r["test"].partition(":")[0]
        if r["test"] == DEVICE_TEST.format(device):
            found[r["model"], r["label"], device, r["stratum"], r["metric"]] = r
    return found


def mean_of(found: Found, labels: Iterable[str], model: str, attribute: str, group: str, metric: str) -> Row:
    """Average a figure over labels; no value, and the reason, where one of them has none."""
    rows = [found.get((model, label, attribute, group, metric), {}) for label in labels]
    values = [float(r["value"]) for r in rows if r.get("value")]
    if len(values) < len(rows):
        return {"note": f"{len(rows) - len(values)} of {len(rows)} labels have no figure here"}
    return {"value": str(sum(values) / len(values))}


def beside(published: list[Row], found: Mapping[str, Found]) -> list[dict[str, str]]:
    """Put each published figure beside ours, for sets and models that were audited."""
    made = []
    for p in published:
        here = found.get(p["set"], {})
        if not any(key[0] == p["model"] for key in here):
            continue
        if p["label"] == MEAN:
            labels = dict.fromkeys(q["label"] for q in published if q["set"] == p["set"] and q["label"] != MEAN)
            ours = mean_of(here, labels, p["model"], p["attribute"], p["group"], p["metric"])
        else:
            ours = here.get(tuple(p[c] for c in PLACE), {"note": "no such group or label here"})
        note = ours.get("note", "") if not ours.get("value") else ours.get("flag", "")
        kept = {c: ours.get(c) or "" for c in ("low", "high", "n", "n_pos")}
        made.append({**p, "here": ours.get("value") or "", **kept, "note": note or ours.get("reason", "")})
    return made


def lines(rows: list[dict[str, str]]) -> list[str]:
    """Write the rows as a Markdown table, two digits each."""
    said = ["| set | model | label | group | metric | published | here (95 % interval) | note |", "|" + "---|" * 8]
    for r in rows:
        group = r["group"] if r["attribute"] in ("all", r["group"]) else f"{r['attribute']}: {r['group']}"
        here = f"{float(r['here']):.2f}" if r["here"] else "–"
        here += f" ({float(r['low']):.2f} to {float(r['high']):.2f})" if r["low"] and r["high"] else ""
        cells = (r["set"], r["model"], r["label"], group, r["metric"], f"{float(r['published']):.2f}", here, r["note"])
        said.append(f"| {' | '.join(cells)} |")
    return said


def main(out: str) -> int:
    """Write both files; 1 where no set was audited."""
    folder = Path(out)
    sets = [p.name for p in sorted((folder / "audit").glob("*")) if (p / "metrics.csv").is_file()]
    if not sets:
        print("nothing was audited, so there is nothing to set beside the published figures")
        return 1
    rows = beside(read(Path(__file__).with_name("published.csv")), {s: audited(folder / "audit" / s) for s in sets})
    with (folder / "summary.csv").open("w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    (folder / "summary.md").write_text("\n".join(lines(rows)) + "\n", encoding="utf-8")
    print(f"{len(rows)} published figures beside ours ({', '.join(sets)}): {folder / 'summary.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

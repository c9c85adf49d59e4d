"""Stage 1 on the shared sets: label tables with medclip-mini's own division by patient, and the table of shots.

Usage: python pipelines/fairness_audit/shared.py SHARED_DATA SHARDS OUT

Patients are named as in the training of medclip-mini, so that an audit with the key of its shards can tell whether it
has seen them. Files are matched to the shards by the hash of their bytes. Written are OUT/nih.csv (all splits; the test
patients are audited, thresholds are chosen on val), OUT/shots.csv (train and test only: nobody on whom a threshold is
chosen gives a shot) and OUT/covid.csv (films of a set that medclip-mini was partly trained on: for a red box).
"""

from __future__ import annotations

import csv
import hashlib
import runpy
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

PIPELINES = Path(__file__).parents[1]
FINDINGS = "label:chest_xray_findings:"
SHOTS_LABEL = f"{FINDINGS}pneumonia"
FRONTAL = ("pa", "ap")

Row = dict[str, str]


def nih(data: Path, splits: Mapping[str, str]) -> list[Row]:
    """Give the chest X-rays of the NIH part: patient, visit, sex, age, view, pneumonia and split."""
    visits = {r["file"]: r["follow_up"] for r in _read(data / "nih_cxr" / "labels.csv")}
    found = []
    for row in _mini("nih")(data):
        split = splits.get(_hash(data / row["file"]))
        if split is None:
            continue  # the shards left it out
        file = row["file"].partition("/")[2]
        kept = {k: row[k] for k in ("patient", "sex", "age", "view")}
        found.append({"file": file, **kept, "study": visits[file], "Pneumonia": row[SHOTS_LABEL], "split": split})
    return found


def shots(rows: Iterable[Row]) -> list[Row]:
    """Give the table that shots are drawn from; test patients are tested on, those of val are left out."""
    return [
        {
            "file": r["file"],
            "patient": r["patient"],
            "modality": "xray",
            SHOTS_LABEL: r["Pneumonia"],
            "split": r["split"],
        }
        for r in rows
        if r["split"] in ("train", "test")
    ]


def covid(data: Path, splits: Mapping[str, str]) -> list[Row]:
    """Give the frontal films of the COVID-19 collection of which it is known whether it is COVID-19."""
    found = []
    for row in _mini("covid")(data):
        answer = row.get(f"{FINDINGS}covid_19", "")
        split = splits.get(_hash(data / row["file"]))
        if answer and split and row.get("label:chest_xray_view") in FRONTAL:
            kept = {k: row[k] for k in ("patient", "sex", "age", "view")}
            found.append({"file": row["file"].partition("/")[2], **kept, "COVID-19": answer, "split": split})
    return found


def check(rows: Iterable[Row]) -> None:
    """Refuse a division that does not keep patients whole."""
    sides: dict[str, set[str]] = {}
    for row in rows:
        sides.setdefault(row["patient"], set()).add(row["split"])
    torn = sum(len(found) > 1 for found in sides.values())
    if torn:
        raise SystemExit(f"nih: {torn} patients are in more than one split of the shards")
    missing = {"train", "val", "test"} - {side for found in sides.values() for side in found}
    if missing:
        raise SystemExit(f"nih: the shards have no split {' and no split '.join(sorted(missing))} of these films")


def write(rows: list[Row], path: Path) -> None:
    """Write a table and say what it holds."""
    with path.open("w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    print(f"{path.name}: {len(rows)} images of {len({r['patient'] for r in rows})} patients")


def main(data: str, shards: str, out: str) -> None:
    """Write the three tables."""
    root, folder = Path(data), Path(out)
    splits = runpy.run_path(str(PIPELINES / "clip_svd" / "prepare.py"))["splits_of"](Path(shards))
    rows = nih(root, splits)
    check(rows)
    folder.mkdir(parents=True, exist_ok=True)
    write(rows, folder / "nih.csv")
    write(shots(rows), folder / "shots.csv")
    write(covid(root, splits), folder / "covid.csv")


def _mini(name: str) -> Callable[[Path], Iterable[Row]]:
    return runpy.run_path(str(PIPELINES / "mini" / "prepare.py"))[name]


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _read(path: Path) -> list[Row]:
    with path.open(newline="", encoding="utf-8") as f:
        return list(csv.DictReader(f))


if __name__ == "__main__":
    main(*sys.argv[1:])

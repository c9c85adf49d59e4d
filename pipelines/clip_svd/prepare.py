"""Stage 2 on the shared sets: a few-shot table for each task, with the base's own division by patient.

Usage: python pipelines/clip_svd/prepare.py SHARED_DATA SHARDS OUT

The base has seen images (no labels) of its training patients, so only patients that it never saw are tested on: the
shards' test patients. Shots come from the others. Files are matched by the hash of their bytes.
"""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

Row = Mapping[str, str]
FINDINGS = "label:chest_xray_findings:"
TASKS: Mapping[str, tuple[str, Callable[[str], bool]]] = {
    "brain_mri": ("brain_mri", lambda c: c == "label:brain_mri_tumour"),
    "nih_pneumonia": ("nih_cxr", lambda c: c == f"{FINDINGS}pneumonia"),
    "fundus_cataract": ("csdi_fundus", lambda c: c.startswith("label:fundus_cataract")),
    "breast_density": ("mini_mias", lambda c: c == "label:breast_density"),
    # taken before 2018: no COVID-19, nothing to tell apart
    "nih_findings": ("nih_cxr", lambda c: c.startswith(FINDINGS) and c != f"{FINDINGS}covid_19"),
}
"""Name to the source of its rows and which columns are its labels."""


def splits_of(shards: Path) -> dict[str, str]:
    """Read which split each file of the base's shards is in, by the hash of its bytes."""
    import pyarrow.parquet as pq

    table = pq.read_table(shards / "samples.parquet", columns=["sha256", "split"])
    return dict(zip(table["sha256"].to_pylist(), table["split"].to_pylist(), strict=True))


def table_of(rows: list[Row], name: str, splits: Mapping[str, str]) -> list[dict[str, str]]:
    """Give one task's rows; a patient with any file in the base's test split is tested on, all others give shots."""
    source, is_label = TASKS[name]
    chosen = [r for r in rows if r["source"] == source and r.get("adapter") != "generic"]
    found = []
    for row in chosen:
        digest = hashlib.sha256(Path(row["file"]).read_bytes()).hexdigest()
        if digest not in splits:
            continue  # the base's shards left it out
        labels = {c: v for c, v in row.items() if is_label(c)}
        if any(v.strip() for v in labels.values()):
            side = "test" if splits[digest] == "test" else "train"
            found.append(
                {"file": row["file"], "patient": row["patient"], "modality": row["modality"], "split": side} | labels
            )
    torn = {r["patient"] for r in found if r["split"] == "test"} & {r["patient"] for r in found if r["split"] != "test"}
    if torn:
        raise SystemExit(f"{name}: {len(torn)} patients are on both sides of the base's division")
    return found


def main(data: str, shards: str, out: str) -> None:
    """Write one table for each task."""
    root, folder = Path(data).resolve(), Path(out)
    rows = [row | {"file": str(root / row["file"])} for row in _mini().rows(root)]
    splits = splits_of(Path(shards))
    folder.mkdir(parents=True, exist_ok=True)
    for name in TASKS:
        found = table_of(rows, name, splits)
        columns = list(dict.fromkeys(c for r in found for c in r))
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as f:
            writer = csv.DictWriter(f, columns, restval="")
            writer.writeheader()
            writer.writerows(found)
        tested = [r for r in found if r["split"] == "test"]
        print(
            f"{name}: {len(found)} images; to test on: {len(tested)}, of {len({r['patient'] for r in tested})} patients"
        )


def _mini() -> ModuleType:
    """Load the table of medclip-mini, of which these are parts."""
    path = Path(__file__).parents[1] / "mini" / "prepare.py"
    spec = importlib.util.spec_from_file_location("mini_prepare", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Tables of scores and labels made by code, in every form that an audit takes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from medclip.files.tables.table import Coded, merged
from medclip.statistics.cohort import Attribute, Cohort, Label

KEY = b"k" * 32
FORMS = ("csv", "tsv", "parquet", "pandas", "polars", "pyarrow")
Columns = Mapping[str, Sequence[Any]]


def form_of(columns: Columns, form: str, folder: Path, name: str) -> Any:
    """Give a table as a path or a frame."""
    table = pa.table({k: list(v) for k, v in columns.items()})
    if form in ("csv", "tsv"):
        path = folder / f"{name}.{form}"
        pa.csv.write_csv(table, path, pa.csv.WriteOptions(delimiter="\t" if form == "tsv" else ","))
        return path
    if form == "parquet":
        pq.write_table(table, folder / f"{name}.parquet")
        return folder / f"{name}.parquet"
    if form == "polars":
        import polars as pl

        return pl.from_arrow(table)
    return table.to_pandas() if form == "pandas" else table


def tables(num: int = 120, seed: int = 0, **more: Sequence[Any]) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
    """Make scores of two findings and their labels: patients with one to three images, half of them women."""
    rng = np.random.default_rng(seed)
    patient = np.sort(rng.integers(0, max(num // 2, 1), num))
    file = [f"images/{i:05d}.png" for i in range(num)]
    truth = {name: rng.integers(0, 2, num) for name in ("Pneumonia", "Pleural_Effusion")}
    for values in truth.values():
        values[:2] = (0, 1)
    scores = {"file": file} | {n: np.clip(0.3 * t + 0.6 * rng.random(num), 0, 1).tolist() for n, t in truth.items()}
    labels = {
        "file": file,
        "patient_id": [f"P-{p:04d}" for p in patient],
        "sex": ["F" if p % 2 else "M" for p in patient],
        "age": rng.integers(1, 95, num).tolist(),
        "view": ["AP" if v else "PA" for v in rng.integers(0, 2, num)],
    }
    return scores, labels | {n: t.tolist() for n, t in truth.items()} | {k: list(v) for k, v in more.items()}


def write_scored(
    folder: Path,
    studies: Mapping[str, Sequence[str]],
    scores: Mapping[str, Mapping[str, float]],
    kind: str,
    **more: Any,
) -> Path:
    """Write files.parquet and scores.parquet as `medclip score` does.

    Args:
        folder: Where.
        studies: Files of each study.
        scores: Of each study, by `task:class`.
        kind: multiclass or multilabel.
        more: `patients` and `headers` by study; `failed`: files that were not scored, with the reason.
    """
    folder.mkdir(parents=True, exist_ok=True)
    patients, headers = more.get("patients", {}), more.get("headers", {})
    rows = [
        {"path": f, "study": s, "status": "scored", "reason": None, "headers": _json(headers.get(s))}
        for s, files in studies.items()
        for f in files
    ]
    for file, reason in more.get("failed", {}).items():
        rows.append({"path": file, "study": None, "status": "failed", "reason": reason, "headers": None})
    pq.write_table(
        pa.Table.from_pylist(rows, schema=pa.schema([(k, pa.string()) for k in rows[0]])), folder / "files.parquet"
    )
    asked = [
        {
            "study": study,
            "patient": patients.get(study),
            "modality": "xray",
            "task": name.split(":")[0],
            "class": name.split(":")[1],
            "kind": kind,
            "probability": value,
            "model": "mini",
        }
        for study, inside in scores.items()
        for name, value in inside.items()
    ]
    pq.write_table(pa.Table.from_pylist(asked), folder / "scores.parquet")
    return folder


def _json(value: Any) -> str | None:
    return None if value is None else json.dumps(value)


def coded(texts: Sequence[str]) -> Coded:
    """Give a column of texts."""
    return merged(np.arange(len(texts)), list(texts))


def cohort_of(patients: Sequence[int], truth: Sequence[float], **attributes: Sequence[str]) -> Cohort:
    """Make a cohort of one label; groups in the order of their names."""
    made = []
    for name, values in attributes.items():
        groups = tuple(sorted(set(values)))
        codes = np.asarray([groups.index(v) for v in values], np.int16)
        made.append(Attribute(name.replace("_x_", " × "), groups, codes))
    score = np.linspace(0, 1, len(truth))
    label = Label("finding", score, np.asarray(truth, float))
    return Cohort(np.asarray(patients, np.int32), (label,), tuple(made))

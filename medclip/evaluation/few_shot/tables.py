"""The tables of a comparison: results (without seconds, so that equal runs give equal bytes), runs, predictions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from medclip.evaluation.few_shot.data import FewShotData
from medclip.evaluation.few_shot.plan import RunKey
from medclip.evaluation.few_shot.results import Cell, Comparison, Paired
from medclip.evaluation.few_shot.store import Run, RunStore
from medclip.files.output import write_file
from medclip.files.tables.write import csv_bytes, parquet_bytes, schema_of, table_of
from medclip.models.prototypes.class_vectors import probabilities

if TYPE_CHECKING:
    import pyarrow as pa

RESULTS, PAIRED, RUNS, PREDICTIONS, JSON = "results", "paired", "runs.parquet", "predictions.parquet", "compare.json"


def write_tables(store: RunStore, result: Comparison, data: FewShotData, runs: Mapping[RunKey, Run]) -> None:
    """Write results and paired differences (CSV and Parquet), runs, predictions, and everything as JSON."""
    for name, row_type, rows in ((RESULTS, Cell, result.cells), (PAIRED, Paired, result.differences)):
        table = table_of(rows, row_type, schema_of(row_type, integer="int32"))
        write_file(store.folder / f"{name}.csv", csv_bytes(table))
        write_file(store.folder / f"{name}.parquet", parquet_bytes(table))
    write_file(store.folder / RUNS, parquet_bytes(_runs(runs)))
    write_file(store.folder / PREDICTIONS, parquet_bytes(_predictions(data, runs)))
    write_file(store.folder / JSON, result.to_json())


def _runs(runs: Mapping[RunKey, Run]) -> pa.Table:
    """One row for each run: what it learned from (rows of the table), what it took, why it failed."""
    import pyarrow as pa

    facts = [run.facts for run in runs.values()]

    def column(name: str, kind: pa.DataType) -> pa.Array:
        return pa.array([f.get(name) for f in facts], kind)

    columns = {
        "method": pa.array([key.label for key in runs], pa.string()),
        "part": pa.array([key.part for key in runs], pa.string()),
        "shots": pa.array([key.shots for key in runs], pa.int32()),
        "seed": pa.array([key.seed for key in runs], pa.int32()),
        "init": pa.array([key.init for key in runs], pa.int32()),
        "train_rows": column("train_rows", pa.list_(pa.int64())),
        "val_rows": column("val_rows", pa.list_(pa.int64())),
        "num_trainable": column("num_trainable", pa.int64()),
        "fit_seconds": column("fit_seconds", pa.float64()),
        "predict_seconds": column("predict_seconds", pa.float64()),
        "settings": pa.array([json.dumps(f.get("settings", {}), sort_keys=True) for f in facts], pa.string()),
        "notes": column("notes", pa.list_(pa.string())),
        "reason": column("reason", pa.string()),
        "message": column("message", pa.string()),
    }
    return pa.table(columns)


def _predictions(data: FewShotData, runs: Mapping[RunKey, Run]) -> pa.Table:
    """One row for each run and test image; patients as keyed hashes, no path."""
    import pyarrow as pa

    test = [data.unit(r) for r in data.test]
    labels = [json.dumps(u.target) if isinstance(u.target, tuple) else data.text.names[u.target] for u in test]
    tables = []
    for key, run in runs.items():
        if run.logits_NC is None or key.part != "all":
            continue
        chances = probabilities(run.logits_NC, data.text.kind)
        of_run = {
            "method": pa.array([key.label] * len(test), pa.string()),
            "shots": pa.array([key.shots] * len(test), pa.int32()),
            "seed": pa.array([key.seed] * len(test), pa.int32()),
            "init": pa.array([key.init] * len(test), pa.int32()),
            "row": pa.array([u.number for u in test], pa.int64()),
            "patient": pa.array([u.patient for u in test], pa.string()),
            "label": pa.array(labels, pa.string()),
            "probabilities": pa.FixedSizeListArray.from_arrays(
                pa.array(chances.astype(np.float32).ravel(), pa.float32()), chances.shape[1]
            ),
        }
        tables.append(pa.table(of_run))
    return pa.concat_tables(tables) if tables else pa.table({})

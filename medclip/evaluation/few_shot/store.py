"""The folder of a comparison: one small file for each run, so that one that was stopped goes on where it was.

Runs are kept by what they are (method, shots, seeds), not by what was asked for: asking for more methods, shots or
seeds in the same folder computes those only, and tables and page are written anew from the files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medclip.evaluation.few_shot.data import FewShotData
from medclip.evaluation.few_shot.plan import RunKey
from medclip.evaluation.few_shot.results import Cell, Comparison, Paired
from medclip.files.output import claim_run, write_file
from medclip.files.tables.write import csv_bytes, parquet_bytes, schema_of, table_of
from medclip.models.prototypes.class_vectors import probabilities

if TYPE_CHECKING:
    import pyarrow as pa


IDENTITY = "run.json"
COMPARISON = "comparison"
"""What the folder holds, in sentences."""
_RUNS = "runs"


@dataclass(frozen=True, eq=False)
class Run:
    """What one run left: predictions, and facts that JSON can hold."""

    logits_NC: NDArray[np.float32] | None
    """float32 [N, C] over the test images; None where the method failed."""
    novel_NC: NDArray[np.float32] | None
    """For runs from base to novel classes: over test images of the novel classes; `logits_NC` is over the base ones."""
    facts: Mapping[str, Any]

    @property
    def failed(self) -> bool:
        """Whether the method gave its reason instead of predictions."""
        return self.logits_NC is None


class RunStore:
    """Runs of one base pack on one data set.

    Args:
        folder: Folder of the runs; made if it is not there.
        identity: Identity of the runs (base, data, division). A folder of something else is refused.

    Raises:
        MedclipError: OUTPUT_IN_USE for a folder that holds anything else; as `medclip.files.output.disk_errors`.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self.folder = folder
        claim_run(folder, COMPARISON, identity, IDENTITY)

    def kept(self, key: RunKey, digest: str) -> Run | None:
        """Return a run that is done; None where it is not, was asked for otherwise, or failed (it is tried again).

        Args:
            key: Key of the run.
            digest: Fingerprint of what the run is made of beyond its key: the shots that were drawn.
        """
        run = self._read(key)
        return run if run is not None and run.facts.get("asked") == digest and not run.failed else None

    def _read(self, key: RunKey) -> Run | None:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.folder / _RUNS / key.file, framework="numpy") as f:
                facts = json.loads((f.metadata() or {}).get("facts", "{}"))
                tensors = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118 - not a mapping
        except (OSError, SafetensorError, ValueError):
            return None
        return Run(tensors.get("logits"), tensors.get("novel"), facts)

    def keep(self, key: RunKey, run: Run) -> Run:
        """Store a run in one step, and give it back as it will be read."""
        from safetensors.numpy import save

        arrays = {"logits": run.logits_NC, "novel": run.novel_NC}
        tensors = {n: np.ascontiguousarray(a, np.float32) for n, a in arrays.items() if a is not None}
        facts = json.dumps(dict(run.facts), sort_keys=True, default=_plain)
        write_file(self.folder / _RUNS / key.file, save(tensors or {"none": np.zeros(1, np.float32)}, {"facts": facts}))
        return Run(tensors.get("logits"), tensors.get("novel"), json.loads(facts))


def _plain(value: Any) -> Any:
    """Write numbers of numpy as numbers, and anything else as text."""
    return value.item() if isinstance(value, np.generic) else str(value)


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

"""A selection: which pairs of a pile are kept, which step dropped each of the others, and how much each counts.

It is one Parquet file beside the shards, with a row for every pair, and nothing is copied: training reads the rows that
are kept. It names pairs by their keys, and no patient.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medclip.errors import MedclipError, Reason, refuse_missing
from medclip.files.output import claim_file, write_file
from medclip.files.tables.parquet_stream import read_stream
from medclip.files.tables.write import parquet_bytes

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

FORMAT, FORMAT_VERSION = "medclip-selection", 1
COLUMNS = ("key", "split", "kept", "dropped_by", "value", "weight")
_NOTE = b"medclip"
_BATCH_ROWS = 1 << 16


@dataclass(frozen=True, eq=False)
class Selection:
    """What becomes of the N pairs of a pile."""

    table: pa.Table
    """N rows with the columns of `COLUMNS`, in the pile's order. `value` is what the step measured that dropped the
    pair, or the last one that measured it; NaN where none did."""
    pile: str
    """Digest of the pile."""
    steps: Mapping[str, Any]
    """What it was made by, as plain values of JSON."""

    def __len__(self) -> int:
        """Return N."""
        return self.table.num_rows

    @property
    def kept_N(self) -> NDArray[np.bool_]:
        """Return which pairs are kept."""
        return self.table.column("kept").to_numpy()

    @property
    def weight_N(self) -> NDArray[np.float32]:
        """Return how much each pair counts; 1 where no step weighs it."""
        return self.table.column("weight").to_numpy()

    def rows_of_split(self, split: str) -> Selection:
        """Return the selection of the pairs of one split."""
        import pyarrow as pa

        in_split = [name == split for name in self.table.column("split").to_pylist()]
        return Selection(self.table.filter(pa.array(in_split, pa.bool_())), self.pile, self.steps)

    @cached_property
    def digest(self) -> str:
        """Hash of the keys that are kept and their weights: what training depends on."""
        kept = self.table.filter(self.table.column("kept"))
        content = hashlib.blake2b(digest_size=8)
        for batch in kept.to_batches(_BATCH_ROWS):
            content.update("".join(f"{key}\0" for key in batch.column("key").to_pylist()).encode())
        content.update(np.ascontiguousarray(kept.column("weight").to_numpy(), "<f4").tobytes())
        return content.hexdigest()


def selection_of(
    keys: Any,
    splits: Any,
    dropped_by: Sequence[str] | NDArray[np.object_],
    value_N: NDArray[np.float64],
    weight_N: NDArray[np.floating[Any]],
    pile: str,
    steps: Mapping[str, Any],
) -> Selection:
    """Make a selection of its columns.

    Args:
        keys: Arrow column of N keys.
        splits: Arrow column of their splits.
        dropped_by: Name of the step that dropped each pair, "" where it is kept.
        value_N: Measured values, NaN where none was measured.
        weight_N: Weights.
        pile: Digest of the pile.
        steps: Values of JSON that say what it is made by.
    """
    import pyarrow as pa

    reasons = pa.array(dropped_by, pa.string())
    columns = [
        keys.cast(pa.string()),
        splits.cast(pa.string()),
        pa.array([not reason for reason in dropped_by], pa.bool_()),
        reasons,
        pa.array(value_N, pa.float64()),
        pa.array(np.asarray(weight_N, np.float32), pa.float32()),
    ]
    return Selection(pa.table(columns, names=list(COLUMNS)), pile, steps)


def joined(selections: Sequence[Selection]) -> Selection:
    """Return the selections of several piles, such as those of several shard folders, as one."""
    import pyarrow as pa

    if len(selections) == 1:
        return selections[0]
    table = pa.concat_tables([one.table for one in selections])
    steps = {"joined": [dict(one.steps) for one in selections]}
    return Selection(table, " ".join(one.pile for one in selections), steps)


def write_selection(selection: Selection, out: Path, *, overwrite: bool = False) -> None:
    """Write the file of a selection, whole or not at all.

    Raises:
        MedclipError: OUTPUT_IN_USE where there is something already; as `medclip.files.output.write_file`.
    """
    claim_file(out, overwrite=overwrite)
    note = {"format": FORMAT, "version": FORMAT_VERSION, "pile": selection.pile, "steps": selection.steps}
    table = selection.table.replace_schema_metadata({_NOTE: json.dumps(note, sort_keys=True).encode()})
    write_file(out, parquet_bytes(table))


def read_selection(path: Path) -> Selection:
    """Read the file of a selection.

    Raises:
        MedclipError: MISSING_FILE; TABLE_INVALID for a file that is no selection, of another version, or damaged.
    """
    import pyarrow as pa

    refuse_missing(path, "selection")
    try:
        with path.open("rb") as stream:
            table = read_stream(stream)
        note = json.loads((table.schema.metadata or {})[_NOTE])
        version = note["version"] if note["format"] == FORMAT else None
    except (KeyError, ValueError, TypeError, OSError, pa.ArrowException):
        raise _no_selection(path, "this is no selection of pairs, or it is damaged") from None
    if version != FORMAT_VERSION:
        raise _no_selection(path, f"this selection is of the version {version!r}, not {FORMAT_VERSION}")
    fault = _fault(table, note)
    if fault:
        raise _no_selection(path, f"this selection is damaged: {fault}")
    return Selection(table.replace_schema_metadata(None), note["pile"], note["steps"])


def _no_selection(path: Path, sentence: str) -> MedclipError:
    hint = "`medclip pairs select` writes one."
    return MedclipError(Reason.TABLE_INVALID, f"{sentence}.", where=path, hint=hint)


def _fault(table: pa.Table, note: Mapping[str, Any]) -> str:
    """Return what is wrong with the columns of a selection; "" where nothing is."""
    import pyarrow as pa

    types = (pa.string(), pa.string(), pa.bool_(), pa.string(), pa.float64(), pa.float32())
    if tuple(table.column_names) != COLUMNS or tuple(table.schema.types) != types:
        return "its columns are others"
    if not isinstance(note.get("pile"), str) or not isinstance(note.get("steps"), dict):
        return "it does not say what it is of"
    if any(column.null_count for column in table.columns):
        return "cells are empty"
    if len(table.column("key").unique()) != table.num_rows:
        return "a key stands twice"
    dropped_by = np.array([bool(name) for name in table.column("dropped_by").to_pylist()], bool)
    if (dropped_by == table.column("kept").to_numpy()).any():
        return "a pair is kept and dropped"
    weight_N = table.column("weight").to_numpy()
    if not (np.isfinite(weight_N).all() and (weight_N >= 0).all()):
        return "weights are no numbers of 0 and more"
    return ""


def intersect(first: Selection, second: Selection) -> Selection:
    """Keep the pairs that both selections keep, with the product of their weights.

    Raises:
        MedclipError: WRONG_USE for selections of two piles.
    """
    return _combined(first, second, "intersect")


def union(first: Selection, second: Selection) -> Selection:
    """Keep the pairs that either selection keeps, with the larger of the weights where both do.

    Raises:
        MedclipError: WRONG_USE for selections of two piles.
    """
    return _combined(first, second, "union")


def _combined(first: Selection, second: Selection, how: str) -> Selection:
    keys, splits = first.table.column("key"), first.table.column("split")
    if first.pile != second.pile or not keys.equals(second.table.column("key")):
        raise MedclipError(
            Reason.WRONG_USE,
            f"the selections are of two piles ({first.pile} and {second.pile}).",
            hint="Select twice of the same shards or table.",
        )
    one, other = first.kept_N, second.kept_N
    if how == "intersect":
        kept, weights = one & other, first.weight_N * second.weight_N
        from_first = ~one | kept & ~np.isnan(first.table.column("value").to_numpy())
    else:
        # Of two that are dropped the first says why; a weight counts only where its selection keeps the pair.
        kept, from_first = one | other, one | ~other
        weights = np.maximum(np.where(one, first.weight_N, 0), np.where(other, second.weight_N, 0))
    columns = {
        name: np.where(from_first, *(of.table.column(name).to_numpy() for of in (first, second)))
        for name in ("dropped_by", "value")
    }
    weights = np.where(kept, weights, 1)
    reasons = np.where(kept, "", columns["dropped_by"])
    steps = {how: [dict(first.steps), dict(second.steps)]}
    return selection_of(keys, splits, reasons.tolist(), columns["value"], weights, first.pile, steps)

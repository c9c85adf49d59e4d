"""The folder of an evaluation: sets that are done stay, so that a run that was stopped goes on where it was."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.errors import MedclipError, Reason
from medclip.evaluation.zero_shot.results import SetResult
from medclip.files.atomic_write import parquet_bytes, put

if TYPE_CHECKING:
    import pyarrow as pa

RUN_NAME = "run.json"
RESULT_NAME = "evaluate.json"
PREDICTIONS_NAME = "predictions.parquet"
_PARTS = "sets"


class SuiteStore:
    """Results of one pack over one suite.

    Args:
        folder: Where; made if it is not there.
        identity: What the folder is about (pack and suite). A folder of something else is refused.

    Raises:
        MedclipError: OUTPUT_IN_USE for a folder that holds anything else, DISK_FULL or WRONG_USE where it cannot be
            written.
    """

    def __init__(self, folder: Path, identity: Mapping[str, str]) -> None:
        self.folder = folder
        self._parts = folder / _PARTS
        known = _read_json(folder / RUN_NAME)
        # os.path, unlike Path, takes names that no file can have; writing then says what is wrong with them
        if known is None and os.path.exists(folder) and (not os.path.isdir(folder) or os.listdir(folder)):
            raise MedclipError(Reason.OUTPUT_IN_USE, "this is not an empty folder.", where=folder, hint=_ANOTHER)
        if known is not None and known != dict(identity):
            raise MedclipError(
                Reason.OUTPUT_IN_USE,
                "the folder holds an evaluation of another pack or another suite.",
                where=folder,
                hint=_ANOTHER,
            )
        put(folder / RUN_NAME, (json.dumps(dict(identity), indent=1) + "\n").encode(), self.folder)

    def kept(self, name: str, fingerprint: str) -> SetResult | None:
        """Give the result of a set that is done; None where it is not, or was made of other data."""
        values = _read_json(self._parts / f"{name}.json")
        if values is None or values.get("fingerprint") != fingerprint or not self._table(name).is_file():
            return None
        return SetResult.from_json(values["result"])

    def keep(self, name: str, fingerprint: str, result: SetResult, predictions: pa.Table) -> None:
        """Store a set: first its predictions, then the result that says they are complete."""
        put(self._table(name), parquet_bytes(predictions), self.folder)
        values = {"fingerprint": fingerprint, "result": result.to_json()}
        put(self._parts / f"{name}.json", (json.dumps(values, indent=1) + "\n").encode(), self.folder)

    def finish(self, text: str, names: Sequence[str]) -> None:
        """Write evaluate.json and the predictions of all sets in one table."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        tables = [pq.read_table(self._table(name)) for name in names]
        put(self.folder / PREDICTIONS_NAME, parquet_bytes(pa.concat_tables(tables)), self.folder)
        put(self.folder / RESULT_NAME, text.encode(), self.folder)

    def _table(self, name: str) -> Path:
        return self._parts / f"{name}.parquet"


_ANOTHER = "Name another folder with --out."


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) else None

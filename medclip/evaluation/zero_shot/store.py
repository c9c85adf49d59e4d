"""The folder of an evaluation: sets that are done stay, so that a run that was stopped goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medclip.evaluation.zero_shot.results import SetResult
from medclip.evaluation.zero_shot.text_figures import TextFigures
from medclip.files.output import claim_run, read_note, write_file
from medclip.files.tables.write import parquet_bytes

if TYPE_CHECKING:
    import pyarrow as pa

RUN_NAME = "run.json"
RESULT_NAME = "evaluate.json"
PREDICTIONS_NAME = "predictions.parquet"
EVALUATION = "evaluation"
"""What the folder holds, in sentences."""
COMPARED = "compared"
"""Folder, in that of an evaluation, with the results of the packs that it was compared with."""
_PARTS = "sets"


class SuiteStore:
    """Results of one pack over one suite.

    Args:
        folder: Folder of the results; made if it is not there.
        identity: Identity of the results (pack and suite). A folder of something else is refused.

    Raises:
        MedclipError: OUTPUT_IN_USE for a folder that holds anything else; as `medclip.files.output.disk_errors`.
    """

    def __init__(self, folder: Path, identity: Mapping[str, str]) -> None:
        self.folder = folder
        self._parts = folder / _PARTS
        claim_run(folder, EVALUATION, identity, RUN_NAME)

    def kept(self, name: str, fingerprint: str) -> SetResult | None:
        """Return the result of a set that is done; None where it is not, or was made of other data."""
        values = read_note(self._parts / f"{name}.json")
        if values is None or values.get("fingerprint") != fingerprint or not self._table(name).is_file():
            return None
        return SetResult.from_json(values["result"])

    def keep(self, name: str, fingerprint: str, result: SetResult, predictions: pa.Table) -> None:
        """Store a set: first its predictions, then the result that says they are complete."""
        write_file(self._table(name), parquet_bytes(predictions))
        values = {"fingerprint": fingerprint, "result": result.to_json()}
        write_file(self._parts / f"{name}.json", json.dumps(values, indent=1) + "\n")

    def predictions(self, name: str) -> pa.Table:
        """Return the predictions of a set that is done."""
        import pyarrow.parquet as pq

        return pq.read_table(self._table(name))

    def kept_texts(self, name: str, fingerprint: str) -> TextFigures | None:
        """Return what was measured of images and their texts; None where it was not, or of other data."""
        values = read_note(self._parts / f"{name}.json")
        return None if values is None or values.get("fingerprint") != fingerprint else TextFigures(**values["result"])

    def keep_texts(self, name: str, fingerprint: str, result: TextFigures) -> None:
        """Store what was measured of images and their texts."""
        values = {"fingerprint": fingerprint, "result": result.to_json()}
        write_file(self._parts / f"{name}.json", json.dumps(values, indent=1) + "\n")

    def finish(self, text: str, names: Sequence[str]) -> None:
        """Write evaluate.json and the predictions of all sets in one table; none where there are no sets but texts."""
        import pyarrow as pa

        tables = [self.predictions(name) for name in names]
        if tables:
            write_file(self.folder / PREDICTIONS_NAME, parquet_bytes(pa.concat_tables(tables)))
        write_file(self.folder / RESULT_NAME, text)

    def _table(self, name: str) -> Path:
        return self._parts / f"{name}.parquet"

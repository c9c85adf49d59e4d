"""WFDB records that a table names without the suffix of their header, as tables of PhysioNet do."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

import medclip
from medclip.adapters.registry import preprocessing_of
from medclip.models.inputs.signal_input import SignalInput
from medclip.settings import ReadPolicy
from tests.kits.scoring import make_pack, rows
from tests.kits.signal_shards import write_records

SIGNAL = SignalInput(sampling_hz=100, seconds=4)


def test_each_has_the_patient_of_its_row_and_one_that_is_not_there_a_row_of_its_own(tmp_path: Path) -> None:
    ways = {"ecg:signal": preprocessing_of("ecg:signal", ReadPolicy(ecg=SIGNAL.options))}
    pack = make_pack(tmp_path / "pack", ways, signal=SIGNAL, modalities=["ecg"], tasks={})
    root = tmp_path / "in" / "records"
    write_records(root, 3)
    table = pd.DataFrame({"file": [f"records/r{n:03}" for n in (0, 1, 2, 9)], "patient": list("aabc")})
    table.to_csv(tmp_path / "in" / "table.csv", index=False)
    run = medclip.score(root, model=pack, table=tmp_path / "in" / "table.csv", workers=1, prompt="a bright bone")
    assert {name: row["reason"] for name, row in rows(run).items() if row["status"] != "scored"} == {
        "r009": "missing_file"
    }
    named = table.assign(file=[f"{Path(file).name}.hea" for file in table.file])
    again = medclip.score(root, model=pack, table=named, workers=1, prompt="a bright bone")
    assert again.scores.equals(run.scores)
    assert len(set(run.scores.column("patient").to_pylist())) == 2

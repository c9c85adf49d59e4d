"""The images that judge a back-end are of other patients than those that chose it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from medclip.scoring.calibrate_backend import hold_out, patients_of
from medclip.settings import Settings
from tests.kits.scoring import write_dicom, write_png


@given(st.lists(st.sampled_from("abcdefgh"), min_size=2))
def test_no_patient_is_on_both_sides_and_neither_side_is_empty(keys: list[str]):
    judges = hold_out(keys)
    assert judges.any()
    assert not judges.all()
    if len(set(keys)) > 1:
        assert not {key for key, judge in zip(keys, judges, strict=True) if judge} & {
            key for key, judge in zip(keys, judges, strict=True) if not judge
        }
        largest = max(keys.count(key) for key in keys)
        assert abs(int(judges.sum()) - int((~judges).sum())) <= largest


def test_images_of_one_patient_alone_are_divided_one_by_one():
    assert np.array_equal(hold_out(["a"] * 4), [False, True, False, True])


def test_a_patient_is_the_tables_word_or_the_headers_and_no_identifier_is_kept(tmp_path: Path):
    paths = [
        write_dicom(tmp_path / "a.dcm", 0, PatientID="MRN-1"),
        write_dicom(tmp_path / "b.dcm", 1, PatientID="MRN-1"),
        write_dicom(tmp_path / "c.dcm", 2, PatientID="MRN-2"),
        write_png(tmp_path / "d.png", 3),
        tmp_path / "missing.dcm",
    ]
    patients = patients_of(paths, [None, None, None, "table", None], Settings(workers=1))
    assert patients[0] == patients[1] != patients[2]
    assert patients[3:] == ["table", ""]
    assert not any("MRN" in patient for patient in patients)

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from medclip.auditing.input.options import ReadOptions
from medclip.auditing.input.score_table import read_scores, select
from medclip.errors import MedclipError, Reason
from medclip.files.tables.read_table import read_table
from tests.kits.audit_input import FORMS, form_of, write_scored

LONG = {
    "image": ["a", "a", "b", "b", "c"],
    "finding": ["X", "Y", "X", "Y", "X"],
    "score": [0.1, 0.2, 0.3, 0.4, 0.5],
    "sex": ["F", "F", "M", "M", "F"],
}


def read(source, keys=(), **options):
    return read_scores(source, ReadOptions(**options), lambda _: list(keys))


@pytest.mark.parametrize("form", FORMS)
def test_a_long_table_becomes_one_column_for_each_label(form, tmp_path):
    found = read(form_of(LONG, form, tmp_path, "s"), ["image"], long=("finding", "score"))
    assert found.names == ("X", "Y")
    np.testing.assert_allclose(found.score_U("X"), [0.1, 0.3, 0.5])
    np.testing.assert_allclose(found.score_U("Y"), [0.2, 0.4, np.nan])
    assert found.rows.coded("sex").texts_N().tolist() == ["F", "M", "F"]


def test_a_long_table_that_scores_a_label_twice_is_refused_unless_the_rows_are_equal():
    same = {k: [*v, v[0]] for k, v in LONG.items()}
    found = read(pa.table(same), ["image"], long=("finding", "score"))
    assert found.notes == ("Scores: 1 row that repeat another are dropped.",)
    other = same | {"score": [*LONG["score"], 0.9]}
    with pytest.raises(MedclipError, match="1 rows score an image and label a second time"):
        read(pa.table(other), ["image"], long=("finding", "score"))
    with pytest.raises(MedclipError, match="Name a key"):
        read(pa.table(LONG), long=("finding", "score"))


def test_a_wide_table_has_a_score_for_each_column():
    found = read(pa.table({"image": ["a", "b"], "X": [0.1, None]}))
    np.testing.assert_allclose(found.score_U("X"), [0.1, np.nan])
    assert not found.is_medclip
    assert found.headers.names == []


def test_the_folder_of_medclip_score_gives_studies_their_files_and_header_values(tmp_path):
    folder = write_scored(
        tmp_path / "out",
        {"s1": ["a.dcm", "b.dcm"], "s2": ["c.dcm"]},
        {"s1": {"t:x": 0.1, "t:y": 0.9}, "s2": {"t:x": 0.6, "t:y": 0.4}},
        "multiclass",
        patients={"s1": "p1", "s2": "p2"},
        headers={"s1": {"sex": "F", "age_years": 61, "manufacturer": "Acme", "view": "PA"}},
        failed={"d.dcm": "corrupt"},
    )
    for source in (folder, folder / "scores.parquet"):
        found = read(source)
        assert found.is_medclip
        assert found.tasks == {"t": ("t:x", "t:y")}
        assert found.unit_R.tolist() == [0, 0, 1, -1]
        np.testing.assert_allclose(found.score_U("t:y"), [0.9, 0.4])
        assert found.rows.coded("patient").texts_N().tolist() == ["p1", "p1", "p2", ""]
        assert found.headers.coded("age").texts_N().tolist() == ["61", "61", "", ""]
    frame = pa.parquet.read_table(folder / "scores.parquet")
    with pytest.raises(MedclipError, match=r"files\.parquet") as e:
        read(frame)
    assert e.value.reason == Reason.MISSING_FILE
    assert read(frame, files=folder / "files.parquet").is_medclip


def test_scores_of_two_models_are_refused_until_one_is_selected():
    table = pa.table(
        {k: ["s", "s"] for k in ("study", "task", "class", "kind")} | {"probability": [0.1, 0.2], "model": ["m1", "m2"]}
    )
    files = pa.table({"path": ["a"], "study": ["s"]})
    with pytest.raises(MedclipError, match="2 models: m1, m2"):
        read(table, files=files)
    assert read(table, files=files, score_where={"model": "m2"}).score_U("s:s").tolist() == [0.2]


def test_a_folder_without_scores_is_refused(tmp_path):
    with pytest.raises(MedclipError, match=r"no scores\.parquet"):
        read(tmp_path)


def test_rows_are_selected_by_one_or_several_values_and_a_value_that_is_not_there_is_refused():
    table = read_table(pa.table({"split": ["train", "val", "test", "test"]}), "t")
    assert select(table, {"split": "test"}, "rows").num_rows == 2
    assert select(table, {"Split": ["val", "test"]}, "rows").num_rows == 3
    with pytest.raises(MedclipError, match=r"none of the 4 rows is left with split = Test.*3 values; case counts"):
        select(table, {"split": "Test"}, "rows")
    with pytest.raises(MedclipError, match="no column 'fold'"):
        select(table, {"fold": "1"}, "rows")


def test_probabilities_that_single_precision_rounds_to_one_are_told_apart_by_their_logits(tmp_path):
    folder = write_scored(
        tmp_path / "out", {"s1": ["a"], "s2": ["b"]}, {"s1": {"t:x": 1.0}, "s2": {"t:x": 1.0}}, "multilabel"
    )
    table = pa.parquet.read_table(folder / "scores.parquet").append_column("logit", pa.array([20.0, 25.0]))
    low, high = read(table, files=folder / "files.parquet").score_U("t:x")
    assert 1 - 1e-6 < low < high < 1

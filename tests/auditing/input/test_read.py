from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medclip.auditing.input.options import ReadOptions
from medclip.auditing.input.read import paired, read_cohort, rows_of
from medclip.errors import MedclipError, Reason
from medclip.files.tables.read_table import read_table
from medclip.statistics.cohort import CONFLICT, MISSING
from tests.kits.audit_input import FORMS, KEY, form_of, tables, write_scored


def read(first, second=None, /, by=(), label=None, **options):
    frames = [pa.table(dict(t)) if isinstance(t, dict) else t for t in (first, second)]
    return read_cohort(*frames, by=by, label=label, options=ReadOptions(identity_key=KEY, **options))


def label_of(cohort, name):
    return next(a for a in cohort.labels if a.name == name)


def group_of(cohort, name):
    attribute = next(a for a in cohort.attributes if a.name == name)
    return [attribute.groups[c] for c in attribute.codes_N]


@pytest.mark.parametrize("form", FORMS)
def test_all_forms_of_the_same_tables_give_the_same_cohort(form, tmp_path):
    scores, labels = tables()
    other = {k: v[::-1] for k, v in scores.items()}
    cohort = read(
        form_of(other, form, tmp_path, "s"), form_of(labels, form, tmp_path, "l"), by=["sex", "age", "sex*age"]
    )
    assert [a.name for a in cohort.labels] == ["Pneumonia", "Pleural_Effusion"]
    found = label_of(cohort, "Pneumonia")
    np.testing.assert_allclose(found.score_N, scores["Pneumonia"], rtol=0, atol=1e-15)
    np.testing.assert_array_equal(found.truth_N, labels["Pneumonia"])
    assert group_of(cohort, "sex") == labels["sex"]
    assert cohort.keys == tuple(labels["file"])
    assert cohort.files == tuple(labels["file"])
    assert cohort.identities == tuple(labels["patient_id"])
    assert cohort.num_patients == len(set(labels["patient_id"]))
    np.testing.assert_array_equal(cohort.columns["age"], labels["age"])
    assert cohort.notes == ()


@settings(max_examples=25)
@given(st.permutations(range(24)), st.permutations(range(24)))
def test_the_order_of_scores_is_of_no_account_and_that_of_labels_is_kept(one, two):
    scores, labels = tables(24)
    expected = read(scores, labels, by=["sex"])
    found = read(
        {k: [v[i] for i in one] for k, v in scores.items()},
        {k: [v[i] for i in two] for k, v in labels.items()},
        by=["sex"],
    )
    for name in ("Pneumonia", "Pleural_Effusion"):
        np.testing.assert_array_equal(label_of(found, name).score_N, label_of(expected, name).score_N[list(two)])
    assert found.keys == tuple(expected.keys[i] for i in two)
    assert group_of(found, "sex") == [group_of(expected, "sex")[i] for i in two]


def test_one_table_may_hold_scores_and_truths():
    _, labels = tables(30)
    both = labels | {"pneumonia_score": [0.5] * 29 + [0.7], "p_Pleural Effusion": [0.1] * 30}
    cohort = read(both)
    assert {a.name for a in cohort.labels} == {"Pneumonia", "Pleural_Effusion"}
    cohort = read(both, label=["Pneumonia"], score={"Pneumonia": "p_Pleural Effusion"})
    assert label_of(cohort, "Pneumonia").score_N[0] == 0.1


def test_a_truth_that_stands_beside_its_score_is_not_taken_for_it():
    scores, labels = tables(20)
    both = {"file": scores["file"], "Pneumonia": labels["Pneumonia"], "Pneumonia_prob": scores["Pneumonia"]}
    for cohort in (read(both, labels), read(both, labels, label=["Pneumonia"])):
        np.testing.assert_array_equal(label_of(cohort, "Pneumonia").score_N, scores["Pneumonia"])
    one = labels | {"Pneumonia_prob": scores["Pneumonia"]}
    np.testing.assert_array_equal(read(one, label=["Pneumonia"]).labels[0].score_N, scores["Pneumonia"])
    leaky = {"file": scores["file"], "Pneumonia": labels["Pneumonia"]}
    assert any("the scores equal the truths" in n for n in read(leaky, labels).notes)
    with pytest.raises(MedclipError, match=r"no column 'Pneumonia' .of scores"):
        read(labels, label=["Pneumonia"])


def test_columns_are_mapped_by_name_and_by_option():
    scores, labels = tables(30)
    scores = {"img": scores["file"], "m1": scores["Pneumonia"], "m2": scores["Pleural_Effusion"]}
    cohort = read(scores, labels, label=["m1=Pneumonia"], key="img=file")
    np.testing.assert_array_equal(label_of(cohort, "Pneumonia").score_N, scores["m1"])
    cohort = read(
        scores, labels, key="img=file", score={"wet lung": "m2"}, label_columns={"wet lung": "Pleural_Effusion"}
    )
    assert [a.name for a in cohort.labels] == ["wet lung"]
    with pytest.raises(MedclipError, match=r"no label has both a score and a truth.*--label SCORE=COLUMN"):
        read(scores, labels, key="img=file")
    with pytest.raises(MedclipError, match="Did you mean 'Pneumonia'"):
        read(scores, labels, key="img=file", label=["m1=Pneumona"])
    with pytest.raises(MedclipError, match=r"no column 'm3'.*Did you mean 'm1' or 'm2'|m2"):
        read(scores, labels, key="img=file", label=["m3=Pneumonia"])
    with pytest.raises(MedclipError, match="nothing says which rows belong together"):
        read(scores, labels)


def test_rows_without_a_partner_are_left_out_and_counted():
    scores, labels = tables(40)
    cohort = read({k: v[5:] for k, v in scores.items()}, {k: v[:30] for k, v in labels.items()})
    assert len(cohort.patients_N) == 25
    assert "Left out: 5 rows of labels without a score, of 30." in cohort.notes
    assert "Left out: 10 rows of scores without a row of labels, of 35." in cohort.notes


def test_scores_that_are_missing_more_often_in_one_group_are_a_loud_note():
    scores, labels = tables(200)
    keep = [s == "M" or i % 3 > 0 for i, s in enumerate(labels["sex"])]
    part = {k: [x for x, k_ in zip(v, keep, strict=True) if k_] for k, v in scores.items()}
    (note,) = (n for n in read(part, labels, by=["sex", "view"]).notes if "missing more often" in n)
    assert "groups of sex: F 3" in note
    assert "M 0%" in note
    fewer = {k: v[20:] for k, v in scores.items()}
    assert not any("missing more often" in n for n in read(fewer, labels | {"sex": ["F", "M"] * 100}, by=["sex"]).notes)


def test_tables_that_do_not_join_are_refused_without_a_key_of_either():
    scores, labels = tables(20)
    scores["file"] = [f.split("/")[1].removesuffix(".png") for f in scores["file"]]
    with pytest.raises(MedclipError, match="20 of 20 would join: say --match stem") as e:
        read(scores, labels)
    assert "00003" not in str(e.value)
    assert len(read(scores, labels, match="stem").keys) == 20


def test_keys_of_two_rows_are_refused_on_either_side_and_equal_rows_dropped():
    scores, labels = tables(20)
    twice = {k: [*v, v[0]] for k, v in scores.items()}
    assert any("1 row that repeat" in n for n in read(twice, labels).notes)
    with pytest.raises(MedclipError, match="1 key of 20 have several rows of scores"):
        read(twice | {"Pneumonia": [*scores["Pneumonia"], 0.123]}, labels)
    with pytest.raises(MedclipError, match="1 key of 20 have several rows of labels"):
        read(scores, {k: [*v, v[0]] for k, v in labels.items()} | {"age": [*labels["age"], 99]})


def test_one_row_of_labels_may_belong_to_several_images_where_that_is_said():
    scores = {"study": ["a", "a", "b", "c"], "flu": [0.1, 0.2, 0.9, 0.4]}
    labels = {"study": ["a", "b", "c"], "patient": ["p", "q", "r"], "flu": [0, 1, 0]}
    with pytest.raises(MedclipError, match="--repeat-labels"):
        read(scores, labels)
    cohort = read(scores, labels, repeat_labels=True)
    assert label_of(cohort, "flu").truth_N.tolist() == [0, 0, 1, 0]
    assert cohort.patients_N.tolist() == [0, 0, 1, 2]


def test_scores_that_are_no_probabilities_are_refused_with_counts_and_read_as_said():
    scores, labels = tables(20)
    scores["Pneumonia"] = [-0.5, 1.5, 3.0, *scores["Pneumonia"][3:]]
    with pytest.raises(MedclipError, match="1 are below 0 and 2 above 1, of 20") as e:
        read(scores, labels)
    assert e.value.reason == Reason.TABLE_INVALID
    ranks = label_of(read(scores, labels, scores="any"), "Pneumonia")
    assert not ranks.probability
    assert ranks.score_N[2] == 3.0
    logits = label_of(read(scores, labels, scores="logits"), "Pneumonia")
    assert logits.probability
    assert logits.score_N[2] == pytest.approx(1 / (1 + np.exp(-3)))
    scores["Pneumonia"] = [50.0] * 20
    with pytest.raises(MedclipError, match="per cent"):
        read(scores, labels)
    scores["Pneumonia"] = [np.inf] * 20
    with pytest.raises(MedclipError, match="20 scores of 'Pneumonia' are infinite"):
        read(scores, labels, scores="any")


def test_missing_and_constant_scores_are_noted():
    scores, labels = tables(20)
    scores["Pneumonia"] = [None, None, *scores["Pneumonia"][2:]]
    scores["Pleural_Effusion"] = [0.25] * 20
    cohort = read(scores, labels)
    assert "Pneumonia: 2 rows without a score, which do not count for it." in cohort.notes
    assert any("all 20 scores are equal (0.25)" in n for n in cohort.notes)
    assert label_of(cohort, "Pneumonia").valid_N.sum() == 18


def test_a_label_of_one_class_is_left_out_and_nothing_else_refused():
    scores, labels = tables(20)
    labels["Pneumonia"] = [0] * 20
    cohort = read(scores, labels)
    assert [a.name for a in cohort.labels] == ["Pleural_Effusion"]
    assert any("Pneumonia is left out: of 20 rows" in n and "negative" in n for n in cohort.notes)
    with pytest.raises(MedclipError, match="both positives and negatives"):
        read(scores, labels, label=["Pneumonia"])


def test_a_group_of_one_class_is_no_trouble():
    scores, labels = tables(40)
    labels["sex"] = ["F" if t else "M" for t in labels["Pneumonia"]]
    labels["patient_id"] = [str(i) for i in range(40)]
    assert set(group_of(read(scores, labels, by=["sex"]), "sex")) == {"F", "M"}


def test_rows_are_selected_by_split():
    scores, labels = tables(40, split=["val"] * 15 + ["test"] * 25)
    cohort = read(scores, labels, where={"split": "test"})
    assert len(cohort.keys) == 25
    assert "Left out: 15 rows of scores without a row of labels among those that were asked for, of 40." in cohort.notes


def test_one_name_may_stand_for_a_list_and_a_number_for_a_text():
    scores, labels = tables(40, fold=[0, 1] * 20)
    cohort = read(scores, labels, by="sex", label="Pneumonia", where={"fold": 1})
    assert len(cohort.keys) == 20
    assert [a.name for a in cohort.labels] == ["Pneumonia"]
    assert [a.name for a in cohort.attributes] == ["sex"]


def test_a_score_that_may_be_of_two_tasks_is_refused_with_both(tmp_path):
    scores = {"s1": {"a:pneumonia": 0.1, "b:pneumonia": 0.9}, "s2": {"a:pneumonia": 0.3, "b:pneumonia": 0.2}}
    folder = write_scored(tmp_path, {"s1": ["1.png"], "s2": ["2.png"]}, scores, "multilabel")
    labels = {"file": ["1.png", "2.png"], "patient": ["p", "q"], "Pneumonia": [1, 0]}
    with pytest.raises(MedclipError, match=r"may be any of the scores a:pneumonia, b:pneumonia.*--label a:pneumonia"):
        read(folder, labels, label="Pneumonia")
    assert read(folder, labels, label="b:pneumonia=Pneumonia").labels[0].score_N.tolist() == [0.9, 0.2]


def test_scores_may_be_joined_by_the_hash_of_a_study(tmp_path):
    folder = write_scored(tmp_path, SCORED, FINDINGS, "multilabel")
    labels = {"study": ["s3", "s1", "s2"], "patient": ["r", "p", "q"], "Pneumonia": [1, 1, 0]}
    cohort = read(folder, labels, key="study", label="Pneumonia")
    np.testing.assert_allclose(cohort.labels[0].score_N, [0.4, 0.9, 0.2])


def test_maker_and_model_of_the_label_table_make_the_scanner():
    scores, labels = tables(20, manufacturer=["Acme"] * 20, device_model=["X", ""] * 10)
    assert group_of(read(scores, labels, by=["scanner"]), "scanner") == ["Acme X", "Acme"] * 10


def test_without_patients_it_is_refused_and_rows_as_patients_is_a_loud_note():
    scores, labels = tables(20)
    labels["who"] = labels.pop("patient_id")
    with pytest.raises(MedclipError, match="--rows-are-patients"):
        read(scores, labels)
    cohort = read(scores, labels, patients="rows")
    assert cohort.num_patients == 20
    assert cohort.notes[0].startswith("CAUTION")
    assert read(scores, labels, patient="who").num_patients == len(set(labels["who"]))
    for name in ("who", "File"):
        with pytest.raises(MedclipError, match="patients and files cannot be the groups"):
            read(scores, labels, patient="who", by=[name])


def test_a_patient_may_be_a_part_of_a_path():
    paths = [f"train/patient{i // 2:05d}/study1/{i}.jpg" for i in range(6)]
    table = {"Path": paths, "flu": [0, 1] * 3, "flu_prob": [0.1, 0.2] * 3}
    assert read(table, patient="Path~patient[0-9]+").patients_N.tolist() == [0, 0, 1, 1, 2, 2]
    with pytest.raises(MedclipError, match="no regular expression"):
        read(table, patient="Path~(")
    with pytest.raises(MedclipError, match="no column 'Pfad'"):
        read(table, patient="Pfad~x")


def test_rows_that_name_no_patient_are_patients_of_their_own():
    scores, labels = tables(20)
    labels["patient_id"] = ["a"] * 10 + [""] * 10
    cohort = read(scores, labels)
    assert cohort.num_patients == 11
    assert any("10 rows name no patient" in n for n in cohort.notes)


def test_findings_in_lists_are_whole_elements():
    scores = {"file": list("abcd"), "Pneumonia": [0.1, 0.2, 0.3, 0.4], "Effusion": [0.4, 0.3, 0.2, 0.1]}
    labels = {
        "file": list("abcd"),
        "patient": list("pqrs"),
        "findings": ["Pneumonia|Effusion", "Viral Pneumonia", "", "Effusion"],
    }
    cohort = read(scores, labels, label_list="findings")
    np.testing.assert_array_equal(label_of(cohort, "Pneumonia").truth_N, [1, 0, np.nan, 0])
    np.testing.assert_array_equal(label_of(cohort, "Effusion").truth_N, [1, 0, np.nan, 1])
    with pytest.raises(MedclipError, match="in the lists of findings"):
        read(scores, labels, label_list="findings", label=["Edema"])


def test_no_finding_is_known_to_mean_a_healthy_patient():
    scores, labels = tables(20)
    scores["No Finding"], labels["no_finding"] = scores["Pneumonia"], labels["Pneumonia"]
    flags = {a.name: a.no_finding for a in read(scores, labels).labels}
    assert flags == {"Pneumonia": False, "Pleural_Effusion": False, "no_finding": True}
    assert label_of(read(scores, labels, no_finding=["Pneumonia"]), "Pneumonia").no_finding


def test_times_to_events_are_kept_and_negative_ones_refused():
    scores = {"id": [1, 2, 3, 4], "risk": [2.0, 1.0, 5.0, 0.1]}
    labels = {"id": [1, 2, 3, 4], "patient": list("abcd"), "months": [3.0, 12.0, 1.5, None], "died": [1, 0, 1, 1]}
    cohort = read(scores, labels, label=["risk=died"], time="months", scores="any")
    found = label_of(cohort, "died")
    np.testing.assert_array_equal(found.time_N, [3, 12, 1.5, np.nan])
    np.testing.assert_array_equal(found.truth_N, [1, 0, 1, np.nan])
    assert (
        label_of(read(scores, labels, label=["death"], event="died", time="months", scores="any"), "death").time_N[0]
        == 3
    )
    all_seen = read(scores, labels | {"died": [1, 1, 1, 1]}, label=["risk=died"], time="months", scores="any")
    assert label_of(all_seen, "died").valid_N.sum() == 3
    labels["months"] = [3.0, -12.0, 1.5, 2.0]
    with pytest.raises(MedclipError, match="1 time in the column 'months'"):
        read(scores, labels, label=["risk=died"], time="months", scores="any")


def test_columns_of_class_names_become_one_label_for_each_class():
    scores = {"file": list("abcde"), "glioma": [0.7, 0.2, 0.1, 0.3, 0.3], "No Tumor": [0.3, 0.8, 0.9, 0.7, 0.7]}
    labels = {"file": list("abcde"), "patient": list("pqrst"), "kind": ["Glioma", "no_tumor", "glioma", "", "cyst"]}
    cohort = read(scores, labels, label=["kind"])
    assert {a.name for a in cohort.labels} == {"glioma", "No Tumor"}
    np.testing.assert_array_equal(label_of(cohort, "glioma").truth_N, [1, 0, 1, np.nan, np.nan])
    assert any("kind: 1 row of a class without a score" in n for n in cohort.notes)
    cohort = read(scores, labels, label=["glioma=kind"])
    np.testing.assert_array_equal(cohort.labels[0].truth_N, [1, 0, 1, np.nan, 0])
    logits = read({**scores, "glioma": [3.0, 0, 0, 0, 0]}, labels, label=["kind"], scores="logits")
    a, b = (label_of(logits, n).score_N for n in ("glioma", "No Tumor"))
    np.testing.assert_allclose(a + b, 1)


def test_a_label_that_is_no_question_is_refused_with_the_scores():
    scores, labels = tables(20)
    with pytest.raises(MedclipError, match="neither yes or no nor a class that has a score"):
        read(scores, labels, label=["Pneumonia=view"])


SCORED = {"s1": ["a/1.png", "a/2.png"], "s2": ["b/1.png"], "s3": ["c/1.png"]}
FINDINGS = {
    s: {"chest:pneumonia": p, "chest:pleural_effusion": 1 - p} for s, p in (("s1", 0.9), ("s2", 0.2), ("s3", 0.4))
}


def test_scores_of_medclip_join_by_path_and_files_of_a_study_are_one_row(tmp_path):
    folder = write_scored(tmp_path, SCORED, FINDINGS, "multilabel", failed={"d/1.png": "corrupt"})
    labels = {
        "file": ["set/a/2.png", "set/a/1.png", "set/b/1.png", "set/c/1.png", "set/d/1.png", "set/e/1.png"],
        "patient": ["p", "p", "q", "r", "s", "t"],
        "Pneumonia": [0, 1, 0, 1, 1, 1],
        "view": ["PA", "LATERAL", "AP", "", "AP", "AP"],
        "Effusion": [1, 1, 0, -1, 0, 0],
    }
    cohort = read(folder, labels, by=["view"], label=["Pneumonia", "pleural effusion=Effusion"])
    np.testing.assert_array_equal(label_of(cohort, "Pneumonia").truth_N, [1, 0, 1])
    np.testing.assert_allclose(label_of(cohort, "Pneumonia").score_N, [0.9, 0.2, 0.4])
    np.testing.assert_array_equal(label_of(cohort, "Effusion").truth_N, [1, 0, np.nan])
    assert group_of(cohort, "view") == ["LATERAL + PA", "AP", MISSING]
    assert cohort.files == ("set/a/2.png", "set/b/1.png", "set/c/1.png")
    said = " ".join(cohort.notes)
    assert "2 rows of labels without a score, of 6 (1 file not scored: corrupt 1)" in said
    assert "Pneumonia: the files of 1 study disagree" in said
    assert "4 files make 3 studies" in said
    assert "1 uncertain (-1) cell" in said


def test_a_study_with_files_of_two_patients_is_refused(tmp_path):
    folder = write_scored(tmp_path, SCORED, FINDINGS, "multilabel")
    labels = {"file": ["a/1.png", "a/2.png", "b/1.png"], "patient": ["p", "x", "q"], "Pneumonia": [1, 1, 0]}
    with pytest.raises(MedclipError, match="1 study of the scores hold files of more than one patient"):
        read(folder, labels)


def test_patients_and_scanners_come_from_medclip_where_the_label_table_has_none(tmp_path):
    headers = {
        "s1": {"sex": "F", "age_years": 61, "manufacturer": "Acme", "device_model": "X1", "view": "PA"},
        "s2": {"sex": "M", "age_years": 17, "manufacturer": "Acme", "device_model": "X2"},
        "s3": {"manufacturer": "Bolt"},
    }
    folder = write_scored(
        tmp_path, SCORED, FINDINGS, "multilabel", headers=headers, patients={"s1": "h1", "s2": "h2", "s3": "h1"}
    )
    labels = {"file": ["a/1.png", "b/1.png", "c/1.png"], "Pneumonia": [1, 0, 1]}
    cohort = read(folder, labels, by=["scanner", "sex", "age", "view"])
    assert cohort.patients_N.tolist() == [0, 1, 0]
    assert group_of(cohort, "scanner") == ["Acme X1", "Acme X2", "Bolt"]
    assert group_of(cohort, "sex") == ["F", "M", "F"]
    assert group_of(cohort, "age") == ["50-64", "0-17", MISSING]
    assert group_of(cohort, "view") == ["PA", MISSING, MISSING]


def test_one_true_class_of_a_task_is_read_by_name_title_or_wording(tmp_path):
    studies = {f"s{i}": [f"{i}.png"] for i in range(3)}
    names = ("glioma", "meningioma", "pituitary", "no_tumor")
    scores = {s: {f"brain_mri_tumour:{n}": 0.25 for n in names} for s in studies}
    folder = write_scored(tmp_path, studies, scores, "multiclass")
    labels = {
        "file": ["0.png", "1.png", "2.png"],
        "patient": ["a", "b", "c"],
        "tumour": ["Glioma", "meningioma", "glioma"],
    }
    cohort = read(folder, labels, label=["brain_mri_tumour=tumour"])
    assert [a.name for a in cohort.labels] == ["glioma", "meningioma"]
    assert [a.name for a in read(folder, labels, label=["brain_mri_tumour:glioma=tumour"]).labels] == ["Glioma"]
    labels["brain_mri_tumour"] = labels.pop("tumour")
    assert {a.name for a in read(folder, labels).labels} == {"glioma", "meningioma"}


def test_scores_of_medclip_are_never_taken_for_logits(tmp_path):
    folder = write_scored(tmp_path, SCORED, FINDINGS, "multilabel")
    with pytest.raises(MedclipError, match="are probabilities"):
        read(folder, {"file": ["a/1.png"], "patient": ["p"], "Pneumonia": [1]}, scores="logits")


def test_scores_of_medclip_alone_are_refused(tmp_path):
    with pytest.raises(MedclipError, match="holds scores and no truths"):
        read(write_scored(tmp_path, SCORED, FINDINGS, "multilabel"))


def test_contradictory_patients_are_counted_and_no_note_names_one():
    scores, labels = tables(20)
    labels["patient_id"] = ["Doe^John"] * 3 + [str(i) for i in range(17)]
    labels["sex"] = ["F", "M", "F"] + ["F"] * 17
    cohort = read(scores, labels, by=["sex"])
    assert group_of(cohort, "sex")[:3] == [CONFLICT] * 3
    assert "Doe" not in " ".join(cohort.notes)


def test_a_group_column_that_is_not_there_is_refused_with_near_names():
    scores, labels = tables(20)
    with pytest.raises(MedclipError, match=r"no column 'viw' .*Did you mean 'view'"):
        read(scores, labels, by=["viw"])


def test_further_columns_are_kept_as_numbers_or_texts():
    scores, labels = tables(
        20, month=["2020-01"] * 20, study=[f"1{i:017d}" for i in range(20)], bmi=[22.143000000000002] * 19 + [None]
    )
    cohort = read(scores, labels, columns=["month", "bmi", "study"])
    assert cohort.columns["month"].tolist() == ["2020-01"] * 20
    assert np.isnan(cohort.columns["bmi"][-1])
    assert len(set(cohort.columns["study"].tolist())) == 20


def test_two_models_are_paired_on_the_rows_that_both_scored():
    scores, labels = tables(30)
    one = read({k: v[:25] for k, v in scores.items()}, labels, by=["sex"])
    other = read({k: v[29:4:-1] for k, v in scores.items() if k != "Pleural_Effusion"}, labels, by=["sex"])
    a, b = paired(one, other)
    assert a.keys == b.keys == tuple(labels["file"][5:25])
    assert [x.name for x in a.labels] == [x.name for x in b.labels] == ["Pneumonia"]
    np.testing.assert_array_equal(a.patients_N, b.patients_N)
    np.testing.assert_array_equal(a.labels[0].score_N, b.labels[0].score_N)
    assert a.patients_N.min() == 0
    assert any("20 rows that both models scored" in n for n in a.notes)
    with pytest.raises(MedclipError, match="share no row"):
        paired(rows_of(one, np.arange(3)), rows_of(other, np.arange(22, 25)))


def test_a_cohort_of_some_rows_has_patients_numbered_from_zero():
    scores, labels = tables(30)
    part = rows_of(read(scores, labels, by=["sex"]), np.asarray([29, 3, 4]))
    assert part.keys == tuple(labels["file"][i] for i in (29, 3, 4))
    assert part.patients_N[0] == 0
    assert group_of(part, "sex") == [labels["sex"][i] for i in (29, 3, 4)]


@pytest.mark.golden
def test_the_golden_table_is_read_in_one_table(golden):
    table = read_table(golden / "fairness_input.csv", "golden")
    cohort = read(golden / "fairness_input.csv", by=["sex", "age"], label="score=y", patients="rows")
    np.testing.assert_array_equal(cohort.labels[0].score_N, table.numbers("score"))
    np.testing.assert_array_equal(cohort.labels[0].truth_N, table.numbers("y"))
    assert group_of(cohort, "age") == table.coded("age").texts_N().tolist()
    assert len(set(group_of(cohort, "sex"))) == len(table.coded("sex").values)


@pytest.mark.shared
def test_the_shared_chest_x_rays_are_read_whole(shared):
    table = shared / "data" / "nih_cxr" / "labels.csv"
    labels = read_table(table, "labels")
    names = ["Pneumonia", "Effusion", "Pleural_Thickening"]
    rng = np.random.default_rng(0)
    scores = {"image": labels.coded("image_index").texts_N().tolist()}
    scores |= {n: np.clip(rng.normal(0.3 + 0.3 * labels.numbers(n), 0.2), 0, 1).tolist() for n in names}
    cohort = read(scores, table, by=["sex", "age", "view", "sex*age"], key="image=image_index")
    assert len(cohort.keys) == labels.num_rows
    assert {a.name for a in cohort.labels} == set(names)
    assert cohort.num_patients == len(set(labels.coded("patient_id").values))
    assert cohort.attributes[0].groups == ("F", "M")
    listed = read(scores, table, key="image=image_index", label_list="finding_labels", label=["Pneumonia", "Effusion"])
    for name in ("Pneumonia", "Effusion"):
        np.testing.assert_array_equal(label_of(listed, name).truth_N, label_of(cohort, name).truth_N)


@pytest.mark.shared
def test_the_shared_covid_table_keeps_blanks_visible_and_many_places_together(shared):
    table = shared / "data" / "covid_cxr" / "labels.csv"
    labels = read_table(table, "labels")
    scores = {"file": labels.coded("file").texts_N().tolist(), "COVID-19": np.linspace(0, 1, labels.num_rows).tolist()}
    cohort = read(scores, table, by=["sex", "age", "location"], patient="group_id", label=["COVID-19=finding"])
    assert all(a.groups[-1] == MISSING for a in cohort.attributes)
    assert any(g.startswith("other (") for g in cohort.attributes[2].groups)
    assert cohort.labels[0].truth_N.sum() == (labels.coded("finding").texts_N() == "COVID-19").sum()


BREAKS = {
    "keys that do not join": {"file": [f"MRN77{i:03d}" for i in range(20)]},
    "keys that stand twice": {"file": ["Doe^0"] * 2 + [f"Doe^{i}" for i in range(2, 20)]},
    "labels that mean nothing": {"Pneumonia": ["Doe^John"] * 20},
    "groups that name people": {"view": [f"Doe^{i}" for i in range(20)]},
    "ages that are names": {"age": [f"Doe^{i}" for i in range(20)]},
    "sexes that are names": {"sex": [f"Doe^{i}" for i in range(20)]},
    "patients that are blank": {"patient_id": ["Doe^1"] * 10 + [""] * 10},
    "patients of two sexes": {"patient_id": ["Doe^1"] * 20, "sex": ["F", "M"] * 10},
    "ages in days": {"age": [12345 + i for i in range(20)]},
}


@pytest.mark.parametrize("change", BREAKS.values(), ids=BREAKS)
def test_no_refusal_and_no_note_names_anybody(change):
    scores, labels = tables(20)
    scores["file"] = labels["file"] = [f"Doe^{i}" for i in range(20)]
    labels["patient_id"] = [f"Roe^{i // 2}" for i in range(20)]
    try:
        said = " ".join(read(scores, labels | change, by=["sex", "age", "view"], label="Pneumonia").notes)
    except MedclipError as e:
        said = str(e)
    assert said
    assert not any(name in said for name in ("Doe", "Roe", "MRN77", "12345"))


def test_answers_with_a_decimal_comma_are_refused_with_the_option_that_reads_them(tmp_path):
    (tmp_path / "labels.csv").write_text("file;flu\na;1,0\nb;0,0\n")
    (tmp_path / "scores.csv").write_text("file,flu\na,0.5\nb,0.25\n")
    with pytest.raises(MedclipError, match=r"2 of its 2 cells are neither.*read with --decimal comma"):
        read(tmp_path / "scores.csv", tmp_path / "labels.csv", patients="rows")


def test_a_grade_does_not_hide_that_the_score_beside_it_is_missing():
    scores, labels = tables(60)
    blank = {k: [*([np.nan] * 6), *v[6:]] for k, v in scores.items() if k in ("Pneumonia", "Pleural_Effusion")}
    grades = ["A", "B", "C"] * 20
    options = {"ordinal": {"density": ("A", "B", "C")}}
    cohort = read(scores | blank | {"density": grades}, labels | {"density": grades}, by=["sex"], **options)
    assert cohort.unscored[0].num_missing == 6


def test_rows_that_are_marked_synthetic_are_counted_first() -> None:
    table = {
        "patient": ["a", "b", "c", "d"],
        "flu": [1, 0, 1, 0],
        "flu_score": [0.9, 0.2, 0.7, 0.1],
        "synthetic": ["", "true", "0", "change"],
    }
    cohort = read_cohort(pa.table(table))
    assert cohort.notes[0].startswith("CAUTION: 2 of 4 rows are synthetic")
    assert not any("synthetic" in note for note in read_cohort(pa.table({**table, "synthetic": ["no"] * 4})).notes)

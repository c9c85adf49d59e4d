"""Whether the audit set leaks into what the model learned from."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medclip.auditing.checks.leakage.checks import check
from medclip.auditing.checks.leakage.file_hashes import HashedFiles, hash_files, image_hashes
from medclip.auditing.checks.leakage.training_data import TrainingData
from medclip.files.pseudonyms import keyed_hash
from medclip.sample import Modality
from medclip.settings import Settings
from tests.kits.leakage import Pixels, brighter, cohort_of, cropped, film, resized_jpeg, rotated

KEY = b"k" * 32
COPIES = {
    "stored again as a smaller JPEG": resized_jpeg,
    "brighter": brighter,
    "cropped by 3 %": cropped,
    "cropped, brighter and stored again": lambda p: resized_jpeg(brighter(cropped(p))),
    "cropped by 8 %": lambda p: cropped(p, 0.08),
    "cropped by 8 % on two sides": lambda p: p[round(0.08 * len(p)) :, : -round(0.08 * p.shape[1])],
    "rotated by 3 degrees": lambda p: rotated(p, 3),
    "cropped, rotated the other way, brighter and stored again": lambda p: resized_jpeg(
        brighter(cropped(rotated(p, -3), 0.08))
    ),
    "mirrored": lambda p: p[:, ::-1],
    "inverted": lambda p: 255 - p,
    "mirrored, inverted and stored again": lambda p: resized_jpeg(255 - p[:, ::-1]),
}


def rows_of(*args: Any, **kwargs: Any) -> tuple[Mapping[str, Any], ...]:
    return check(*args, **kwargs).tables["leakage"]


def named(rows: Sequence[Mapping[str, Any]], part: str) -> Mapping[str, Any]:
    (row,) = [r for r in rows if r["check"].startswith(part)]
    return row


def hashed(images: Sequence[Pixels], names: Sequence[str] | None = None) -> HashedFiles:
    return image_hashes(names or [""] * len(images), images)


@pytest.fixture(scope="module")
def films() -> list[Pixels]:
    return [film(s) for s in range(40)]


@pytest.mark.parametrize("how", COPIES)
def test_a_planted_copy_of_a_training_image_is_found_and_other_patients_are_not(how: str, films: list[Pixels]):
    others = [film(100 + s) for s in range(40)]
    audit = [*films[:3], COPIES[how](others[5]), COPIES[how](others[9])]
    training = TrainingData("the table of training files", images=hashed(others))
    rows = rows_of(cohort_of(["a", "b", "c", "d", "e"]), hashed(audit), training=[training])
    found = named(rows, "near-duplicates of")
    assert (found["found"], found["tested"], found["severity"]) == (2, 5, "red")


def test_images_of_other_patients_give_no_red(films: list[Pixels]):
    training = TrainingData("the training files", frozenset({"x"}), frozenset({"Q"}), images=hashed(films[20:]))
    files = hashed(films[:20], [f"h{n}" for n in range(20)])
    splits = (["P1", "P1", "P2", "", "P3"], ["train", "Train ", "test", "val", ""])
    cohort, choosing = cohort_of([f"P{n}" for n in range(20)]), cohort_of([f"V{n}" for n in range(9)])
    choosing = type(choosing)(choosing.patients_N, (), (), keys=("other",), identities=choosing.identities)
    rows = rows_of(cohort, files, training=[training], choosing=choosing, table_splits=splits)
    assert {r["severity"] for r in rows} == {"note"}
    assert {r["found"] for r in rows} == {0}
    assert {r["check"]: r["tested"] for r in rows} == {
        "files shared with the training files": 20,
        "patients shared with the training files": 20,
        "near-duplicates of the training files": 20,
        "patients in several splits": 2,
        "data that thresholds were chosen on": 20,
        "copies inside the audit set": 20,
        "near-duplicates inside the audit set": 20,
        "text burned into the pixels": 0,
    }


def test_files_with_the_same_bytes_are_counted_with_their_patients_and_not_as_near_duplicates(films: list[Pixels]):
    data = TrainingData("the training files of tiny", frozenset({"h0", "h3"}), images=hashed(films[:1], ["h0"]))
    rows = rows_of(cohort_of(["a", "a", "b", "c"]), hashed(films[:4], ["h0", "h1", "h2", "h3"]), training=[data])
    row = named(rows, "files shared")
    assert (row["found"], row["tested"], row["severity"]) == (2, 4, "red")
    assert "2 of 3 patients (1 further file of theirs not)" in row["sentence"]
    near = named(rows, "near-duplicates of")
    assert (near["found"], near["tested"], near["severity"]) == (0, 2, "note")
    only = rows_of(cohort_of(["a"]), hashed(films[:1], ["h0"]), training=[data])
    assert named(only, "near-duplicates of")["sentence"].startswith("Not tested: all 1 images have the bytes")
    assert "2 with the same bytes are not counted here" in near["sentence"]


@pytest.mark.parametrize(("patients", "hashed_names"), [({"a", "z"}, False), ({"keyed"}, True)])
def test_patients_are_found_by_name_and_by_keyed_hash(patients: set[str], hashed_names: bool):
    known = {keyed_hash("patient", "a", KEY)} if hashed_names else patients
    data = TrainingData("the shots", frozenset(), frozenset(known), hashed=hashed_names)
    row = named(rows_of(cohort_of(["a", "a", "b"]), training=[data], key=KEY), "patients shared")
    assert (row["found"], row["tested"], row["severity"]) == (1, 2, "red")


def test_hashes_that_meet_other_patients_of_the_label_table_prove_the_key():
    data = TrainingData("the list", frozenset(), frozenset({keyed_hash("patient", "z", KEY)}), hashed=True)
    splits = (["a", "b", "z"], ["test", "test", "train"])
    row = named(rows_of(cohort_of(["a", "b"]), training=[data], key=KEY, table_splits=splits), "patients shared")
    assert (row["found"], row["tested"], row["severity"]) == (0, 2, "note")
    assert "The key is right: 1 other patients of the table of labels are." in row["sentence"]


def test_hashes_that_do_not_meet_prove_nothing():
    data = TrainingData("the shots", frozenset(), frozenset({keyed_hash("patient", "a", b"o" * 32)}), hashed=True)
    for key in (KEY, None):
        row = named(rows_of(cohort_of(["a", "b"]), training=[data], key=key), "patients shared")
        assert (row["found"], row["tested"], row["severity"]) == (0, 0, "note")
        assert row["sentence"].startswith("Not tested")
        assert "key" in row["sentence"]
    shared = TrainingData("the shots", frozenset({"h"}), data.patients, hashed=True)
    row = named(rows_of(cohort_of(["a"]), HashedFiles(("h",)), training=[shared], key=KEY), "patients shared")
    assert "As files are shared, patients are too" in row["sentence"]
    raw = TrainingData("the table", frozenset(), frozenset({"c"}))
    assert named(rows_of(cohort_of(["a", "b"]), training=[raw]), "patients shared")["tested"] == 2


def test_patients_that_are_not_named_do_not_meet_each_other():
    data = TrainingData("the table", None, frozenset({"", "nan"}))
    row = named(rows_of(cohort_of(["", "", "a"]), training=[data]), "patients shared")
    assert (row["found"], row["tested"]) == (0, 1)
    splits = (["", ""], ["train", "test"])
    assert named(rows_of(cohort_of(["a"]), table_splits=splits), "patients in several splits")["tested"] == 0


def test_a_patient_in_two_splits_of_the_table_is_red():
    splits = (["P1", "P1", "P2", "P3"], ["train", "test", "test", "val"])
    row = named(rows_of(cohort_of(["P1"]), table_splits=splits), "patients in several splits")
    assert (row["found"], row["tested"], row["severity"]) == (1, 3, "red")


def test_thresholds_chosen_on_the_audit_set_are_red():
    audit = cohort_of(["a", "b", "c"])
    by_patient = named(rows_of(audit, choosing=cohort_of(["c", "d"])), "data that thresholds")
    assert (by_patient["found"], by_patient["tested"], by_patient["severity"]) == (1, 3, "red")
    assert "2 of 3 rows and 1 of 3 patients" in by_patient["sentence"]
    nameless = type(audit)(audit.patients_N, (), (), keys=audit.keys)
    by_row = named(rows_of(nameless, choosing=nameless), "data that thresholds")
    assert (by_row["found"], by_row["tested"], by_row["severity"]) == (3, 3, "red")
    assert "3 of 3 rows" in by_row["sentence"]
    others = named(rows_of(audit, choosing=cohort_of(["x"])), "data that thresholds")
    assert (others["found"], others["severity"]) == (1, "red")
    blank = type(audit)(audit.patients_N, (), ())
    assert named(rows_of(blank, choosing=blank), "data that thresholds")["tested"] == 0


def test_copies_inside_the_audit_set_are_a_note_and_say_whose_they_are(films: list[Pixels]):
    images = [*films[:20], films[0], resized_jpeg(films[1]), brighter(films[2])]
    names = [*(f"h{n}" for n in range(20)), "h0", "h21", "h22"]
    patients = [*(f"P{n}" for n in range(20)), "P19", "P1", "P18"]
    rows = rows_of(cohort_of(patients), hashed(images, names))
    exact, near = named(rows, "copies inside"), named(rows, "near-duplicates inside")
    assert (exact["found"], exact["tested"], exact["severity"]) == (1, 23, "note")
    assert "1 of these images stands under two or more patients" in exact["sentence"]
    assert (near["found"], near["severity"]) == (2, "note")
    assert "1 of one patient, which is no leakage, and 1 under two patients" in near["sentence"]
    assert {r["severity"] for r in rows} == {"note"}


def test_what_could_not_be_tested_is_a_row_that_says_why():
    nothing = rows_of(cohort_of(["a", "b"]))
    assert all(r["tested"] == 0 and r["severity"] == "note" for r in nothing)
    assert all(r["sentence"].startswith("Not tested") for r in nothing)
    assert named(nothing, "training files")["sentence"].endswith("trained on.")
    silent = rows_of(cohort_of(["a"]), HashedFiles(("",)), training=[TrainingData("the training files of x")])
    assert all(r["tested"] == 0 for r in silent)
    assert len(silent) == 3 + 5


def test_images_that_are_all_alike_lower_the_limit_and_the_row_says_so(films: list[Pixels]):
    rng = np.random.default_rng(0)
    smooth = [film(s, 12, 12).repeat(16, 0).repeat(16, 1).astype(float) for s in range(60)]
    alike = [np.clip(0.9 * smooth[0] + 0.1 * s + rng.normal(0, 60, s.shape), 0, 255).astype(np.uint8) for s in smooth]
    many = TrainingData("the training files", images=hashed(films))
    row = named(rows_of(cohort_of([str(n) for n in range(60)]), hashed(alike), training=[many]), "near-duplicates of")
    assert (row["found"], row["severity"]) == (0, "note")
    assert "can be told from chance" in row["sentence"]


def test_the_images_behind_each_count_are_listed_apart_with_what_they_meet(films: list[Pixels]):
    patients = ["A", "B", "C", "D", "E"]
    images = [films[0], resized_jpeg(films[1]), rotated(films[2], 3), films[3], films[3]]
    digests = ["h0", "h1", "h2", "h3", "h3"]
    cohort = replace(cohort_of(patients), files=tuple(f"{p}.png" for p in patients))
    training = TrainingData(
        "the list", frozenset({"h0"}), frozenset({"D"}), images=hashed(films[:3] + films[20:], ["h0", "t1", "t2"] * 9)
    )
    leaks = check(cohort, hashed(images, digests), training=[training], choosing=replace(cohort_of(["E"]), keys=()))
    told = [(row["check"], row["key"], row["file"], row["other"], row["how"]) for row in leaks.named]
    assert told[:2] == [
        ("files shared with the list", "k0", "A.png", "h0", "the same bytes"),
        ("patients shared with the list", "k3", "D.png", "", "the same patient"),
    ]
    alike = [row for row in told if row[0] == "near-duplicates of the list"]
    assert [row[:4] for row in alike] == [(alike[0][0], "k1", "B.png", "t1"), (alike[0][0], "k2", "C.png", "t2")]
    assert re.fullmatch(r"\d+ of 255 bits differ", alike[0][4])
    assert re.fullmatch(r"registered, details correlate at (0\.9\d|1\.00)", alike[1][4])
    assert ("copies inside the audit set", "k4", "E.png", "k3", "the same bytes") in told
    assert ("data that thresholds were chosen on", "k4", "E.png", "", "in both") in told
    assert {row["check"]: row["found"] for row in leaks.tables["leakage"] if row["found"]} == {
        "files shared with the list": 1,
        "patients shared with the list": 1,
        "near-duplicates of the list": 2,
        "data that thresholds were chosen on": 1,
        "copies inside the audit set": 1,
    }


def test_where_only_hashes_are_known_the_row_says_that_crops_were_not_looked_for(films: list[Pixels]):
    known = replace(hashed(films[20:]), small_NHW=None)
    row = named(
        rows_of(cohort_of(["a"]), hashed(films[:1]), training=[TrainingData("x", images=known)]), "near-duplicates of"
    )
    assert "rotated were not looked for: only hashes of these images are known." in row["sentence"]


def test_no_row_holds_a_name_a_hash_or_a_file(films: list[Pixels]):
    names = ["MRN-1234567", "MRN-7654321"]
    digests = ["ab" * 32, "cd" * 32]
    data = TrainingData("the table", frozenset(digests), frozenset(names), images=hashed(films[:2], digests))
    rows = rows_of(
        cohort_of(names),
        hashed(films[:2], digests),
        training=[data],
        key=KEY,
        choosing=cohort_of(names),
        table_splits=(names + names, ["train", "train", "test", "val"]),
    )
    text = str(rows)
    hidden = [*names, *digests, *(keyed_hash("patient", n, KEY) for n in names), "k0"]
    assert not [word for word in hidden if word in text]
    assert set(rows[0]) == {"check", "found", "tested", "severity", "sentence"}


def test_real_films_hold_copies_of_one_patient_and_none_of_two(shared: Path):
    folder = shared / "data" / "covid_cxr"
    with (folder / "labels.csv").open(newline="", encoding="utf-8") as f:
        table = list(csv.DictReader(f))
    files = hash_files([folder / r["file"] for r in table], Modality.XRAY, Settings(workers=2))
    row = named(rows_of(cohort_of([r["group_id"] for r in table]), files), "near-duplicates inside")
    assert row["tested"] == len(table)
    assert 8 <= row["found"] <= 30
    assert "and 3 under two patients" in row["sentence"]  # two images, of which each is there again under another

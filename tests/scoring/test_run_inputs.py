"""Runs and what is put into them: tables, body parts, studies with files that fail, calls from Python."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from examples.make_phantoms import ct_series
from medclip.adapters.base import Source
from medclip.api.score import score
from medclip.dicom.header.safe_header import ALLOWED
from medclip.errors import MedclipError, Reason
from medclip.models.inputs.preprocess import Preprocess
from medclip.runs.units.read_unit import inspect, read
from medclip.sample import Kind, Modality
from medclip.settings import Settings
from tests.kits.scoring import STUDY_UID, rows, write_dicom, write_png


def _input(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text())["input"]


def test_rows_of_a_table_that_lie_elsewhere_are_no_inputs(pack: Path, tmp_path: Path) -> None:
    for place in ("a", "b"):
        write_dicom(tmp_path / place / "1.dcm", 1)
    table = tmp_path / "t.csv"
    table.write_text("file\na/1.dcm\na/gone.dcm\nb/1.dcm\nb/gone.dcm\n../gone.dcm\n")
    found = rows(score(tmp_path / "a", tmp_path / "out", model=pack, workers=1, table=table))
    assert {name: row["reason"] for name, row in found.items()} == {"1.dcm": None, "gone.dcm": "missing_file"}
    assert _input(tmp_path / "out")["table_rows_elsewhere"] == 3


def test_of_a_single_file_only_its_own_row_is_an_input(pack: Path, tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a" / "1.dcm", 1)
    table = tmp_path / "a" / "t.csv"
    table.write_text("file,patient\n1.dcm,P\n2.dcm,P\n")
    run = score(path, model=pack, workers=1, table=table)
    assert list(rows(run)) == ["1.dcm"]
    assert run.table_rows_elsewhere == 1


def test_a_hand_is_not_scored_for_the_chest_but_for_ones_own_words(pack: Path, tmp_path: Path) -> None:
    write_dicom(tmp_path / "in" / "hand.dcm", 1, BodyPartExamined="HAND")
    write_dicom(tmp_path / "in" / "chest.dcm", 2, BodyPartExamined="CHEST", study_uid=f"{STUDY_UID}.2")
    run = score(tmp_path / "in", model=pack, workers=1)
    hand = rows(run)["hand.dcm"]
    assert (hand["status"], hand["reason"]) == ("skipped", "no_task")
    assert "the body part HAND" in hand["message"]
    assert rows(run)["chest.dcm"]["status"] == "scored"
    asked = score(tmp_path / "in", model=pack, workers=1, prompt="a fracture", task="chest_xray_view")
    study = rows(asked)["hand.dcm"]["study"]
    assert {r["task"] for r in asked.scores.to_pylist() if r["study"] == study} == {"prompt"}


def test_a_body_part_that_is_no_standard_term_is_not_repeated(pack: Path, tmp_path: Path) -> None:
    write_dicom(tmp_path / "1.dcm", 1, BodyPartExamined="WILHELM")
    message = rows(score(tmp_path / "1.dcm", model=pack, workers=1))["1.dcm"]["message"]
    assert message.startswith("The header states another body part")
    assert "WILHELM" not in message


def test_scores_count_the_files_of_their_study_that_failed(pack: Path, tmp_path: Path) -> None:
    root = tmp_path / "in"
    for n in (1, 2, 3):
        write_dicom(root / f"{n}.dcm", n)
    body = (root / "3.dcm").read_bytes()
    (root / "3.dcm").write_bytes(body[: len(body) - 500])
    write_dicom(root / "4.dcm", 4, study_uid=f"{STUDY_UID}.2")
    run = score(root, tmp_path / "out", model=pack, workers=1)
    found = rows(run)
    assert found["3.dcm"]["status"] == "failed"
    assert found["3.dcm"]["study"] == found["1.dcm"]["study"]
    failed = {row["study"]: row["num_failed"] for row in run.scores.to_pylist()}
    assert failed == {found["1.dcm"]["study"]: 1, found["4.dcm"]["study"]: 0}
    assert "1 of 3 files of this study could not be read (file 3)" in (tmp_path / "out" / "report.html").read_text()


def test_a_file_that_cannot_be_opened_counts_for_the_study_of_its_folder_or_table(pack: Path, tmp_path: Path) -> None:
    root = tmp_path / "in"
    write_png(root / "study" / "1.png", 1)
    (root / "study" / "2.png").touch()
    write_png(root / "a.png", 2)
    (root / "b.png").touch()
    (root / "c.png").touch()
    table = tmp_path / "t.csv"
    table.write_text("file,study,patient\na.png,S,\nb.png,S,\nstudy/1.png,,P\nstudy/2.png,,P\n")
    run = score(root, model=pack, workers=1, modality="xray", table=table)
    found = rows(run)
    assert found["study/2.png"]["study"] == found["study/1.png"]["study"]
    assert found["b.png"]["study"] == found["a.png"]["study"]
    assert found["c.png"]["study"] is None
    assert {row["num_failed"] for row in run.scores.to_pylist()} == {1}


def test_each_file_says_who_named_its_modality(pack: Path, tmp_path: Path) -> None:
    for n in (1, 2):
        write_dicom(tmp_path / "in" / f"{n}.dcm", n)
    table = tmp_path / "t.csv"
    table.write_text("file,modality\n1.dcm,xray\n")
    run = score(tmp_path / "in", tmp_path / "out", model=pack, workers=1, table=table)
    found = rows(run)
    assert found["1.dcm"]["study"] == found["2.dcm"]["study"]
    assert [found[name]["modality_source"] for name in ("1.dcm", "2.dcm")] == ["table", "header"]
    assert "from the table and the file’s header" in (tmp_path / "out" / "report.html").read_text().replace(
        "&#39;", "’"
    )


def test_the_class_of_a_prompt_is_its_sentence_and_run_json_has_its_opposite(pack: Path, tmp_path: Path) -> None:
    write_dicom(tmp_path / "1.dcm", 1)
    run = score(tmp_path / "1.dcm", tmp_path / "out", model=pack, workers=1, prompt="A  pacemaker, 2 leads")
    assert set(run.scores.column("class").to_pylist()) == {"A pacemaker, 2 leads"}
    options = json.loads((tmp_path / "out" / "run.json").read_text())["options"]
    texts = ["A pacemaker, 2 leads"]
    assert options["prompts"] == [{"name": texts[0], "texts": texts, "against": ["no pacemaker, 2 leads"]}]
    assert options["templates"] == {}
    assert (
        run.scores.column("logit_spread").to_pylist() == run.scores.column("probability_spread").to_pylist() == [None]
    )


def test_a_bare_finding_is_asked_in_the_sentences_of_the_modality_unless_they_are_switched_off(
    pack: Path, tmp_path: Path
) -> None:
    write_dicom(tmp_path / "1.dcm", 1)
    plain, bare = (
        score(
            tmp_path / "1.dcm", tmp_path / f"{on}", model=pack, workers=1, prompt="a pacemaker | a lead", templates=on
        )
        for on in (False, True)
    )
    options = json.loads((tmp_path / "True" / "run.json").read_text())["options"]
    assert options["templates"] == {"xray": ["{}", "X-ray image: {}", "an X-ray image with {}"]}
    asked = "What but names a finding is also asked in sentences: “X-ray image: …”, “an X-ray image with …”."
    pages = [(tmp_path / name / "report.html").read_text() for name in ("False", "True")]
    assert [asked in page for page in pages] == [False, True]
    (first,), (second,) = plain.scores.to_pylist(), bare.scores.to_pylist()
    assert first["class"] == second["class"] == "a pacemaker"
    assert first["against"] == "no pacemaker | no lead"
    assert first["logit"] != second["logit"]
    assert first["logit_spread"] > 0 < second["probability_spread"]
    with pytest.raises(MedclipError, match="another run"):
        score(
            tmp_path / "1.dcm", tmp_path / "True", model=pack, workers=1, prompt="a pacemaker | a lead", templates=False
        )


def test_the_classes_of_the_vocabulary_have_a_spread_over_their_sentences_too(pack: Path, tmp_path: Path) -> None:
    write_dicom(tmp_path / "1.dcm", 1)
    run = score(tmp_path / "1.dcm", tmp_path / "out", model=pack, workers=1, task="chest_xray_view")
    assert all(spread > 0 for spread in run.scores.column("probability_spread").to_pylist())


def test_a_task_a_loaded_model_and_a_data_frame_may_be_given_as_they_are(pack: Path, tmp_path: Path) -> None:
    import pyarrow

    from medclip.models.packs.pack import load_model

    write_png(tmp_path / "in" / "1.png", 1)
    table = pyarrow.table({"file": ["1.png"], "modality": ["xray"]})
    run = score(tmp_path / "in", model=load_model(pack), task="chest_xray_view", table=table, workers=1)
    assert set(run.scores.column("task").to_pylist()) == {"chest_xray_view"}
    assert rows(run)["1.png"]["modality_source"] == "table"


def test_a_table_names_the_views_of_mammograms_without_a_header(pack: Path, tmp_path: Path) -> None:
    import pyarrow

    for seed, name in enumerate(("a", "b", "0_R_CC")):
        write_png(tmp_path / "in" / f"{name}.png", seed)
    columns = {
        "file": ["a.png", "b.png", "0_R_CC.png"],
        "modality": ["mammography"] * 3,
        "laterality": ["L", "", "L"],
        "view": ["MLO MAG", "", "CC"],
        "view_kind": ["subtracted", "", ""],
    }
    run = score(tmp_path / "in", model=pack, table=pyarrow.table(columns), workers=1, group_by="file")
    files = rows(run)
    known = {name: (row["laterality"], row["view"]) for name, row in files.items()}
    assert known == {"a.png": ("L", "MLO"), "b.png": (None, None), "0_R_CC.png": (None, "CC")}
    headers = {"exam_kind": "subtracted", "laterality": "L", "view_modifiers": ["magnification"]}
    assert json.loads(files["a.png"]["headers"]) == headers
    assert json.loads(files["0_R_CC.png"]["headers"]) == {"sides_contradict": True}
    assert "different sides" in files["0_R_CC.png"]["steps"]


@pytest.mark.parametrize("arguments", [{"model": 3}, {"table": 3}, {"path": None}, {"out": 3}, {"key_file": 3}])
def test_an_argument_of_another_kind_is_refused_with_a_sentence(
    pack: Path, tmp_path: Path, arguments: dict[str, Any]
) -> None:
    write_png(tmp_path / "1.png", 1)
    with pytest.raises(MedclipError, match="not") as caught:
        score(**{"path": tmp_path / "1.png", "model": pack, "workers": 1, **arguments})
    assert caught.value.reason in (Reason.WRONG_USE, Reason.TABLE_INVALID)


def test_messages_in_the_table_begin_with_a_capital_letter(pack: Path, studies: Path) -> None:
    messages = [row["message"] for row in rows(score(studies, model=pack, workers=1)).values() if row["message"]]
    assert messages
    assert all(message[0] == message[0].upper() for message in messages)


def test_a_modality_may_be_written_in_any_case(pack: Path, tmp_path: Path) -> None:
    write_png(tmp_path / "1.png", 1)
    assert rows(score(tmp_path / "1.png", model=pack, workers=1, modality="XRay"))["1.png"]["modality"] == "xray"


def test_the_allow_listed_header_values_are_one_column_of_json(pack: Path, tmp_path: Path) -> None:
    tags = {"Manufacturer": "SIEMENS", "ManufacturerModelName": "Ysio of Dr Roentgen", "PatientSex": "F"}
    write_dicom(tmp_path / "in" / "a.dcm", 1, PatientAge="101Y", ViewPosition="PA", **tags)
    write_png(tmp_path / "in" / "b.png", 2)
    found = rows(score(tmp_path / "in", model=pack, workers=1, modality="xray"))
    headers = json.loads(found["a.dcm"]["headers"])
    assert (headers["manufacturer"], headers["device_model"], headers["sex"]) == ("Siemens", "Ysio Dr", "F")
    assert (headers["age_years"], headers["view"], headers["modality"]) == (90.0, "PA", "DX")
    assert set(headers) <= {entry.name for entry in ALLOWED}
    assert found["b.png"]["headers"] is None


def test_the_thumbnail_of_a_ct_is_grey(tmp_path: Path) -> None:
    folder = ct_series(tmp_path / "ct", num_slices=3, size=64)
    facts = [(path, inspect(path, Settings(), None)) for path in sorted(folder.iterdir())]
    source = Source(Kind.VOLUME, tuple(path for path, _ in facts), tuple(fact for _, fact in facts))
    reading = read(source, Modality.CT, Preprocess(size_px=64, adapters={}), Settings())
    assert reading.images[0].shape == (64, 64, 3)
    with Image.open(io.BytesIO(reading.thumbnail)) as image:
        assert image.mode == "L"


@pytest.mark.parametrize("name", ["a" * 300, f"x/{'a' * 300}/y", "file", "file/x"])
def test_an_output_that_can_be_no_folder_is_refused_before_anything_is_read(
    pack: Path, tmp_path: Path, name: str
) -> None:
    write_png(tmp_path / "in" / "a.png", 1)
    (tmp_path / "file").touch()
    with pytest.raises(MedclipError) as caught:
        score(tmp_path / "in", tmp_path / name, model=pack, workers=1)
    assert caught.value.reason is Reason.WRONG_USE
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "in"]


def test_a_place_where_even_root_can_make_nothing_is_refused(pack: Path, tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", 1)
    with pytest.raises(MedclipError) as caught:
        score(tmp_path, "/proc/foo", model=pack, workers=1)
    assert caught.value.reason is Reason.WRONG_USE


def test_a_radiograph_without_a_body_part_is_asked_about_the_chest_only_where_it_looks_like_one(
    pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medclip.runs.units import chunk

    root = tmp_path / "in"
    write_dicom(root / "chest.dcm", 1, study_uid="1.2.1")
    write_dicom(root / "hand.dcm", 2, study_uid="1.2.2")
    write_dicom(root / "stated.dcm", 3, study_uid="1.2.3", BodyPartExamined="CHEST")
    asked: list[int] = []

    def one_in_two(model: Any, features: Any, modality: str) -> Any:
        asked.append(len(features))
        return np.arange(len(features)) % 2 == 0

    monkeypatch.setattr(chunk, "typical", one_in_two)
    found = rows(score(root, tmp_path / "out", model=pack, workers=1))
    assert asked == [2]
    assert {name: (row["status"], row["reason"]) for name, row in found.items()} == {
        "chest.dcm": ("scored", None),
        "hand.dcm": ("skipped", "no_task"),
        "stated.dcm": ("scored", None),
    }
    assert "Nothing states the body part" in found["hand.dcm"]["message"]
    run = score(root, tmp_path / "prompt", model=pack, workers=1, task=["chest_xray_view"], prompt="a pacemaker")
    tasks: dict[str, set[str]] = {}
    for row in run.scores.to_pylist():
        tasks.setdefault(json.loads(row["files"])[0], set()).add(row["task"])
    assert tasks["hand.dcm"] == {"prompt"}
    assert tasks["chest.dcm"] == {"prompt", "chest_xray_view"}
    words = score(root, tmp_path / "words", model=pack, workers=1, prompt="pneumonia")
    beside = {json.loads(row["files"])[0]: row["caution"] or "" for row in words.scores.to_pylist()}
    stranger = "Not learned: nothing states the body part, and the image does not look like the X-ray images that"
    assert beside["hand.dcm"].startswith(stranger)
    assert not any(beside[name].startswith("Not learned") for name in ("chest.dcm", "stated.dcm"))
    assert beside["hand.dcm"].removeprefix("Not learned: ") in (tmp_path / "words" / "report.html").read_text()
    table = tmp_path / "t.csv"
    table.write_text("file,modality\nhand.dcm,xray\n")
    trusted = rows(score(root, tmp_path / "table", model=pack, workers=1, table=table))
    assert trusted["hand.dcm"]["status"] == "scored"

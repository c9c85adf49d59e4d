"""Radiographs that nothing says the body part of are looked at: what is no chest is asked nothing about chests."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medclip.api.embed import embed
from medclip.api.score import score
from medclip.errors import Reason
from medclip.models.packs.pack import find_pack, pack_card, update_pack
from medclip.sample import Modality
from medclip.scoring.tasks import AskedTask, Scorer
from medclip.text.vocabulary.load import load_task, task_names
from tests.kits.files import write_dicom
from tests.kits.stages import load_stage

BODY_PARTS = load_stage(Path(__file__).parents[2] / "pipelines" / "mini", "body_parts")


@pytest.mark.parametrize("stated", [None, "UNKNOWN"])
def test_a_jaw_a_hand_and_a_knee_whose_header_says_cr_alone_are_not_asked_about_the_chest(
    tmp_path: Path, stated: str | None
) -> None:
    for draw in (BODY_PARTS.panoramic, BODY_PARTS.hand, BODY_PARTS.knee):
        unlike = {"StudyInstanceUID": f"1.2.3.{len(draw.__name__)}", "BodyPartExamined": stated}
        write_dicom(tmp_path / "in" / f"{draw.__name__}.dcm", draw(), **unlike)
    run = score(tmp_path / "in", tmp_path / "out", workers=1)
    assert run.scores.num_rows == 0
    rows = run.files.to_pylist()
    assert [(row["status"], row["reason"]) for row in rows] == [("skipped", str(Reason.NO_TASK))] * 3
    why = "Nothing states the body part, and the image does not look like the X-ray images of the chest that the model"
    assert all(row["message"].startswith(why) and "chest_xray_findings" in row["message"] for row in rows)


def test_which_part_of_the_body_it_is_may_be_asked_of_such_a_film_by_name(tmp_path: Path) -> None:
    write_dicom(tmp_path / "hand.dcm", BODY_PARTS.hand())
    asked = ["chest_xray_findings", "body_region"]
    run = score(tmp_path / "hand.dcm", tmp_path / "out", task=asked, workers=1)
    assert set(run.scores.column("task").to_pylist()) == {"body_region"}
    why = "nothing states the body part, and the image does not look like the X-ray images of the chest"
    (row,) = run.files.to_pylist()
    assert (row["status"], row["reason"]) == ("scored", None)
    assert row["message"] == f"Not asked chest_xray_findings: {why} that the model has seen."


def test_a_scored_file_says_what_it_was_not_asked_for_its_header_and_stored_vectors_say_the_same(
    tmp_path: Path,
) -> None:
    for number, part in enumerate(("KNEE", "BRAIN", "MEYERS KNEE")):
        stated = {"StudyInstanceUID": f"1.2.3.{number}", "BodyPartExamined": part, "Modality": "MR"}
        stated |= {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7", "ImagePositionPatient": [0, 0, number]}
        write_dicom(tmp_path / "in" / f"{number}.dcm", BODY_PARTS.knee(number), **stated)
    run = score(tmp_path / "in", tmp_path / "out", workers=1)
    messages = [row["message"] for row in run.files.to_pylist() if row["status"] == "scored"]
    why = "Not asked brain_mri_tumour: the header states"
    assert messages == [f"{why} the body part KNEE.", None, f"{why} another body part."]
    embed(tmp_path / "in", tmp_path / "vectors", workers=1)
    stored = score(tmp_path / "vectors", tmp_path / "asked")
    assert stored.files.column("message").to_pylist() == run.files.column("message").to_pylist()


def test_a_chest_whose_header_says_cr_alone_is_asked(tmp_path: Path) -> None:
    film = np.asarray(Image.open("examples/studies/chest_without_header.jpg").convert("L"))
    write_dicom(tmp_path / "in" / "chest.dcm", film)
    assert score(tmp_path / "in", tmp_path / "out", workers=1).counts["scored"] == 1


@pytest.fixture
def sees_knees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pack that is asked the region of films, too, and is sure of a knee where the file is bright, else nearly."""
    pack = tmp_path / "pack"
    shutil.copytree(find_pack("medclip-mini"), pack)
    card = pack_card(pack)
    region = card.tasks["body_region"].model_copy(update={"modalities": (Modality.CT, Modality.XRAY)})
    update_pack(pack, card=card.model_copy(update={"tasks": {**card.tasks, "body_region": region}}))
    of_modality = Scorer.likeliest
    sure = iter([0.96, 0.94] * 4)

    def likeliest(scorer: Scorer, features_VD: Any, question: AskedTask) -> tuple[str, float]:
        if question.task.name == "body_region":
            return "knee", next(sure)
        return of_modality(scorer, features_VD, question)

    monkeypatch.setattr(Scorer, "likeliest", likeliest)
    return pack


def test_an_image_that_the_model_is_sure_shows_a_knee_is_not_asked_about_the_chest_unless_by_name(
    tmp_path: Path, sees_knees: Path
) -> None:
    film = np.asarray(Image.open("examples/studies/chest_without_header.jpg").convert("L"))
    folder = tmp_path / "in"
    folder.mkdir()
    Image.fromarray(film).save(folder / "a.png")
    Image.fromarray(255 - film).save(folder / "b.png")
    write_dicom(folder / "c.dcm", film, BodyPartExamined="CHEST")
    options = {"model": sees_knees, "modality": "xray", "workers": 1}
    run = score(folder, tmp_path / "out", **options)
    messages = {Path(row["path"]).name: row["message"] for row in run.files.to_pylist()}
    assert set(messages.values()) == {
        None,
        "Not asked chest_xray_view or chest_xray_findings: nothing states the body part, and the model sees the knee; "
        "--task asks all the same.",
    }
    assert messages["a.png"]
    assert messages["c.dcm"] is None
    assert messages["b.png"] is None
    asked = {(row["task"], *json.loads(row["files"])) for row in run.scores.to_pylist()}
    assert {name for task, name in asked if task == "chest_xray_findings"} == {"b.png", "c.dcm"}
    assert {name for task, name in asked if task == "body_region"} == {"a.png", "b.png", "c.dcm"}
    embed(folder, tmp_path / "vectors", **options)
    assert score(tmp_path / "vectors", tmp_path / "asked", model=sees_knees).scores.equals(run.scores)
    named = score(folder, tmp_path / "named", task="chest_xray_findings", **options)
    assert named.scores.num_rows == 3
    assert not any(row["message"] for row in named.files.to_pylist())


def test_every_region_of_the_body_but_none_of_another_task_names_what_its_images_show() -> None:
    regions = load_task("body_region")
    assert all(region.shows for region in regions.classes)
    shown = {region.name: region.shows for region in regions.classes}
    fits = {name: {one for one, part in shown.items() if load_task(name).is_about(part)} for name in task_names()}
    assert fits["chest_xray_findings"] == {"thorax"}
    assert fits["brain_mri_tumour"] == {"head"}
    assert fits["knee_osteoarthritis"] == {"knee", "musculoskeletal"}
    assert not any(c.shows for name in task_names() if name != "body_region" for c in load_task(name).classes)


@pytest.mark.shared
def test_no_dermoscopy_photograph_is_scored_as_a_radiograph_even_where_the_option_says_so(
    shared: Path, tmp_path: Path
) -> None:
    isic = shared / "data" / "isic2017"
    with (isic / "labels.csv").open(encoding="utf-8") as file:
        names = [row["file"] for row in csv.DictReader(file)][::8]
    photographs = [isic / name for name in names]
    scored = [row for row in score(photographs, workers=1).files.to_pylist() if row["status"] == "scored"]
    assert not any(Modality(row["modality"]).facts.in_colour is False for row in scored)
    assert sum(row["modality"] != "dermatology" for row in scored) <= 1, "a model without skin skips them"
    named = score(photographs, tmp_path / "named", workers=1, modality="xray")
    assert named.scores.num_rows == 0
    assert named.counts["skipped"] == len(names)

from __future__ import annotations

from pathlib import Path

import pytest

from medclip import score
from medclip.runs.score_run import read_run
from medclip.scoring.unlearned import modality_unlearned, prompt_unlearned
from medclip.text.vocabulary.own_words import read_prompts
from tests.kits.progress import Recorded
from tests.kits.scoring import write_dicom, write_png


@pytest.mark.parametrize(
    ("modality", "trained", "reason"),
    [
        ("ct", ["mri", "xray"], "the model was trained on MRI and X-ray images, not on CT"),
        ("xray", ["mri", "xray"], ""),
        ("ct", [], ""),  # an imported pack: nobody knows
    ],
)
def test_a_modality_that_the_card_lacks_has_a_reason(modality: str, trained: list[str], reason: str) -> None:
    assert modality_unlearned(modality, trained) == reason


@pytest.mark.parametrize(
    ("prompt", "unlearned"),
    [
        ("a CT with a lung nodule", True),
        ("computed tomography: a nodule | a nodule", True),
        ("a chest X-ray with a nodule", False),
        ("a nodule", False),
        ("an X-ray, as CT is not at hand", False),
    ],
)
def test_a_prompt_about_modalities_that_the_card_lacks_has_a_reason(prompt: str, unlearned: bool) -> None:
    assert bool(prompt_unlearned(read_prompts(prompt)[0], ["xray", "mri"])) is unlearned
    assert prompt_unlearned(read_prompts(prompt)[0], []) == ""


def test_what_should_be_known_of_a_question_is_pointed_out_before_anything_is_read_and_stays_with_the_run(
    pack: Path, tmp_path: Path
) -> None:
    write_dicom(tmp_path / "1.dcm", 1)
    progress = Recorded()
    asked = ["a CT with a pneumotorax", "edema"]
    run = score(tmp_path / "1.dcm", tmp_path / "out", model=pack, workers=1, prompt=asked, progress=progress)
    spelling, about = (
        "“pneumotorax”: did you mean “pneumothorax”?",
        "“a CT with a pneumotorax”: the prompt speaks of CT",
    )
    assert run.notes[1] == spelling
    assert run.notes[0].startswith(about)
    assert progress.notes[:2] == list(run.notes)
    assert about in repr(run)
    assert spelling in repr(run)
    assert read_run(tmp_path / "out").notes == run.notes
    page = (tmp_path / "out" / "report.html").read_text()
    assert f'<p class="notice">{spelling}</p>' in page
    study = page.split("<article")[1].split("</article>")[0]
    assert study.count('<tr class="unlearned">') == 1
    assert study.count("Not learned: the prompt speaks of CT") == 1


def test_a_task_that_the_card_lacks_is_grey_with_the_reason_and_named_in_the_repr(pack: Path, tmp_path: Path) -> None:
    eye = write_png(tmp_path / "1.png", 1)
    run = score(eye, tmp_path / "out", model=pack, workers=1, task=["fundus_cataract"], modality="fundus")
    assert run.notes == (
        "Cataract on fundus photographs is not a task of the model's card: nobody has measured how good it is there.",
    )
    assert "nobody has measured" in repr(run)
    study = (tmp_path / "out" / "report.html").read_text().split("<article")[1].split("</article>")[0]
    assert '<div class="unlearned">' in study
    assert "Not learned: this is no task of the model’s card." in study


def test_a_run_of_what_the_card_lists_has_nothing_to_be_known(pack: Path, tmp_path: Path) -> None:
    write_dicom(tmp_path / "1.dcm", 1)
    run = score(tmp_path / "1.dcm", tmp_path / "out", model=pack, workers=1, task="chest_xray_view")
    assert run.notes == ()
    assert "to be known" not in repr(run)
    assert "unlearned" not in (tmp_path / "out" / "report.html").read_text().split("</style>")[1]

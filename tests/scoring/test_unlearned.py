from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from medclip import embed, score
from medclip.cli.main import main
from medclip.cli.score import print_run
from medclip.models.packs.card import Card, read_card
from medclip.models.packs.pack import update_pack
from medclip.models.packs.words import prompt_cautions
from medclip.runs.outputs.score_run import MEASURE_WORDS, read_run
from medclip.scoring.cautions import asked_words, modality_unlearned, prompt_reasons, prompt_unlearned, prompt_unlisted
from medclip.text.vocabulary.own_words import read_prompts
from tests.kits.progress import Recorded
from tests.kits.results import in_folder
from tests.kits.scoring import make_pack, write_dicom, write_png


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


def test_a_modality_that_medclip_has_no_name_for_is_called_another() -> None:
    reason = prompt_unlearned(read_prompts("a PET of the chest")[0], ["xray"])
    assert reason == "the prompt speaks of another modality, and the model was trained on X-ray images"


def test_what_should_be_known_of_a_question_is_pointed_out_before_anything_is_read_and_stays_with_the_run(
    pack: Path, tmp_path: Path
) -> None:
    write_dicom(tmp_path / "1.dcm", 1)
    progress = Recorded()
    asked = ["a CT with a pneumotorax", "effusion"]
    run = score(tmp_path / "1.dcm", tmp_path / "out", model=pack, workers=1, prompt=asked, progress=progress)
    spelling, about = (
        "“pneumotorax”: did you mean “pneumothorax”?",
        "“a CT with a pneumotorax”: the prompt speaks of CT",
    )
    assert run.notes[1] == spelling
    assert run.notes[0].startswith(about)
    assert (*progress.notes[:2], MEASURE_WORDS) == run.notes
    assert about in repr(run)
    assert spelling in repr(run)
    assert read_run(tmp_path / "out").notes == run.notes
    page = (tmp_path / "out" / "report.html").read_text()
    notices = page.split('<ul class="notice small">')[1].split("</ul>")[0]
    assert f"<li>{spelling}</li>" in notices, "several notices stand in one box"
    assert notices.count("<li>") == len(run.notes) - 1, "how words are measured is told to whoever runs it"
    study = page.split("<article")[1].split("</article>")[0]
    assert study.count('<tbody class="unlearned">') == 1
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
    assert "nobody has measured how good the model is at this" in study


def test_own_words_that_nobody_measured_are_named_by_the_run_with_the_command_that_measures_them(
    tried_pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    film = write_dicom(tmp_path / "1.dcm", 1)
    run = score(film, tmp_path / "out", model=tried_pack, workers=1, prompt="a pacemaker")
    assert run.notes[0] == "“a pacemaker”: it names nothing that the model’s card has a figure for."
    assert run.notes[-1] == MEASURE_WORDS
    for shown in (repr(run), run._repr_html_()):
        assert "“a pacemaker”: it names nothing" in shown
    print_run(run, True)
    assert json.loads(capsys.readouterr().out)["notes"] == list(run.notes)
    assert MEASURE_WORDS not in score(film, tmp_path / "b", model=tried_pack, workers=1, task="modality").notes


WHY = "0.54 (0.47 to 0.60), chance 0.50; not told from chance, so not claimed"
"""How what was tried is told."""


@pytest.fixture
def tried_pack(pack: Path, tmp_path: Path) -> Path:
    """A pack that was tried on two tasks, one of them class by class, and claims neither."""
    copy = shutil.copytree(pack, tmp_path / "tried")
    figure = {"value": 0.54, "low": 0.47, "high": 0.6, "chance": 0.5, "why": "not told from chance"}
    left = {
        "breast_density": {"all": figure | {"metric": "balanced_accuracy"}},
        "chest_xray_findings": {"effusion": figure | {"metric": "auroc"}},
    }
    fields = read_card(copy).model_dump()
    fields["tasks"] = {name: entry for name, entry in fields["tasks"].items() if name not in left}
    update_pack(copy, card=Card.model_validate(fields | {"not_claimed": left}))
    return copy


def test_a_task_that_was_tried_and_is_not_claimed_is_grey_with_what_was_measured(
    tried_pack: Path, tmp_path: Path
) -> None:
    breast = write_png(tmp_path / "1.png", 1)
    run = score(breast, tmp_path / "out", model=tried_pack, workers=1, task=["breast_density"], modality="mammography")
    measured = f"tried, with balanced accuracy {WHY}"
    assert run.notes == (f"Breast density on mammograms is not a task of the model's card: {measured}.",)
    page = (tmp_path / "out" / "report.html").read_text()
    study = page.split("<article")[1].split("</article>")[0]
    assert '<div class="unlearned">' in study
    assert study.count(f"Not learned: {measured}.") == 1
    assert "nobody has measured" not in study
    assert f"<li>Breast density on mammograms: balanced accuracy {WHY}</li>" in page.split('id="model"')[1]


def test_of_a_task_that_was_tried_class_by_class_each_answer_has_its_own_reason(
    tried_pack: Path, tmp_path: Path
) -> None:
    film, measured = write_png(tmp_path / "1.png", 1), f"AUROC {WHY}"
    run = score(film, tmp_path / "out", model=tried_pack, workers=1, task=["chest_xray_findings"], modality="xray")
    note = f"Chest X-ray findings is not a task of the model's card: tried, with Pleural effusion {measured}."
    assert note in run.notes
    cautions = {row["class"]: row["caution"] for row in run.scores.to_pylist()}
    assert cautions["effusion"] == f"Not learned: tried, with {measured}"
    assert cautions["pneumonia"] == "Not learned: this is no task of the model’s card"


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ("pleural effusion", f"Pleural effusion (Chest X-ray findings) was tried, with AUROC {WHY}"),
        ("fatty", f"Breast density on mammograms was tried, with balanced accuracy {WHY}"),
        ("an enlarged heart", "the model’s card has no figure for cardiomegaly"),
        ("glioma", ""),
    ],
)
def test_a_prompt_about_what_was_tried_has_what_was_measured(tried_pack: Path, prompt: str, reason: str) -> None:
    (found,) = prompt_reasons(read_card(tried_pack), [asked_words([prompt])], tried_pack).values()
    assert found == reason


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ("pneumonia in the left lung", ""),
        ("pneumothorax and pneumonia", ""),
        ("an enlarged heart", "the model’s card has no figure for cardiomegaly"),
        ("a pacemaker", "it names nothing that the model’s card has a figure for"),
        ("an image of poor quality | a glioma", ""),
        ("a spaceship", "it names nothing that the model’s card has a figure for"),
        ("an X-ray", ""),
        ("a chest X-ray", ""),
        ("the brain", ""),
        ("an axial MRI of the brain | a brain MRI", ""),
        ("a chest X-ray with an enlarged heart", "the model’s card has no figure for cardiomegaly"),
        ("a chest X-ray with sarcoidosis", "it names nothing that the model’s card has a figure for"),
        ("a lateral chest X-ray", "it names nothing that the model’s card has a figure for"),
        ("a broken bone", "it names nothing that the model’s card has a figure for"),
        ("the knee", "it names nothing that the model’s card has a figure for"),
        ("an X-ray with pneumonia", ""),
        ("an ultrasound with pneumonia", "the model’s card has no figure for pneumonia"),
        ("an image", "it names nothing that the model’s card has a figure for"),
    ],
)
def test_a_prompt_that_names_nothing_measured_has_a_reason(prompt: str, reason: str) -> None:
    listed = {"chest_xray_findings": ["pneumonia"], "brain_mri_tumour": ["glioma"], "modality": ["xray"]}
    listed["body_region"] = ["head", "thorax"]
    assert prompt_unlisted(read_prompts(prompt)[0], listed) == reason
    assert prompt_unlisted(read_prompts(prompt)[0], {"modality": ["xray"]}) == "", "nobody knows of an imported pack"


def test_answers_that_were_not_learned_are_grey_with_the_reason_wherever_they_are_shown(
    pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_dicom(tmp_path / "1.dcm", 1)
    asked = ["effusion", "a pacemaker", "qwrtzplkjhgfdx"]
    run = score(tmp_path / "1.dcm", tmp_path / "out", model=pack, workers=1, prompt=asked)
    named = [(answers.class_, answers.reason) for answers in run.unlearned]
    nothing = "it names nothing that the model’s card has a figure for"
    spelt = "the model does not know “qwrtzplkjhgfdx”"
    assert named == [("a pacemaker", nothing), ("qwrtzplkjhgfdx", spelt)]
    assert read_run(tmp_path / "out").unlearned == run.unlearned

    lines = run._repr_html_().split("<tr")
    grey = [line for line in lines if "color: #80868b" in line]
    assert [nothing in grey[0], spelt in grey[1]] == [True, True]
    assert len(grey) == 2
    assert "<strong>" not in "".join(grey)

    study = (tmp_path / "out" / "report.html").read_text().split("<article")[1].split("</article>")[0]
    rows = [row.split("</tbody>")[0] for row in study.split("<tbody")[1:]]
    assert [row.startswith(' class="unlearned"') for row in rows] == [nothing in row or spelt in row for row in rows]
    assert study.count('class="unlearned"') == 2

    print_run(run, False)
    printed = capsys.readouterr().out
    answers = {name: line for name in asked for line in printed.splitlines() if name in line}
    assert f"Not learned: {nothing}" in answers["a pacemaker"]
    assert f"Not learned: {spelt}" in answers["qwrtzplkjhgfdx"]
    assert "Not learned" not in answers["effusion"]
    print_run(run, True)
    assert [values["class"] for values in json.loads(capsys.readouterr().out)["unlearned"]] == asked[1:]


def test_stored_vectors_have_the_same_grey_answers(pack: Path, tmp_path: Path) -> None:
    write_dicom(tmp_path / "1.dcm", 1)
    stored = embed(tmp_path / "1.dcm", tmp_path / "e", model=pack, workers=1)
    of_files = score(tmp_path / "1.dcm", tmp_path / "out", model=pack, workers=1, prompt="a pacemaker")
    assert score(stored, model=pack, prompt="a pacemaker").unlearned == of_files.unlearned != ()


def test_a_run_of_what_the_card_lists_has_nothing_to_be_known(pack: Path, tmp_path: Path) -> None:
    write_dicom(tmp_path / "1.dcm", 1)
    run = score(tmp_path / "1.dcm", tmp_path / "out", model=pack, workers=1, task="chest_xray_view")
    assert run.notes == run.unlearned == ()
    assert "not learned" not in run._repr_html_()
    assert "to be known" not in repr(run)
    assert "unlearned" not in (tmp_path / "out" / "report.html").read_text().split("</style>")[1]


ONE_SOURCE = "within its source only (nih_cxr)"


@pytest.mark.parametrize(
    ("prompt", "caution"),
    [
        ("signs of pneumonia", ONE_SOURCE),
        ("consolidation of the lung | Pneumonia", ONE_SOURCE),
        ("no pneumonia and a glioma", f"{ONE_SOURCE} and within its sources only (a and b)"),
        ("an effusion", ""),
        ("a pneumothorax", ""),
    ],
)
def test_words_that_name_a_class_have_what_must_stand_beside_it(prompt: str, caution: str) -> None:
    cautions = {
        "chest_xray_findings": {"pneumonia": ONE_SOURCE},
        "brain_mri_tumour": {"glioma": "within its sources only (a and b)"},
    }
    (asked,) = read_prompts(prompt)
    assert prompt_cautions([asked], cautions) == ({asked.name: caution} if caution else {})


def test_a_prompt_in_other_words_has_the_caution_of_the_class_beside_its_number_everywhere(
    pack: Path, tmp_path: Path
) -> None:
    figure = {"value": 0.86, "low": 0.78, "high": 0.92, "chance": 0.5, "num_patients": 118}
    task, figures = "chest_xray_findings", {"within nih_cxr": figure}
    sources = {"verdict": "within its source only", "sources": ["nih_cxr"], "figures": figures}
    classes = {"classes": ["pneumonia", "effusion"], "sources": {"pneumonia": sources}}
    own = make_pack(tmp_path / "pack", tasks={"modality": {"classes": ["xray", "mri"]}, task: classes})
    write_dicom(tmp_path / "in" / "1.dcm", 1)
    words = "signs of pneumonia"
    run = score(
        tmp_path / "in",
        tmp_path / "out",
        model=own,
        workers=1,
        prompt=[words, "a pacemaker"],
        task=[task],
        export=in_folder(tmp_path / "sr", "sr", "fhir-r4b"),
    )
    within = f"holds {ONE_SOURCE}: AUROC 0.86 (0.78 to 0.92) within nih_cxr, 118 patients. Elsewhere it may"
    assert f"“{words}”: the figure of what it names {within}" in " ".join(run.notes)
    assert sum("The figure is of the task’s own wording, not of these words" in note for note in run.notes) == 1
    assert f"Chest X-ray findings, Pneumonia: its figure {within}" in " ".join(run.notes)
    assert sum(ONE_SOURCE in note for note in run.notes) == 2, "the card's own task, and the prompt"
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.split("<article")[0].count(within) == 2, "the notes at the top of the report"
    rows = [row.split("</tr>")[0] for row in page.split("<article")[1].split("</article>")[0].split("<tr")[1:]]
    assert sum(ONE_SOURCE in row for row in rows) == 2
    assert not any(ONE_SOURCE in row for row in rows if "pacemaker" in row)
    (sent,), (fhir,) = (list((tmp_path / "sr" / form).iterdir()) for form in ("sr", "fhir-r4b"))
    assert sent.read_bytes().count(f"figure of the model's card: {ONE_SOURCE}".encode()) == 2
    assert fhir.read_text().count(f"The figure on the model's card holds {ONE_SOURCE}.") == 2


def test_classes_that_a_card_does_not_list_of_a_task_are_told_in_notes_report_and_card(
    pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    findings = {"classes": ["pneumonia", "effusion"]}
    own = make_pack(tmp_path / "pack", tasks={"modality": {"classes": ["xray"]}, "chest_xray_findings": findings})
    write_dicom(tmp_path / "1.dcm", 1)
    run = score(tmp_path / "1.dcm", tmp_path / "out", model=own, workers=1)
    (said,) = [note for note in run.notes if "not answered" in note]
    assert said.startswith("Chest X-ray findings: not answered: COVID-19, pulmonary oedema, ")
    assert "pneumonia" not in said.lower()
    assert "effusion" not in said.lower()
    words = said.removeprefix("Chest X-ray findings: ").removesuffix(".")
    study = (tmp_path / "out" / "report.html").read_text().split("<article")[1].split("</article>")[0]
    assert words in study
    assert main(["models", "show", str(own)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert f"chest_xray_findings: {words}." in printed
    assert "not answered" not in " ".join(score(tmp_path / "1.dcm", model=own, workers=1, prompt="edema").notes)

"""The tables of results say of an answer that it is grey, as the report does, however the run was made."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medclip import embed, score
from medclip.models.packs.card import Card, TaskCard, read_card
from medclip.models.packs.pack import update_pack
from medclip.models.packs.word_control import OtherWords, WordControl
from medclip.runs.outputs.score_run import read_run
from medclip.scoring.cautions import asked_words, none_notes, word_notes
from medclip.scoring.tasks import AskedTask
from medclip.statistics.estimate import Change, Figure
from medclip.text.vocabulary.load import load_task
from tests.kits.scoring import make_pack, write_dicom

EXAMPLES = Path(__file__).parents[2] / "examples" / "studies"
FIGURE = {"value": 0.8, "low": 0.7, "high": 0.9, "chance": 0.5, "num_patients": 40}
ONLY = "within its source only (nih_cxr)"


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack with a finding of one source, one that holds, and a task that nobody has measured."""
    folder = tmp_path_factory.mktemp("packs")
    pack = shutil.copytree(make_pack(folder / "tiny"), folder / "marked")
    card = read_card(pack)
    findings = TaskCard.model_validate(
        {
            "classes": ["pneumonia", "edema"],
            "metrics": {"auroc": {name: {"zero_shot": FIGURE} for name in ("pneumonia", "edema")}},
            "sources": {"pneumonia": {"verdict": "within its source only", "sources": ["nih_cxr"]}},
        }
    )
    view = TaskCard.model_validate({"classes": ["ap", "pa", "lateral"], "note": "Not measured after merging. Others."})
    tasks = {"chest_xray_findings": findings, "chest_xray_view": view}
    update_pack(pack, card=card.model_copy(update={"tasks": {**card.tasks, **tasks}}))
    return pack


def cautions(rows: list[dict[str, str | None]]) -> dict[str | None, str | None]:
    return {row["class"]: row["caution"] for row in rows}


def test_an_answer_within_its_source_only_and_one_that_nobody_measured_have_a_caution_in_the_table(
    marked: Path, tmp_path: Path
) -> None:
    film = write_dicom(tmp_path / "1.dcm", 1)
    run = score(film, tmp_path / "out", model=marked, workers=1, task=["chest_xray_findings", "chest_xray_view"])
    unmeasured = dict.fromkeys(("ap", "pa", "lateral"), "Not measured after merging")
    assert cautions(run.scores.to_pylist()) == {"pneumonia": ONLY, "edema": None, **unmeasured}
    shown = run._repr_html_().split("<table>")[2]
    assert shown.count("<th>caution</th>") == 1
    (grey,) = [line for line in shown.split("<tr") if ONLY in line]
    assert "color: #80868b" in grey
    assert grey.count(ONLY) == 1, "the column stands once, as the last"


def test_prompts_have_the_caution_of_what_they_name_and_the_reason_why_they_were_not_learned(
    marked: Path, tmp_path: Path
) -> None:
    film, asked = write_dicom(tmp_path / "1.dcm", 1), ["signs of pneumonia", "edema", "a pacemaker"]
    run = score(film, tmp_path / "out", model=marked, workers=1, prompt=asked)
    beside = cautions(run.scores.to_pylist())
    assert beside == {
        "signs of pneumonia": ONLY,
        "edema": None,
        "a pacemaker": "Not learned: it names nothing that the model’s card has a figure for",
    }
    stored = embed(film, tmp_path / "e", model=marked, workers=1)
    assert cautions(score(stored, model=marked, prompt=asked).scores.to_pylist()) == beside
    assert score(stored, tmp_path / "again", model=marked, prompt=asked).scores.equals(run.scores)


def test_the_same_bytes_with_more_workers_and_after_a_pause(marked: Path, tmp_path: Path) -> None:
    for n in range(3):
        write_dicom(tmp_path / "films" / f"{n}.dcm", n + 1)
    options = {"model": marked, "task": ["chest_xray_findings"]}
    one = score(tmp_path / "films", tmp_path / "one", workers=1, **options)
    two = score(tmp_path / "films", tmp_path / "two", workers=2, limit=1, **options)
    two = score(tmp_path / "films", tmp_path / "two", workers=2, **options)
    assert (one.folder / "scores.parquet").read_bytes() == (two.folder / "scores.parquet").read_bytes()
    assert ONLY in cautions(read_run(tmp_path / "two").scores.to_pylist()).values()


def test_of_two_kinds_in_a_run_the_rows_of_the_one_that_nobody_measured_say_so(tmp_path: Path) -> None:
    """The run as a whole has sheets as well, on which the task was measured: `run.unlearned` is empty."""
    ecgs = shutil.copytree(EXAMPLES / "ecg", tmp_path / "in")
    pixels = np.full((400, 600, 3), 240, np.uint8)
    pixels[200 + (60 * np.sin(np.arange(600) / 9)).astype(int), np.arange(600)] = 20
    Image.fromarray(pixels).save(ecgs / "sheet.png")
    run = score(ecgs, tmp_path / "out", modality="ecg", task="ecg_sheet", workers=1)
    of_kind = {"sheet.png" in row["files"]: row["caution"] for row in run.scores.to_pylist()}
    reason = "the model’s card has figures of this for ECG images, not for signals"
    assert of_kind == {True: None, False: f"Not learned: {reason}"}
    assert run.unlearned == ()
    assert f"Not learned: {reason}." in (tmp_path / "out" / "report.html").read_text()
    stored = embed(ecgs, tmp_path / "e", modality="ecg", workers=1)
    assert score(stored, tmp_path / "again", task="ecg_sheet").scores.equals(run.scores)


def control(low: float, high: float) -> WordControl:
    others = OtherWords(24, Figure(0.8), 0.85, "a red car", Change((low + high) / 2, low, high))
    return WordControl("auroc", 100, Figure(0.81), others, None)


def asked(task: str, *names: str) -> AskedTask:
    return AskedTask(load_task(task), names or None, None, listed=True)


BREAST = "breast_ultrasound_malignancy"
CARD = Card.model_validate(
    {
        "name": "a",
        "tasks": {
            "chest_xray_findings": TaskCard(
                classes=("pneumonia", "edema"),
                word_control={"pneumonia": control(-0.01, 0.01), "edema": control(0.1, 0.2)},
            ),
            BREAST: TaskCard(classes=("benign", "malignant"), word_control={"all": control(0.0, 0.02)}),
        },
    }
)
AS_WELL = (
    "unrelated words rank the images of the model’s card as well (AUROC 0.80, with its own 0.81): this is not an "
    "answer to this question; so it is listed as “abnormal against normal”."
)


@pytest.mark.parametrize(
    ("tasks", "modalities", "of"),
    [
        ([asked("chest_xray_findings", "pneumonia", "edema")], ["xray"], "Chest X-ray findings, Pneumonia"),
        ([asked("chest_xray_findings", "edema")], ["xray"], None),
        ([asked("chest_xray_findings", "pneumonia")], ["fundus"], None),
        ([asked_words(["signs of pneumonia"])], ["xray"], "“signs of pneumonia”"),
        ([asked_words(["a pacemaker"])], ["xray"], None),
        ([asked_words(["edema"])], ["xray"], None),
        ([asked(BREAST)], ["ultrasound", "xray"], load_task(BREAST).title),
        ([asked("modality")], ["xray"], None),
    ],
)
def test_a_run_says_of_which_questions_other_words_would_do_as_well(
    tasks: list[AskedTask], modalities: list[str], of: str | None
) -> None:
    of_task = AS_WELL.replace("abnormal against normal", "one answer against the other, whatever their words")
    expected = of_task if of == load_task(BREAST).title else AS_WELL
    assert word_notes(CARD, tasks, modalities) == (() if of is None else (f"{of}: {expected}",))


def test_the_note_on_other_words_stands_with_the_run_however_it_was_made(marked: Path, tmp_path: Path) -> None:
    pack = shutil.copytree(marked, tmp_path / "pack")
    card = read_card(pack)
    entry = card.tasks["chest_xray_findings"].model_copy(update={"word_control": {"pneumonia": control(-0.01, 0.01)}})
    tasks = {**card.tasks, "chest_xray_findings": entry}
    update_pack(pack, card=card.model_copy(update={"tasks": tasks}))
    film = write_dicom(tmp_path / "1.dcm", 1)
    run = score(film, tmp_path / "out", model=pack, workers=1, task="chest_xray_findings")
    note = f"Chest X-ray findings, Pneumonia: {AS_WELL}"
    assert run.notes.count(note) == 1
    assert note in (tmp_path / "out" / "report.html").read_text()
    stored = embed(film, tmp_path / "e", model=pack, workers=1)
    assert note in score(stored, tmp_path / "again", model=pack, task="chest_xray_findings").notes


def test_a_run_says_which_questions_have_no_answer_for_an_image_without_a_lesion() -> None:
    (note,) = none_notes([asked(BREAST), asked("modality")], ["ultrasound"])
    assert note.startswith(f"{load_task(BREAST).title}: asked only of images with a breast lesion")
    assert none_notes([asked(BREAST)], ["xray"]) == ()

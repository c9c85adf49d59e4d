"""A task whose figures are of CT and MR slices is not asked of radiographs, though the question makes sense there."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import medclip
from medclip.models.packs.pack import find_pack, pack_card, update_pack
from medclip.sample import Modality
from medclip.settings import Settings
from medclip.text.vocabulary.load import load_task
from tests.kits.results import in_folder

TASK = "body_region"
ELSEWHERE = "the model’s card has figures of this for CT and MRI images, not for X-ray"
STUDIES = Path(__file__).parents[2] / "examples" / "studies"


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """A film of the chest, and a CT slice."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("chest_portable.jpg", "abdomen_ct.png"):
        shutil.copy(STUDIES / name, folder / Path(name).name)
    return folder


def asked(result: Any) -> dict[str, set[str]]:
    """Tasks by modality."""
    tasks: dict[str, set[str]] = {}
    for row in result.scores.to_pylist():
        tasks.setdefault(row["modality"], set()).add(row["task"])
    return tasks


def test_the_built_in_pack_measured_body_regions_on_ct_and_mri_alone() -> None:
    assert Modality.XRAY in load_task(TASK).modalities
    assert pack_card().tasks[TASK].modalities == (Modality.CT, Modality.MRI)
    for name, entry in pack_card().tasks.items():
        assert set(entry.modalities) <= set(load_task(name).modalities), name


def test_a_film_is_not_asked_what_was_measured_on_slices_and_a_slice_is(films: Path, tmp_path: Path) -> None:
    settings = Settings(workers=1)
    result = medclip.score(films, out=tmp_path / "out", settings=settings)
    expected = {"xray": {"chest_xray_findings", "chest_xray_view"}, "ct": {TASK}}
    assert asked(result) == expected
    assert result.unlearned == (), "nothing is said of what nobody asked"
    medclip.embed(films, out=tmp_path / "vectors", settings=settings)
    assert asked(medclip.score(tmp_path / "vectors", out=tmp_path / "asked")) == expected
    explained = medclip.explain(films, settings=settings)
    assert {one.modality: {m.task for m in one.maps} for one in explained.units} == {
        "xray": {"chest_xray_findings"},
        "ct": {TASK},
    }


def test_who_names_the_task_has_it_asked_of_films_too_and_reads_that_nobody_measured_it_there(
    films: Path, tmp_path: Path
) -> None:
    result = medclip.score(films, out=tmp_path / "out", task=TASK, settings=Settings(workers=1))
    assert asked(result) == {"xray": {TASK}, "ct": {TASK}}
    assert [(one.modality, one.task, one.class_, one.reason) for one in result.unlearned] == [
        ("xray", TASK, None, ELSEWHERE)
    ]
    page = (tmp_path / "out" / "report.html").read_text()
    studies = page.split("<article")[1:]
    assert sorted(ELSEWHERE in study for study in studies) == [False, True]


WORDS = ("signs of pneumonia", "the thorax")


def test_words_for_what_was_measured_elsewhere_are_grey_with_the_reason_and_no_caution_of_that_figure(
    films: Path, tmp_path: Path
) -> None:
    result = medclip.score(
        films,
        out=tmp_path / "out",
        prompt=WORDS,
        settings=Settings(workers=1),
        export=in_folder(tmp_path / "fhir", "fhir-r4b"),
    )
    of_films = "the model’s card has figures of this for X-ray images, not for CT"
    expected = [("ct", "signs of pneumonia", of_films), ("xray", "the thorax", ELSEWHERE)]
    assert [(one.modality, one.class_, one.reason) for one in result.unlearned] == expected
    studies = (tmp_path / "out" / "report.html").read_text().split("<article")[1:]
    rows = [row.split("</tbody>")[0] for study in studies for row in study.split("</article>")[0].split("<tbody")[1:]]
    grey = [row for row in rows if "unlearned" in row.partition(">")[0]]
    assert sorted(next(why for why in (of_films, ELSEWHERE) if why in row) for row in grey) == [ELSEWHERE, of_films]
    caution = pack_card().tasks["chest_xray_findings"].sources["pneumonia"].caution
    assert caution
    assert [caution in row for row in grey] == [False, False]
    assert sum(caution in row for row in rows) == 1, "of the film"
    sent = [file.read_text() for file in (tmp_path / "fhir" / "fhir-r4b").iterdir()]
    assert sorted((of_films in text, caution in text) for text in sent) == [(False, True), (True, False)]
    medclip.embed(films, out=tmp_path / "vectors", settings=Settings(workers=1))
    assert medclip.score(tmp_path / "vectors", prompt=WORDS).unlearned == result.unlearned
    explained = medclip.explain(films, prompt=WORDS, settings=Settings(workers=1))
    beside = {(unit.modality, heat.name): heat.caution for unit in explained for heat in unit.maps}
    assert beside == {(row["modality"], row["class"]): row["caution"] or "" for row in result.scores.to_pylist()}
    assert [beside[modality, words] for modality, words, _ in expected] == [
        f"Not learned: {why}" for *_, why in expected
    ]


def test_a_folder_of_slices_alone_has_no_note_that_pneumonia_may_tell_the_place(films: Path, tmp_path: Path) -> None:
    only = medclip.score(films / "abdomen_ct.png", prompt="signs of pneumonia", settings=Settings(workers=1))
    assert not [note for note in only.notes if "tell the place" in note]
    both = medclip.score(films, prompt="signs of pneumonia", settings=Settings(workers=1))
    assert sum("tell the place" in note for note in both.notes) == 1


def test_a_film_is_skipped_with_the_reason_where_nothing_was_measured_on_films(films: Path, tmp_path: Path) -> None:
    pack = shutil.copytree(find_pack("medclip-mini"), tmp_path / "slices")
    card = pack_card(pack)
    tasks = {name: card.tasks[name] for name in (TASK, "modality")}
    update_pack(pack, card=card.model_copy(update={"tasks": tasks}))
    result = medclip.score(films, model=pack, settings=Settings(workers=1))
    rows = {row["path"]: row for row in result.files.to_pylist()}
    film = rows["chest_portable.jpg"]
    assert (rows["abdomen_ct.png"]["status"], film["status"], film["reason"]) == ("scored", "skipped", "no_task")
    assert (
        f"No task of the model's card was measured on X-ray images; --task asks one all the same ({TASK})"
        in (film["message"])
    )

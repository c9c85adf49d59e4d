"""A task that holds within its source only is listed as that, and says so wherever it is answered."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import get_args

import pytest
from pydantic import ValidationError

from medclip import embed, score
from medclip.models.packs.card import Card, TaskCard, read_card
from medclip.models.packs.card_sources import (
    SourceFigures,
    Verdict,
    caution_of,
    remark_of,
    source_sentences,
    within_figures,
)
from medclip.models.packs.pack import update_pack
from medclip.reports.model_card import view_card
from medclip.statistics.metrics.by_source import HOLDS, NOT_TESTABLE, WITHIN_ONLY
from tests.kits.scoring import make_pack, write_dicom, write_png

FIGURE = {"value": 0.18, "low": 0.04, "high": 0.57, "chance": 0.5, "num_positive": 94, "num_negative": 5}
WITHIN = {
    "verdict": WITHIN_ONLY,
    "sources": ["nih_cxr"],
    "figures": {"positives of nih_cxr, negatives of covid_cxr": FIGURE | {"num_patients": 76}},
}


def test_the_verdicts_of_a_card_are_those_that_are_measured() -> None:
    assert get_args(Verdict) == (HOLDS, WITHIN_ONLY, NOT_TESTABLE)


def test_only_a_task_that_fails_across_sources_needs_a_caution() -> None:
    one = SourceFigures.model_validate(WITHIN)
    two = SourceFigures(verdict="within its source only", sources=("bus_bra", "breast_us"))
    holds = SourceFigures(verdict="holds across sources", sources=("bus_bra", "breast_us"))
    assert one.caution == "within its source only (nih_cxr)"
    assert two.caution == "within its sources only (bus_bra and breast_us)"
    assert holds.caution == ""
    assert caution_of({"pneumonia": one}, "pneumonia") == one.caution
    assert caution_of({"pneumonia": one}, "edema") == ""
    assert caution_of({"all": two}, "malignant") == two.caution


def test_a_task_of_one_source_has_a_remark_and_one_that_was_tested_across_has_none() -> None:
    one = SourceFigures(verdict="not testable across sources", sources=("csdi_fundus",))
    figures = {"within ptbxl": FIGURE, "within sources": FIGURE, "within ptbxl_z": FIGURE}
    partly = SourceFigures(verdict="not testable across sources", sources=("ptbxl_z",), figures=figures)
    many = SourceFigures(verdict="not testable across sources", sources=tuple("abcdefg"))
    assert remark_of({"cataract": one}, "cataract") == "measured at one source (csdi_fundus)"
    assert remark_of({"all": one}, "any") == one.remark
    assert partly.remark == "not testable across its sources (ptbxl and ptbxl_z)", "it was measured at both"
    assert many.remark == "not testable across its sources (7 sets)"
    assert SourceFigures.model_validate(WITHIN).remark == "", "it has a caution"
    assert SourceFigures(verdict="holds across sources", sources=("a", "b")).remark == ""


def test_figures_within_the_sources_of_a_caution_are_those_of_the_card() -> None:
    two = {"verdict": WITHIN_ONLY, "sources": ["a", "b"], "figures": {"within a": FIGURE, "within c": FIGURE}}
    sources = {"pneumonia": SourceFigures.model_validate(two)}
    alone = FIGURE | {"value": 0.7}
    metrics = {"auroc": {"pneumonia": {"zero_shot": FIGURE, "zero_shot_b_only": alone}}}
    named = [(one.source, one.metric, one.figure["value"]) for one in within_figures(metrics, sources, "pneumonia")]
    assert named == [("a", "auroc", 0.18), ("b", "auroc", 0.7)]
    assert within_figures(metrics, sources, "edema") == ()
    holds = {"pneumonia": SourceFigures.model_validate(two | {"verdict": HOLDS})}
    assert within_figures(metrics, holds, "pneumonia") == ()


def test_a_sentence_is_written_of_the_classes_that_were_asked() -> None:
    sources = {"pneumonia": SourceFigures.model_validate(WITHIN)}
    (sentence,) = source_sentences("Chest X-ray findings", sources, ["pneumonia"])
    assert sentence.startswith("Chest X-ray findings, pneumonia: its figure holds within its source only (nih_cxr)")
    assert list(source_sentences("Chest X-ray findings", sources, ["edema"])) == []


def test_classes_that_hold_within_the_same_sources_share_a_sentence() -> None:
    one = SourceFigures.model_validate(WITHIN)
    two = SourceFigures(verdict="within its source only", sources=("bus_bra", "breast_us"))
    said = list(source_sentences("Findings", {"edema": one, "mass": two, "fluid": one}, ["edema", "mass", "fluid"]))
    assert said[0].startswith(
        "Findings, edema and fluid: figures hold within their source only (nih_cxr). Elsewhere they may tell the place"
    )
    (named,) = source_sentences("Rhythm", {"sr": one}, ["sr"], {"sr": "Sinus rhythm"})
    assert named.startswith("Rhythm, Sinus rhythm: its figure holds")
    assert said[1].startswith(
        "Findings, mass: its figure holds within its sources only (bus_bra and breast_us). Elsewhere it may"
    )


def test_a_sentence_has_the_figure_within_the_source_with_its_interval_and_patients() -> None:
    within = {"value": 0.861, "low": 0.78, "high": 0.92, "num_patients": 118}
    edema = within | {"value": 0.7, "low": 0.6, "high": 0.8}
    one = SourceFigures(verdict=WITHIN_ONLY, sources=("nih_cxr",), figures={"within nih_cxr": within})
    two = SourceFigures(verdict=WITHIN_ONLY, sources=("nih_cxr",), figures={"within nih_cxr": edema})
    metrics = {"auroc": {"pneumonia": {"zero_shot": FIGURE}}}
    (alone,) = source_sentences("Findings", {"pneumonia": one}, ["pneumonia"], metrics=metrics)
    assert alone == (
        "Findings, pneumonia: its figure holds within its source only (nih_cxr): AUROC 0.86 (0.78 to 0.92) within "
        "nih_cxr, 118 patients. Elsewhere it may tell the place, not the patient."
    )
    (both,) = source_sentences("Findings", {"pneumonia": one, "edema": two}, ["pneumonia", "edema"], metrics=metrics)
    assert "(nih_cxr): pneumonia AUROC 0.86 (0.78 to 0.92) within nih_cxr, 118 patients; edema AUROC 0.70" in both
    many = dict.fromkeys("abcdef", one)
    (some,) = source_sentences("Findings", many, many, metrics=metrics)
    assert some.count("AUROC") == 4
    assert "; those of 2 more are on the model’s card. Elsewhere they" in some


def test_chance_stands_beside_a_figure_within_a_source_where_it_is_not_half_an_area() -> None:
    figure = {"value": 0.53, "low": 0.46, "high": 0.6, "chance": 0.3333, "num_patients": 57}
    metrics = {"balanced_accuracy": {"zero_shot": FIGURE, "zero_shot_cdd_cesm_only": figure}}
    only = SourceFigures(verdict=WITHIN_ONLY, sources=("cdd_cesm",))
    (sentence,) = source_sentences("Mammograms", {"all": only}, ["benign"], metrics=metrics)
    assert "balanced accuracy 0.53 (0.46 to 0.60; chance 0.33) within cdd_cesm, 57 patients." in sentence
    area = SourceFigures(verdict=WITHIN_ONLY, sources=("nih_cxr",), figures={"within nih_cxr": FIGURE})
    (of_area,) = source_sentences("Films", {"edema": area}, ["edema"], metrics={"auroc": {"edema": {}}})
    assert "AUROC 0.18 (0.04 to 0.57) within nih_cxr" in of_area
    assert "chance" not in of_area


def test_two_parts_of_one_origin_have_no_figure_across_them_and_are_both_named() -> None:
    of = ("within ptbxl", "within ptbxl_z", "within sources", "source alone")
    across = ("across sources", "positives of ptbxl, negatives of ptbxl_z")
    figures = dict.fromkeys((*of, *across), FIGURE)
    parts = SourceFigures(verdict=NOT_TESTABLE, sources=("ptbxl_z",), figures=figures)
    assert parts.in_words == "not testable across sources (ptbxl and ptbxl_z)"
    entry = {"classes": ["cd"], "sources": {"cd": parts}}
    (((_, verdict, figures),),) = (
        task.across for task in view_card(Card.model_validate({"name": "t", "tasks": {"e": entry}})).tasks
    )
    assert (verdict, tuple(one.name for one in figures)) == (parts.in_words, of)
    holds = parts.model_copy(update={"verdict": HOLDS})
    assert (holds.in_words, set(holds.printed)) == ("holds across sources (ptbxl_z)", {*of, *across})


@pytest.mark.parametrize(
    "sources",
    [
        {"edema": WITHIN},
        {"pneumonia": WITHIN | {"verdict": "fine"}},
        {"pneumonia": WITHIN | {"sources": []}},
        {"pneumonia": WITHIN | {"figures": {"pooled": {"low": 0.1}}}},
        {"pneumonia": WITHIN | {"figures": {"pooled": {"value": "high"}}}},
    ],
)
def test_sources_of_another_class_and_figures_that_are_none_are_refused(sources: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TaskCard.model_validate({"classes": ["pneumonia"], "sources": sources})


def test_nobody_is_counted_as_a_patient_of_whom_nobody_knows_whose_images_they_are() -> None:
    figure = {"value": 0.9, "low": 0.8, "high": 0.95, "chance": 0.25, "num_rows": 168, "num_patients": None}
    tasks = {"brain_mri_tumour": {"classes": ["glioma"], "metrics": {"balanced_accuracy": {"zero_shot": figure}}}}
    card = Card.model_validate({"name": "t", "tasks": tasks})
    ((metric,),) = (task.metrics for task in view_card(card).tasks)
    assert (metric.images, metric.patients) == ("168", "unknown")


def test_a_run_names_it_beside_the_number_and_in_its_notes(tmp_path: Path) -> None:
    pack = shutil.copytree(make_pack(tmp_path / "tiny"), tmp_path / "within")
    card = read_card(pack)
    task = TaskCard.model_validate({"classes": ["pneumonia", "edema"], "sources": {"pneumonia": WITHIN}})
    update_pack(pack, card=card.model_copy(update={"tasks": {**card.tasks, "chest_xray_findings": task}}))
    film = write_dicom(tmp_path / "1.dcm", 1)
    run = score(film, tmp_path / "out", model=pack, workers=1, task="chest_xray_findings")
    (note,) = [note for note in run.notes if "within its source only (nih_cxr)" in note]
    assert note in json.loads((tmp_path / "out" / "run.json").read_text())["notes"]
    embedded = embed(film, tmp_path / "embedded", model=pack, workers=1)
    assert note in score(embedded, model=pack, task="chest_xray_findings").notes
    photograph = write_png(tmp_path / "eye.png", 2)
    assert note not in score(photograph, model=pack, workers=1, modality="fundus").notes, "it was not asked of an eye"
    page = (tmp_path / "out" / "report.html").read_text()
    study = page.split("<article")[1].split("</article>")[0]
    rows = {row.split("</tbody>")[0] for row in study.split("<tbody")[1:]}
    (pneumonia,) = [row for row in rows if "Pneumonia" in row]
    (edema,) = [row for row in rows if "dema" in row]
    assert "within its source only (nih_cxr)" in pneumonia
    assert "within its source" not in edema
    assert pneumonia.startswith(' class="quiet"')
    assert edema.startswith(' class="quiet"'), "the card has no figure of either"
    model = page.split('<section id="model">')[1]
    assert "positives of nih_cxr, negatives of covid_cxr 0.18 (0.04" in model


def test_of_one_answer_among_several_it_stands_once_below_them(tmp_path: Path) -> None:
    pack = make_pack(tmp_path / "tiny")
    card = read_card(pack)
    two = {"verdict": WITHIN_ONLY, "sources": ["here", "there"]}
    view = TaskCard.model_validate({"classes": ["ap", "pa", "lateral"], "sources": {"all": two}})
    update_pack(pack, card=card.model_copy(update={"tasks": {**card.tasks, "chest_xray_view": view}}))
    score(write_dicom(tmp_path / "1.dcm", 1), tmp_path / "out", model=pack, workers=1, task="chest_xray_view")
    study = (tmp_path / "out" / "report.html").read_text().split("<article")[1].split("</article>")[0]
    assert study.count("within its sources only (here and there)") == 1
    below = study.split("</table>")[-1]
    assert "within its sources only (here and there) · no figures" in below

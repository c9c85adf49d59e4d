"""What README and docs say of the built-in pack is written from its card, and nobody copies a number by hand."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from medclip.models.packs.card import Card, TaskCard
from medclip.statistics.metrics.by_source import HOLDS, NOT_TESTABLE, WITHIN_ONLY
from tests.kits.stages import load_stage

FOLDER = Path(__file__).parents[2] / "pipelines" / "mini"
FIGURE = {"value": 0.8, "low": 0.7, "high": 0.9, "chance": 0.5, "num_patients": 40, "num_images": 50}
NEAR, FAR = "positives of covid_cxr, negatives of nih_cxr", "positives of nih_cxr, negatives of covid_cxr"


@pytest.fixture(scope="module")
def passages() -> ModuleType:
    return load_stage(FOLDER, "passages")


def chest(verdict: str, sources: list[str], directions: dict[str, Any], note: str = "") -> Card:
    """Return a card with a figure for pneumonia."""
    by_source = {"verdict": verdict, "sources": sources, "figures": directions}
    findings = TaskCard.model_validate(
        {
            "classes": ["pneumonia"],
            "metrics": {"auroc": {"pneumonia": {"zero_shot": FIGURE}}},
            "sources": {"pneumonia": by_source},
            "note": note,
        }
    )
    data = [
        {"name": "nih_cxr", "licence": licence, "num_images": number} for licence, number in (("a", 1000), ("b", 200))
    ]
    fields = {"name": "t", "version": "9", "modalities": ["xray"], "data": data}
    return Card.model_validate(fields | {"tasks": {"chest_xray_findings": findings}})


def test_every_passage_in_readme_and_docs_is_what_the_card_says_today(passages: ModuleType) -> None:
    pack = passages.read_pack()
    places = {page.name: page.read_text(encoding="utf-8") for page in passages.pages()}
    assert len(places) >= 4
    used = {match["name"] for text in places.values() for match in passages.PASSAGE.finditer(text)}
    assert used == set(passages.PASSAGES), "a passage that stands nowhere, or a place that no passage fills"
    for name, text in places.items():
        width = passages.WIDTHS.get(name, passages.WIDTH)
        assert passages.written(text, pack, width) == text, f"{name}: run python pipelines/mini/passages.py"


def test_a_passage_that_is_no_longer_true_is_written_anew_and_its_surroundings_stay(passages: ModuleType) -> None:
    pack = passages.Pack(chest(NOT_TESTABLE, ["nih_cxr"], {}), frozenset({"xray"}), ("xray",))
    text = "Before.\n- <!-- card: limits -->Trained on two images.<!-- /card -->\n- After.\n"
    page = passages.written(text, pack, 100)
    assert page.startswith("Before.\n- <!-- card: limits -->**The built-in model is small**")
    assert page.endswith("<!-- /card -->\n- After.\n")
    assert "1,200 public images of 1 set." in " ".join(page.split())
    assert "two images" not in page
    assert all(len(line) <= 100 + len("<!-- /card -->") for line in page.splitlines())
    assert all(line.startswith(("- ", "  ", "Before.")) for line in page.splitlines()), "lines of a list stay in it"
    assert passages.written(page, pack, 100) == page


@pytest.mark.parametrize(
    ("verdict", "sources", "says"),
    [
        (HOLDS, ["nih_cxr", "covid_cxr"], "pneumonia holds across sources (NIH ChestX-ray14 and the COVID-19"),
        (WITHIN_ONLY, ["nih_cxr"], "within its source only (NIH ChestX-ray14), and it does not apply to films"),
        (NOT_TESTABLE, ["nih_cxr"], "is of one source (NIH ChestX-ray14), and it does not apply to films"),
    ],
)
def test_what_is_said_of_pneumonia_follows_the_verdict(
    passages: ModuleType, verdict: str, sources: list[str], says: str
) -> None:
    text = passages.pneumonia(chest(verdict, sources, {}))
    assert says in text
    assert ("does not apply" in text) == (verdict != HOLDS)


def test_of_two_directions_across_sources_the_worse_one_is_told(passages: ModuleType) -> None:
    worse = FIGURE | {"value": 0.4, "low": 0.2, "high": 0.6}
    text = passages.elsewhere(chest(WITHIN_ONLY, ["nih_cxr"], {NEAR: FIGURE, "pooled": FIGURE, FAR: worse}))
    assert text == (
        "Between films with pneumonia of NIH ChestX-ray14 and films without of the COVID-19 image collection the AUROC "
        "was 0.40 (0.20 to 0.60)."
    )
    note = "A figure. On films of three other sites 26 of 29 normal ones were called pneumonia, and it was 0.24. More."
    assert passages.elsewhere(chest(WITHIN_ONLY, ["nih_cxr"], {FAR: worse}, note)).endswith("and it was 0.24.")


def test_a_card_without_findings_of_the_chest_says_so(passages: ModuleType) -> None:
    pack = passages.Pack(Card(name="t"), frozenset(), ())
    assert "none is on the card" in passages.pneumonia(pack.card)
    assert passages.answered(pack) == "The built-in model answers no finding of chest films."


def test_kinds_that_the_pack_was_trained_on_are_not_among_those_that_it_does_not_score(passages: ModuleType) -> None:
    card = chest(NOT_TESTABLE, ["nih_cxr"], {})
    for slots, lacking in (
        ({"xray"}, "volumes, loops, slides and ECG records"),
        ({"xray", "ecg:signal"}, "volumes, loops and slides"),
        ({"xray", "ecg:signal", "ultrasound:cine", "pathology:slide"}, "volumes"),
    ):
        pack = passages.Pack(card, frozenset(slots), ())
        assert f"does not score {lacking}.**" in passages.what_is_not_scored(pack)
        assert f"does not score {lacking}." in passages.which_kinds(pack)
        assert ("cuttings" in passages.what_is_not_scored(pack)) == ("ecg:signal" in slots)


def test_the_table_of_figures_has_a_row_for_each_question_with_chance_and_verdict(passages: ModuleType) -> None:
    pack = passages.Pack(chest(WITHIN_ONLY, ["nih_cxr"], {}), frozenset({"xray"}), ())
    row = passages.figures(pack).strip().splitlines()[-1]
    assert row == (
        "| Chest X-ray findings: pneumonia | AUROC 0.80 (0.70 to 0.90) | 0.50 | 40 patients | within its source only "
        "(nih_cxr) |"
    )
    within = {"within nih_cxr": FIGURE | {"value": 0.86, "num_patients": 118}}
    row = passages.figures(passages.Pack(chest(WITHIN_ONLY, ["nih_cxr"], within), frozenset(), ())).strip()
    assert row.splitlines()[-1] == (
        "| Chest X-ray findings: pneumonia | AUROC 0.86 (0.70 to 0.90) within nih_cxr | 0.50 | 118 patients | within "
        "its source only (nih_cxr) |"
    ), "the figure of the source that is named, and not the one over all"
    many = passages.Pack(chest(NOT_TESTABLE, [f"set{n}" for n in range(9)], {}), frozenset({"xray"}), ())
    assert passages.figures(many).strip().endswith("| not testable across sources (9 sets) |")


@pytest.mark.parametrize(
    ("title", "within"),
    [("Pneumonia", "pneumonia"), ("COVID-19", "COVID-19"), ("Normal ECG", "normal ECG"), ("ST-T changes",) * 2],
)
def test_a_title_within_a_sentence_keeps_its_abbreviations(passages: ModuleType, title: str, within: str) -> None:
    assert passages.in_a_sentence(title) == within

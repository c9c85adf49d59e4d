"""The card follows its form, and says which field does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from medclip.errors import MedclipError, Reason
from medclip.models.packs.card import Card, read_card

FULL = {
    "name": "m",
    "tasks": {
        "modality": {
            "classes": ["xray", "mri"],
            "metrics": {"balanced_accuracy": {"zero_shot": {"value": 0.9, "low": 0.8, "high": 1.0, "num_patients": 9}}},
            "calibration": {"scale": 2.0, "bias": {}},
            "counts": {"xray": 3},
        }
    },
    "data": [{"name": "nih", "licence": "citation"}],
}


def test_a_card_survives_writing_and_reading(tmp_path: Path) -> None:
    card = Card.model_validate(FULL)
    (tmp_path / "card.json").write_text(card.to_json())
    assert read_card(tmp_path) == card
    assert card.tasks["modality"].metrics["balanced_accuracy"]["zero_shot"]["num_patients"] == 9


def test_what_was_tried_and_is_not_claimed_is_read_with_its_figure_and_a_card_without_it_claims_nothing_of_that(
    tmp_path: Path,
) -> None:
    tried = {"metric": "auroc", "value": 0.454, "low": 0.3, "high": 0.62, "chance": 0.5, "num_patients": None}
    left = {"ecg_superclass": {"mi": tried | {"why": "not told from chance"}}}
    (tmp_path / "card.json").write_text(json.dumps(FULL | {"not_claimed": left}))
    card = read_card(tmp_path)
    one = card.not_claimed["ecg_superclass"]["mi"]
    assert one.in_words == "AUROC 0.45 (0.30 to 0.62), chance 0.50; not told from chance, so not claimed"
    assert one.num_patients is None
    assert Card.model_validate_json(card.to_json()) == card
    assert Card.model_validate(FULL).not_claimed == {}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"not_claimed": {"t": {"a": {"metric": "auroc", "value": 0.5}}}}, "not_claimed.t.a.why"),
        ({"nmae": "x"}, "nmae"),
        ({"name": ""}, "name"),
        ({"tasks": {"t": {"classes": []}}}, "tasks.t.classes"),
        ({"tasks": {"t": {"classes": ["a"], "metrics": {"auroc": 0.9}}}}, "auroc"),
        ({"tasks": {"t": {"classes": ["a"], "metrics": {"auroc": {"value": "high"}}}}}, "tasks.t"),
        ({"data": [{"name": "x"}]}, "data.0.licence"),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, change: dict[str, object], field: str) -> None:
    (tmp_path / "card.json").write_text(json.dumps(FULL | change))
    with pytest.raises(MedclipError) as caught:
        read_card(tmp_path)
    assert caught.value.reason is Reason.PACK_INVALID
    assert field in str(caught.value)


def test_a_threshold_is_a_number_or_says_where_it_comes_from_and_is_of_a_class_of_its_task() -> None:
    known = {"value": 0.62, "policy": "sensitivity=0.9", "chosen_on": "site A"}
    card = Card.model_validate(
        {"name": "t", "tasks": {"x": {"classes": ["a", "b"], "thresholds": {"a": 0.5, "b": known}}}}
    )
    a, b = (card.tasks["x"].thresholds[name] for name in "ab")
    assert (a.value, a.in_words()) == (0.5, "threshold 0.5 of the model card")
    assert b.in_words() == "threshold 0.62 of the model card, chosen by sensitivity=0.9 on site A"
    assert Card.model_validate_json(card.to_json()) == card
    for wrong in ({"c": 0.5}, {"a": 1.5}, {"a": "high"}):
        with pytest.raises(ValidationError):
            Card.model_validate({"name": "t", "tasks": {"x": {"classes": ["a"], "thresholds": wrong}}})

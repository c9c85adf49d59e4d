"""The word control of a card: what a run says of it, and that it is read back as it was written."""

from __future__ import annotations

import pytest

from medclip.models.packs.card import Card, TaskCard
from medclip.models.packs.word_control import OtherWords, WordControl
from medclip.statistics.estimate import Change, Figure


def control(low: float, high: float) -> WordControl:
    others = OtherWords(24, Figure(0.8), 0.85, "a red car", Change((low + high) / 2, low, high))
    return WordControl("auroc", 100, Figure(0.81, 0.7, 0.9), others, None)


@pytest.mark.parametrize(("low", "high", "is_said"), [(-0.01, 0.02, True), (-0.1, 0.2, False), (0.1, 0.2, False)])
def test_a_run_says_it_only_where_other_words_do_as_well(low: float, high: float, is_said: bool):
    assert control(low, high).on_card.startswith("unrelated words rank") is is_said


def test_a_card_keeps_it():
    card = Card(name="a", tasks={"x": TaskCard(classes=("y",), word_control={"y": control(0.1, 0.2)})})
    assert Card.model_validate_json(card.to_json()) == card


def test_a_control_of_no_class_of_the_task_is_refused():
    with pytest.raises(ValueError, match="word control of 'z'"):
        TaskCard(classes=("y",), word_control={"z": control(0.1, 0.2)})

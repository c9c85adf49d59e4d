"""Phrases of contexts and their combinations."""

from __future__ import annotations

import pytest

from medclip.text.vocabulary.prompts import CONTEXTS, UNKNOWN, combinations, completed

VIEW = {"": ("",), "frontal": ("frontal view",)}
DEVICE = {"": ("",), "tube": ("with a tube", "with a catheter")}


def test_two_attributes_of_two_values_are_four_contexts():
    combined = combinations([VIEW, DEVICE])
    assert len(combined) == 4
    assert [completed("a chest x-ray of edema", p) for p in combined["", ""]] == ["a chest x-ray of edema."]
    assert [completed("edema", p) for p in combined["frontal", "tube"]] == [
        "edema, frontal view, with a tube.",
        "edema, frontal view, with a catheter.",
    ]


@pytest.mark.parametrize("modality", CONTEXTS)
def test_every_attribute_may_be_unknown(modality):
    for attribute in CONTEXTS[modality].values():
        assert attribute[UNKNOWN] == ("",)
        assert len(attribute) >= 2
        assert all(phrase for value, phrases in attribute.items() if value for phrase in phrases)

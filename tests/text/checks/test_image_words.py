"""Words that name an image are told from words that name what is found in it."""

from __future__ import annotations

import pytest

from medclip.text.checks.closed_words import image_classes


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("an ECG", {("modality", "ecg")}),
        ("a picture of a brain MRI", {("modality", "mri"), ("body_region", "head")}),
        ("an axial CT slice of the abdomen", {("modality", "ct"), ("body_region", "abdomen")}),
        ("a colour fundus photograph of the retina", {("modality", "fundus")}),
    ],
)
def test_an_image_is_named_by_its_modality_and_body_region(text: str, pairs: set[tuple[str, str]]) -> None:
    assert image_classes([text]) == pairs


@pytest.mark.parametrize("text", ["a spaceship", "a brain MRI with a glioma", "a chest X-ray with an enlarged heart"])
def test_words_that_name_anything_beside_the_image_name_no_image(text: str) -> None:
    assert image_classes([text]) == frozenset()


def test_one_wording_that_names_something_else_is_enough() -> None:
    assert image_classes(["a brain MRI", "a brain MRI with a mass"]) == frozenset()

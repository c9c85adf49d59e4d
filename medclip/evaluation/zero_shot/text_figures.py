"""Images of one source and its own words, looked for by each other: R@1, 5 and 10 both ways, beside chance and card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.evaluation.label_retrieval import recall_figures
from medclip.wording import estimate, number

RETRIEVAL = "retrieval"
MIN_TEXTS = 20
"""Different texts of a source below which nothing is looked for among them."""


def retrieval_name(source: str) -> str:
    """Return how a card names the retrieval of a source among the figures of its test split."""
    return f"{RETRIEVAL}, {source}"


@dataclass(frozen=True)
class TextFigures:
    """One source."""

    id: str
    source: str
    num_images: int
    num_texts: int
    """Different ones."""
    num_patients: int | None
    """None where the set does not know its patients."""
    problems: Mapping[str, int]
    """Images that could not be read, by reason."""
    figures: Mapping[str, Mapping[str, Any]]
    """R@k by way, as cards have figures: "text_to_image_r5". Empty where there are fewer texts than `MIN_TEXTS`."""
    on_card: Mapping[str, Mapping[str, Any]]
    """The same on the pack's card; empty where it has none."""
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


def texts_measured(
    images_ND: NDArray[np.float32],
    texts: Sequence[str],
    patients: Sequence[Any],
    model: Any,
    *,
    knows_patients: bool,
    num_resamples: int,
) -> dict[str, dict[str, Any]]:
    """Measure retrieval among the images and texts of one source, as cards have figures.

    Args:
        images_ND: Vectors of images, float32 [N, D] of unit norm.
        texts: Text of each image; equal ones are right answers of each other.
        patients: Patient of each image, or what stands for that.
        model: Model whose text tower is asked.
        knows_patients: Whether `patients` names patients: else none are counted.
        num_resamples: Number of resamples of patients.

    Returns:
        R@k by way; empty where there are fewer different texts than `MIN_TEXTS`.
    """
    keys = [text.strip().lower() for text in texts]
    if len(set(keys)) < MIN_TEXTS:
        return {}
    return recall_figures(
        images_ND,
        model.encode_text(list(texts)),
        keys,
        patients,
        knows_patients=knows_patients,
        num_resamples=num_resamples,
    )


def text_lines(texts: Sequence[TextFigures]) -> Iterator[str]:
    """Yield a table of what is looked for in which source, each figure beside chance and the card."""
    width = max(len(one.source) for one in texts)
    head = f"{'texts of':{width}}{'images':>8}{'patients':>10}{'recall':>19}{'measured':>24}{'chance':>8}"
    yield f"{head}{'on the card':>24}"
    for one in texts:
        patients = "unknown" if one.num_patients is None else number(one.num_patients)
        if not one.figures:
            few = f"{one.num_texts} different texts; {MIN_TEXTS} are needed."
            yield f"{one.source:{width}}{one.num_images:>8}{patients:>10}  {few}"
        for name, figure in one.figures.items():
            card = one.on_card.get(name)
            on_card = "not listed" if card is None else estimate(card["value"], card.get("low"), card.get("high"))
            measured = estimate(figure["value"], figure["low"], figure["high"])
            yield (
                f"{one.source:{width}}{one.num_images:>8}{patients:>10}{name.replace('_', ' '):>19}{measured:>24}"
                f"{figure['chance']:>8.3f}{on_card:>24}"
            )
        if one.note:
            yield f"  {one.note}"

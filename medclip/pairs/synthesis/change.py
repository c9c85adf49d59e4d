"""Generator `change`: changes of an image that its words stay true of, and synonyms in the words.

The image is bent (elastic), turned by a few degrees, shaded (bias field), made lighter or darker (gamma) and noisier by
MONAI's transforms, each of which draws from the seed of the sample alone. Nothing is mirrored: a word may name a side.
In the words a noun of the shipped vocabulary becomes another noun of the same finding, only where it stands alone in a
sentence, so that "an enlarged heart" becomes "cardiomegaly" and "left pleural effusion" stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from medclip.pairs.synthesis.generators import Generate, GeneratorSettings, Source, Synthetic
from medclip.pairs.words.reports.report_cleaning import tasks_of
from medclip.text.vocabulary.load import load_task
from medclip.text.vocabulary.prompts import without_article

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

_BEFORE = r"(?:^|(?<=[.!?,;:]\s)|\b(?P<lead>and|or|with|without|no|shows|showing|demonstrates)\s+)"
_AFTER = r"(?=\s*(?:[.,;!?]|$)|\s+(?:and|or|with|without)\b)"


class ChangeSettings(GeneratorSettings):
    """How far an image is changed; 0 leaves a change out."""

    elastic: float = Field(default=0.005, ge=0, le=0.05)
    """Most of the shift of a point of the grid, as a share of the longer side."""
    degrees: float = Field(default=5.0, ge=0, le=15)
    """Most of the turn to either side."""
    bias: float = Field(default=0.15, ge=0, le=0.5)
    """Largest coefficient of the field of shading."""
    gamma: float = Field(default=0.2, ge=0, le=0.5)
    """Gamma is between 1 minus this and 1 plus this."""
    noise: float = Field(default=0.015, ge=0, le=0.1)
    """Largest standard deviation of normal noise, of the whole range of values."""
    synonyms: bool = True


def prepare(settings: ChangeSettings, sources: Sequence[Source], folder: Path) -> Generate:
    """Return what changes one pair."""

    def generate(source: Source, rng: Generator) -> Synthetic | str:
        image, parameters = changed_image(source.read_image(), settings, rng)
        record, swaps = replace(source.record, edit_pairs=(), regions=()), []
        if settings.synonyms:
            texts = [swapped(text, source.modality, rng) for text in record.texts]
            swaps = [swap for _, swaps_of_text in texts for swap in swaps_of_text]
            record = replace(record, texts=tuple(text for text, _ in texts))
        return Synthetic(image, record, source.key, parameters | {"words": swaps})

    return generate


def changed_image(
    image: NDArray[np.uint8], settings: ChangeSettings, rng: Generator
) -> tuple[NDArray[np.uint8], dict[str, Any]]:
    """Change an image; the same draws give the same pixels.

    Args:
        image: uint8 [H, W, 3].
        settings: Limits of the changes.
        rng: Source of all that is drawn.

    Returns:
        The image, of the same size, and what was drawn.
    """
    import torch
    from monai.transforms.intensity.array import AdjustContrast, RandBiasField, RandGaussianNoise
    from monai.transforms.spatial.array import Rand2DElastic, Rotate

    seeds = rng.integers(2**31, size=3).tolist()
    gamma = float(rng.uniform(1 - settings.gamma, 1 + settings.gamma))
    degrees = float(rng.uniform(-settings.degrees, settings.degrees))
    side = max(image.shape[:2])
    x_CHW: Any = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float() / 255
    space: Any = {"mode": "bilinear", "padding_mode": "border"}
    if settings.elastic:
        spacing = (max(side // 6, 8),) * 2
        reach = settings.elastic * side
        bend: Any = Rand2DElastic(spacing=spacing, magnitude_range=(reach / 2, reach), prob=1.0, **space)
        x_CHW = bend.set_random_state(seed=seeds[0])(x_CHW)
    if settings.degrees:
        x_CHW = Rotate(angle=float(np.radians(degrees)), keep_size=True, **space)(x_CHW)
    if settings.bias:
        shade: Any = RandBiasField(degree=2, coeff_range=(-settings.bias, settings.bias), prob=1.0)
        # One field for all channels: a field for each would colour a grey image.
        field_HW = shade.set_random_state(seed=seeds[1])(torch.ones_like(x_CHW[:1]))
        x_CHW = x_CHW * (field_HW / field_HW.mean())
    if settings.gamma:
        x_CHW = AdjustContrast(gamma=gamma)(x_CHW.clamp(0, 1))
    if settings.noise:
        grain: Any = RandGaussianNoise(prob=1.0, std=settings.noise)
        x_CHW = x_CHW + grain.set_random_state(seed=seeds[2])(torch.zeros_like(x_CHW[:1]))
    pixels_CHW = np.rint(np.clip(np.asarray(x_CHW), 0, 1) * 255).astype(np.uint8)
    drawn = {"gamma": round(gamma, 4), "degrees": round(degrees, 3), "seeds": seeds}
    return np.ascontiguousarray(pixels_CHW.transpose(1, 2, 0)), drawn


def swapped(text: str, modality: str, rng: Generator) -> tuple[str, list[dict[str, str]]]:
    """Put another noun of the same finding where one stands alone.

    Args:
        text: Caption.
        modality: Name of the modality, which says whose findings are known.
        rng: Source of the choice among several.

    Returns:
        The caption, and each exchange with what stood before and after.
    """
    swaps: list[dict[str, str]] = []
    for pattern, nouns in _patterns(modality):

        def exchange(match: re.Match[str], nouns: Sequence[str] = nouns) -> str:
            old = match["noun"]
            others = [n for n in nouns if without_article(n).lower() != without_article(old).lower()]
            new = others[int(rng.integers(len(others)))]
            lead = match["lead"] or ""
            if lead.lower() in ("no", "without", "or"):
                new = without_article(new)
            new = new[:1].upper() + new[1:] if old[:1].isupper() else new
            swaps.append({"from": old, "to": new})
            return f"{lead} {new}" if lead else new

        before = text
        text = pattern.sub(exchange, text, count=1)
        if text != before and len(swaps) >= 3:
            break
    return text, swaps


@lru_cache(maxsize=64)
def _patterns(modality: str) -> tuple[tuple[re.Pattern[str], tuple[str, ...]], ...]:
    """Return the nouns of each finding with what finds one of them."""
    rows = []
    if not modality:
        return ()
    for task in map(load_task, tasks_of(modality)):
        for c in task.classes:
            nouns = tuple(dict.fromkeys(c.nouns))
            if len(nouns) > 1:
                any_of = "|".join(re.escape(without_article(n)) for n in sorted(nouns, key=len, reverse=True))
                rows.append((re.compile(rf"{_BEFORE}(?P<noun>(?:an?\s+)?(?:{any_of})){_AFTER}", re.I), nouns))
    return tuple(rows)

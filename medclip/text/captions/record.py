"""What is known of an image, as a value: the source of all its captions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from medclip.sample import Modality


@dataclass(frozen=True)
class CaptionRecord:
    """Everything about an image that its captions may say."""

    modality: Modality | None
    view: str | None = None
    """AP, PA, LATERAL, CC, MLO."""
    laterality: str | None = None
    """"L", "R" or None."""
    age_years: float | None = None
    sex: str | None = None
    """"M", "F" or None."""
    labels: Mapping[str, str | Mapping[str, int]] = field(default_factory=dict)
    """Per task the class name (multi-class), 0/1 for each class that was looked for (multi-label), or months to an
    event and of follow-up (risk; `medclip.text.vocabulary.outcomes`), which no caption speaks of."""
    texts: tuple[str, ...] = ()
    """Free text that came with the image."""
    generic: bool = False
    """The image is the generic rendering: its captions name the modality and nothing else."""
    report: str | None = None
    """The whole report of the examination, as it was written; captions draw from its findings and impression only."""
    negatives: tuple[str, ...] = ()
    """Captions that are false of the image and close to true ones. No caption is drawn from these, nor from what
    follows: `medclip.training.batches.sample_texts`."""
    long_captions: tuple[str, ...] = ()
    """Texts that say more than a caption does."""
    tags: tuple[str, ...] = ()
    """Single words and terms for what is seen."""

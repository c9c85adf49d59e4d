"""Generator `paste`: a segmented lesion of one image, blended into an image of another patient.

The blend is that of Poisson (`medclip.imaging.blending`), so that no seam shows.

The image must be of the same modality and set, of another patient, of the same shape, and its words must name no
finding that the sentence names and must not say that all is normal. Nor may it have a lesion of its own at the place,
where the table of masks knows of one, nor turn black or white there. The sample has no labels and no report: both spoke
of an image without the lesion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from medclip.errors import MedclipError, Reason
from medclip.files.tables.read_table import read_table
from medclip.imaging.blending import blended
from medclip.pairs.sample_table import mask_over, rows_by_sample
from medclip.pairs.synthesis.generators import Generate, GeneratorSettings, Source, Synthetic
from medclip.pairs.words.reports.report_cleaning import entities
from medclip.text.mentions import is_all_clear

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

_MASKS = ("mask", "mask_file")
_MOST_CUT = 0.05
"""Share of a lesion's values that may be cut to black or white."""
_SIDES = frozenset({"left", "right", "upper", "lower", "medial", "lateral", "bilateral"})


class PasteSettings(GeneratorSettings):
    """What is pasted."""

    masks: str
    """Table with the columns file (or key) and mask, and where known sentence; paths are relative to it."""
    sentence: str = ""
    """What is said of a pasted lesion whose row has no sentence."""
    most: float = Field(default=0.25, gt=0, le=0.5)
    """Largest share of the image that a lesion may fill."""
    least_px: int = Field(default=30, ge=1)
    """Fewest pixels of a lesion."""
    tries: int = Field(default=20, ge=1, le=1000)
    """Images that are looked at for one that takes the lesion."""


@dataclass(frozen=True)
class _Mask:
    path: Path
    sentence: str


def prepare(settings: PasteSettings, sources: Sequence[Source], folder: Path) -> Generate:
    """Return what pastes the lesion of one pair.

    Raises:
        MedclipError: TABLE_INVALID for a table of masks without its columns; RECIPE_INVALID for a sentence that names
            a side, or where there is none.
    """
    masks = _read_masks(settings, folder)
    by_set: dict[tuple[str, str], list[Source]] = {}
    for source in sources:
        by_set.setdefault((source.modality, source.origin), []).append(source)

    def generate(donor: Source, rng: Generator) -> Synthetic | str:
        mask = masks.get(donor.key) or masks.get(donor.sha256)
        if mask is None:
            return "no_mask"
        image = donor.read_image()
        lesion_HW = mask_over(mask.path, (image.shape[0], image.shape[1]))
        if isinstance(lesion_HW, str):
            return lesion_HW
        if int(lesion_HW.sum()) < settings.least_px:
            return "lesion_too_small"
        if lesion_HW.mean() > settings.most:
            return "lesion_too_large"
        others = by_set[donor.modality, donor.origin]
        for number in rng.permutation(len(others))[: settings.tries].tolist():
            into = others[number]
            if _takes(into, donor, mask.sentence):
                target = into.read_image()
                if target.shape == image.shape and not _has_lesion(masks, into, lesion_HW):
                    pasted = blended(image, target, lesion_HW)
                    if _is_cut(pasted[lesion_HW], image[lesion_HW]):
                        continue
                    drawn = {"donor": donor.key, "sentence": mask.sentence, "area_px": int(lesion_HW.sum())}
                    return Synthetic(pasted, record_with(into, mask.sentence), into.key, drawn)
        return "no_image_takes_it"

    return generate


def _takes(into: Source, donor: Source, sentence: str) -> bool:
    """Return whether the words of an image leave room for a lesion."""
    if into.key == donor.key or (into.patient and into.patient == donor.patient):
        return False
    if into.record.generic or into.record.view != donor.record.view:
        return False
    texts = " ".join((*into.record.texts, into.record.report or ""))
    named = entities(sentence, into.modality)
    return not is_all_clear(texts) and not set(named) & set(entities(texts, into.modality)) and sentence not in texts


def _has_lesion(masks: Mapping[str, _Mask], into: Source, lesion_HW: NDArray[np.bool_]) -> bool:
    """Return whether an image has a lesion of its own where another one is to lie, or one that cannot be read."""
    mask = masks.get(into.key) or masks.get(into.sha256)
    if mask is None:
        return False
    theirs_HW = mask_over(mask.path, (lesion_HW.shape[0], lesion_HW.shape[1]))
    return isinstance(theirs_HW, str) or bool((theirs_HW & lesion_HW).any())


def _is_cut(pasted_N3: NDArray[np.uint8], donor_N3: NDArray[np.uint8]) -> bool:
    """Return whether many values would lie outside of what can be stored: a lesion that turns black or white."""
    cut_N3 = ((pasted_N3 == 0) & (donor_N3 > 0)) | ((pasted_N3 == 255) & (donor_N3 < 255))
    return float(cut_N3.mean()) > _MOST_CUT


def record_with(into: Source, sentence: str) -> Any:
    """Return the record of an image with a pasted lesion."""
    texts = tuple(f"{text.rstrip().rstrip('.')}. {sentence}" for text in into.record.texts if text.strip())
    unsaid = ("negatives", "long_captions", "tags", "absent_tags", "candidates", "edit_pairs")
    nothing: Mapping[str, Any] = dict.fromkeys(unsaid, ())
    return replace(into.record, texts=texts or (sentence,), labels={}, report=None, **nothing)


def _read_masks(settings: PasteSettings, folder: Path) -> dict[str, _Mask]:
    """Read the masks by key of the sample, or by sha256 of the file that it was made of."""
    path = folder / settings.masks
    table = read_table(path)
    mask = next((n for n in _MASKS if n in table.names), None) or table.need(_MASKS[0], "the mask of each image")
    masks: dict[str, _Mask] = {}
    for sample, cell in rows_by_sample(table, path):
        sentence = (cell.get("sentence") or settings.sentence).strip()
        _check_sentence(sentence, path)
        if sample and cell[mask]:
            masks[sample] = _Mask(path.parent / cell[mask], sentence)
    return masks


def _check_sentence(sentence: str, path: Path) -> None:
    sides = _SIDES & set(sentence.lower().replace(".", " ").split())
    if not sentence or sides:
        raise MedclipError(
            Reason.RECIPE_INVALID,
            f"a sentence of a pasted lesion names a place ({', '.join(sorted(sides))})."
            if sides
            else "nothing is said of a pasted lesion.",
            where=path,
            hint="Write `sentence` under `paste`, or a column of it: what is seen, without its place.",
        )

"""Sections below `objective.losses` of the losses that read texts beside captions: see `medclip.training.losses`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from medclip.training.recipe.section import Section


class HardNegatives(Section):
    """`hard_negatives`: an image fits its caption better than a text that is plausible and false of it (HQ-CLIP)."""

    weight: float = Field(default=1.0, gt=0)
    form: Literal["pairwise", "row"] = "pairwise"
    """Each false text against the caption of its own image; or as one more column of the image's row in a second
    image-to-text term."""


class Tags(Section):
    """`tags`: a linear layer on what the image tower pools tells which words of `data.tags` are true, each by itself
    (HQ-CLIP). A word that is stated of an image is true, one that is denied is not, and of others nothing is known.

    `tags_softmax`: the stated words share the mass among all, so that every other word counts as less true.
    """

    weight: float = Field(default=1.0, gt=0)


class LongCaptions(Section):
    """`long_captions`: images are contrasted with their long texts, beside the captions (CLIP-IN's second branch)."""

    weight: float = Field(default=1.0, gt=0)


class EditPairs(Section):
    """`edit_pairs`: of two samples that differ by one edit, each image fits its own text better than its partner's, and
    each text its own image (CLIP-IN). Partners stand in one batch wherever there is room.
    """

    weight: float = Field(default=1.0, gt=0)

"""What rewriting is asked: the file rewrite.yaml, checked."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from medclip.recipe import invalid_recipe, read_yaml


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CaptionSteps(_Strict):
    """How captions are weighed."""

    model: str | None = None
    """Pack whose cosine of image and caption is the alignment; none is measured without it."""
    percentile: float = Field(default=20.0, ge=0, le=100)
    """Percentile of a modality's alignments below which a caption has no weight."""
    temperature: float = Field(default=0.1, gt=0)
    """Of standardised alignments."""
    keep_raw: bool = False
    """Whether shards keep the raw text among the captions that training may draw (`data.candidates.p_raw`)."""


class NegativeSteps(_Strict):
    """Which texts with one change are written."""

    per_text: int = Field(default=1, ge=0, le=8)
    """Most for each text."""
    balance: bool = True
    """Whether each change is made as often as its reverse, so that words alone do not betray the false text."""


class EditSteps(_Strict):
    """Which edited partners are written beside samples of the training split."""

    mirror: bool = False
    """Whether an image whose text names the side of a finding gets a mirrored partner with the sides exchanged."""
    without_letters: tuple[str, ...] = ()
    """Sources whose images have no letters burned in, as somebody looked; images of others are not mirrored."""
    detect_letters: bool = False
    """Whether images of other sources are mirrored where no letters are seen. Some lead markers are not seen."""
    table: str | None = None
    """Table of what the shards do not hold, by `file` or `key`; relative to this file."""
    date: str | None = None
    """Its column with the day of each image: two images of a patient whose texts differ by one change become partners.
    """
    device_mask: str | None = None
    """Its column with the mask of a device: the image gets a partner without it."""

    @model_validator(mode="after")
    def _has_table(self) -> Self:
        if (self.table is None) != (self.date is None and self.device_mask is None):
            raise ValueError("`table` needs a column, `date` or `device_mask`, and these need a table.")
        return self

    @property
    def are_wanted(self) -> bool:
        """Whether any partner is."""
        return self.mirror or self.table is not None


class RewriteSteps(_Strict):
    """The file rewrite.yaml."""

    seed: int = Field(default=0, ge=0)
    modality: str = ""
    """Modality of the rows of a table that has no such column."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Columns of a table by what they hold: key, patient, report, findings, impression."""
    max_words: int = Field(default=60, ge=5, le=400)
    """Words of a caption; the long text has all."""
    captions: CaptionSteps = CaptionSteps()
    negatives: NegativeSteps = NegativeSteps()
    edits: EditSteps = EditSteps()


def read_steps(path: Path | None) -> RewriteSteps:
    """Read the file; the defaults where none is named, or it is empty.

    Raises:
        MedclipError: RECIPE_INVALID naming the keys; MISSING_FILE and as `read_yaml`.
    """
    if path is None:
        return RewriteSteps()
    try:
        return RewriteSteps.model_validate(read_yaml(path) or {})
    except ValidationError as e:
        raise invalid_recipe(e, RewriteSteps, path, "a file of steps") from e

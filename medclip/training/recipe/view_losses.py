"""Sections below `objective.losses` of the losses that compare views of one thing: see `medclip.training.losses`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from medclip.training.recipe.section import Section


class Views(Section):
    """`views`: of the images that show one thing, those least like the others are drawn to their centre (Omniview
    tuning). Images of an object that has one image only take part in the other losses alone.
    """

    object: tuple[str, ...] = Field(min_length=1)
    """What names the thing: columns of samples.parquet (`patient`), or `study` and `laterality` of the samples; one may
    stand without brackets. `[study, laterality]` are the views of one breast."""
    label: str | None = None
    """Task by whose labels the images of one object must agree, such as `chest_xray_findings`: a finding that one view
    shows and another does not is a true difference. None takes all images of an object."""
    hard: float = Field(default=0.2, gt=0, allow_inf_nan=False)
    """Images of an object that are drawn: a share of them below 1, one at least; their number from 1 on."""
    neighbours: int = Field(default=5, ge=1)
    """Nearest other images by which one is weighed in the centre; all the others where there are fewer."""
    form: Literal["pull", "triplet"] = "pull"
    """To the centre; or nearer to it than to the nearest centre of another object, by `margin`."""
    margin: float = Field(default=0.3, ge=0)
    """Of `pull` it shifts the value alone."""
    weight: float = Field(default=0.5, gt=0)
    every: Literal["epoch"] | int = "epoch"
    """When centres and hard images are computed anew: before each epoch, or after so many steps, too."""

    @field_validator("object", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("hard")
    @classmethod
    def _share_or_number(cls, value: float) -> float:
        if value > 1 and value != int(value):
            raise ValueError("is a share below 1, or a whole number of images")
        return value

    @field_validator("every")
    @classmethod
    def _some_steps(cls, value: str | int) -> str | int:
        if isinstance(value, int) and value < 1:
            raise ValueError("is epoch, or a number of steps from 1 on")
        return value

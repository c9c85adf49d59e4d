"""What synthesis is asked: the file synthesize.yaml, checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.lazy import import_name
from medclip.pairs.selection.rebalance import RebalanceSettings
from medclip.pairs.synthesis.generators import GENERATORS, GeneratorSettings
from medclip.recipe import invalid_recipe, read_yaml

_FILE = "a file of synthesis"


class SynthesizeSteps(BaseModel):
    """The file synthesize.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = Field(default=0, ge=0)
    split: str = "train"
    """Split that samples are made of, and put into."""
    tail: RebalanceSettings = RebalanceSettings.model_validate({"views": ("object", "co_occurrence")})
    """How the tail is found: a pair is of it where an entity is named less often than tau."""
    tail_selection: str | None = None
    """Selection whose pairs are the tail, whatever their texts name."""
    selection: str | None = None
    """Selection of the real pairs that stay, such as one of `rebalance`; all of them where None."""
    n_aug: float = Field(default=0.15, ge=0, le=1)
    """Most samples that are made, as a share of the split's pairs."""
    share: float = Field(default=0.2, ge=0, le=0.5)
    """Largest share of synthetic samples in the split that is written."""
    origin_alpha: float = Field(default=0.8, ge=0, le=1)
    """Share of real pairs that stay, of patients who have none of the tail."""
    generators: tuple[dict[str, dict[str, Any]], ...] = Field(default=({"change": {}},), min_length=1)
    """Names with settings, in the order in which they are tried for a pair."""

    @field_validator("generators", mode="before")
    @classmethod
    def _without_settings(cls, generators: Any) -> Any:
        """Take a name alone for a generator without settings."""
        if not isinstance(generators, list | tuple):
            return generators
        named = ({one: {}} if isinstance(one, str) else one for one in generators)
        return [{k: {} if v is None else v for k, v in g.items()} if isinstance(g, dict) else g for g in named]


def read_steps(source: Path | Mapping[str, Any] | None) -> SynthesizeSteps:
    """Read the file; the defaults where none is named, or it is empty.

    Raises:
        MedclipError: RECIPE_INVALID naming the keys; MISSING_FILE and as `read_yaml`.
    """
    path = source if isinstance(source, Path) else None
    try:
        return SynthesizeSteps.model_validate((read_yaml(path) if path is not None else source) or {})
    except ValidationError as e:
        raise invalid_recipe(e, SynthesizeSteps, path, _FILE) from None


def generators_of(steps: SynthesizeSteps) -> list[tuple[str, GeneratorSettings]]:
    """Understand the settings of each generator.

    Raises:
        MedclipError: RECIPE_INVALID for an unknown generator, and for settings that it does not take.
    """
    rows: list[tuple[str, GeneratorSettings]] = []
    for one in steps.generators:
        for name, settings in one.items():
            if name not in GENERATORS:
                raise MedclipError(
                    Reason.RECIPE_INVALID, f"there is no generator {name!r}.", hint=did_you_mean(name, list(GENERATORS))
                )
            kind: type[GeneratorSettings] = import_name(GENERATORS[name].settings)
            try:
                rows.append((name, kind.model_validate(settings)))
            except ValidationError as e:
                raise invalid_recipe(e, kind, None, f"the generator {name}") from None
    return rows

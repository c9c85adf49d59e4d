"""The form a task file must have; checked once, at load."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from medclip.sample import Modality
from medclip.text.vocabulary.task import EVENT, FOLLOWUP, Kind, Level

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]
BodyPart = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z ]*$")]
Wording = Annotated[str, StringConstraints(strip_whitespace=True, min_length=2, max_length=200)]


class ClassFile(BaseModel):
    """One class of a task file."""

    model_config = ConfigDict(extra="forbid")

    name: Name
    title: Wording
    prompts: list[Wording] = Field(min_length=1)
    negative_prompts: list[Wording] = []
    nouns: list[Wording] = []
    stems: list[Wording] = []
    codes: dict[Literal["sct", "radlex", "scp"], str] = {}
    denial_weight: float = Field(default=1.0, gt=0)
    not_denied_with: list[Name] = []

    @model_validator(mode="after")
    def _wordings_are_distinct(self) -> ClassFile:
        wordings = [w.lower() for w in [*self.prompts, *self.negative_prompts]]
        twice = sorted({w for w in wordings if wordings.count(w) > 1})
        if twice:
            raise ValueError(f"class {self.name} repeats a wording: {', '.join(twice)}")
        return self


class TaskFile(BaseModel):
    """A whole task file."""

    model_config = ConfigDict(extra="forbid")

    name: Name
    title: Wording
    kind: Kind
    ordered: bool = False
    outside_order: list[Name] = []
    worst_last: bool = False
    level: Level = "image"
    normal_if_none: bool = True
    horizons_years: list[Annotated[int, Field(ge=1, le=30)]] = []
    modalities: list[Modality]
    body_parts: list[BodyPart] = []
    templates: list[str] = []
    classes: list[ClassFile] = []
    image_names: list[Wording] = []
    none_prompts: list[Wording] = []
    not_part_of_none: list[Name] = []

    @field_validator("templates")
    @classmethod
    def _one_slot_each(cls, templates: list[str]) -> list[str]:
        bad = [t for t in templates if t.count("{}") != 1 or t.replace("{}", "").count("{")]
        if bad:
            raise ValueError(f"a template needs exactly one {{}}: {bad}")
        return templates

    @model_validator(mode="after")
    def _classes_fit_the_kind(self) -> TaskFile:
        names = [c.name for c in self.classes]
        if len(set(names)) != len(names):
            raise ValueError("two classes have the same name")
        if {EVENT, FOLLOWUP} & set(names):
            raise ValueError(f"no class may be called {EVENT} or {FOLLOWUP}")
        unknown = sorted(set(self.not_part_of_none) - set(names))
        if unknown or (self.not_part_of_none and len(set(self.not_part_of_none)) == len(names)):
            raise ValueError(f"not_part_of_none names no class or all: {', '.join(unknown or names)}")
        if self.kind == "risk":
            self._check_risk()
        elif self.horizons_years:
            raise ValueError("horizons_years belongs to risk tasks")
        elif not names or not self.templates:
            raise ValueError("a task needs templates and classes")
        if self.kind == "multiclass":
            self._check_exclusive(names)
        elif self.ordered or self.worst_last:
            raise ValueError(f"{'ordered' if self.ordered else 'worst_last'} belongs to multiclass tasks")
        if self.outside_order and not (self.ordered and set(self.outside_order) < set(names)):
            raise ValueError("outside_order names some of the classes of an ordered task")
        if self.kind == "multilabel":
            bare = [c.name for c in self.classes if not (c.negative_prompts and c.nouns and c.stems)]
            if bare:
                raise ValueError(f"multilabel classes need negative_prompts, nouns and stems: {', '.join(bare)}")
        return self

    def _check_risk(self) -> None:
        if not self.horizons_years or self.horizons_years != sorted(set(self.horizons_years)):
            raise ValueError("a risk task needs horizons_years, whole years in rising order")
        if self.classes or self.templates or self.none_prompts or self.image_names:
            raise ValueError("a risk task is asked of a head, not of words: it has no classes and no wordings")

    def _check_exclusive(self, names: Sequence[str]) -> None:
        if len(names) < 2:
            raise ValueError("a multiclass task needs at least two classes")
        if any(c.negative_prompts for c in self.classes) or self.none_prompts or self.not_part_of_none:
            raise ValueError("negative_prompts, none_prompts and not_part_of_none belong to multilabel tasks")
        owners: dict[str, str] = {}
        for c in self.classes:
            for prompt in c.prompts:
                if owners.setdefault(prompt.lower(), c.name) != c.name:
                    raise ValueError(f"two classes share the wording {prompt!r}")

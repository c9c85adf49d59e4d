"""The form a task file must have; checked once, at load."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator
from pydantic_core import PydanticCustomError

from medclip.sample import Modality
from medclip.text.vocabulary.task import EVENT, FOLLOWUP, Level
from medclip.text.vocabulary.task_kinds import TASK_KINDS, kind_named

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
    shows: BodyPart | Literal[""] = ""
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
    kind: str
    ordered: bool = False
    outside_order: list[Name] = []
    worst_last: bool = False
    level: Level = "image"
    normal_if_none: bool = True
    asked_of: Wording | None = None
    horizons_years: list[Annotated[int, Field(ge=1, le=30)]] = []
    modalities: list[Modality]
    body_parts: list[BodyPart] = []
    templates: list[str] = []
    classes: list[ClassFile] = []
    image_names: list[Wording] = []
    none_prompts: list[Wording] = []
    not_part_of_none: list[Name] = []

    @field_validator("kind")
    @classmethod
    def _is_in_the_table(cls, kind: str) -> str:
        if kind not in TASK_KINDS:
            raise PydanticCustomError(
                "literal_error", "no kind of task", {"expected": ", ".join(map(repr, TASK_KINDS))}
            )
        return kind

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
        kind_named(self.kind).check_file(self)
        if self.outside_order and not (self.ordered and set(self.outside_order) < set(names)):
            raise ValueError("outside_order names some of the classes of an ordered task")
        return self

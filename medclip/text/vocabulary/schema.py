"""The form a task file must have; checked once, at load."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from medclip.sample import Modality

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
    codes: dict[Literal["sct", "radlex"], str] = {}
    denial_weight: float = Field(default=1.0, gt=0)

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
    kind: Literal["multiclass", "multilabel"]
    modalities: list[Modality]
    body_parts: list[BodyPart] = []
    templates: list[str] = Field(min_length=1)
    classes: list[ClassFile] = Field(min_length=1)
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
        unknown = sorted(set(self.not_part_of_none) - set(names))
        if unknown or (self.not_part_of_none and len(set(self.not_part_of_none)) == len(names)):
            raise ValueError(f"not_part_of_none names no class or all: {', '.join(unknown or names)}")
        if self.kind == "multiclass":
            if len(names) < 2:
                raise ValueError("a multiclass task needs at least two classes")
            if any(c.negative_prompts for c in self.classes) or self.none_prompts or self.not_part_of_none:
                raise ValueError("negative_prompts, none_prompts and not_part_of_none belong to multilabel tasks")
            owners: dict[str, str] = {}
            for c in self.classes:
                for prompt in c.prompts:
                    if owners.setdefault(prompt.lower(), c.name) != c.name:
                        raise ValueError(f"two classes share the wording {prompt!r}")
        else:
            bare = [c.name for c in self.classes if not (c.negative_prompts and c.nouns and c.stems)]
            if bare:
                raise ValueError(f"multilabel classes need negative_prompts, nouns and stems: {', '.join(bare)}")
        return self

"""The form of a suite: labelled sets, their classes and the prompts that stand for each class. Read from YAML.

A set may name a task of the vocabulary: its sentences then stand for the classes, as `medclip score` asks them.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.evaluation.zero_shot.open_set_tables import TEXT, Reader
from medclip.files.output import digest_of
from medclip.sample import Modality
from medclip.schema_faults import faults_of
from medclip.text.vocabulary.load import load_task
from medclip.text.vocabulary.prompts import expand

SLOT = "{c}"
"""Where a pattern takes the class's phrase."""

SetId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]
Words = Annotated[str, StringConstraints(strip_whitespace=True, min_length=2, max_length=300)]
Folder = Annotated[str, StringConstraints(pattern=r"^[^/\\\x00-\x1f][^\\\x00-\x1f]*$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ClassFile(_Part):
    """One class of a set. Its number is its place in the list; of two classes the second is the positive one."""

    name: Name
    """As in tables and results."""
    prompts: tuple[Words, ...] = ()
    """Whole sentences."""
    phrase: Words | None = None
    """What the set's patterns are filled with."""

    @model_validator(mode="after")
    def _needs_a_prompt(self) -> ClassFile:
        if not self.prompts and self.phrase is None:
            raise ValueError(f"class {self.name} has neither prompts nor a phrase")
        return self


class TableFile(_Part):
    """How the set's labels.csv is read, where it is not in the plain form (file, label, patient, split)."""

    name: Folder = "labels.csv"
    """The table's own name inside the set's folder."""
    file: str = "file"
    """Column with the path, relative to the set's folder."""
    label: str = "label"
    patient: str | None = "patient"
    """Column that names the patient, or whatever else images share; None where every image stands for itself."""
    is_patient: bool = True
    """Whether that is a patient. Near-duplicates or eyes are resampled together, and never counted as patients."""
    split: str = "split"
    reader: Reader | None = None
    """Whose table of an open set it is, of which more is read than its columns (`open_tables`)."""


class TextsFile(_Part):
    """Images of one source and its own words about them, which are looked for by each other."""

    id: SetId
    folder: Folder | None = None
    """Folder inside the data folder; the id where left out."""
    table: TableFile = TableFile()
    text: str = TEXT
    """Column with the text; an image without one is left out."""
    modality: Modality | None = None
    """Whose adapter reads the images; None for what the set's reader says of each."""
    source: Words | None = None
    """As of a set."""
    where: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """As of a set."""
    held_out: bool = False
    """As of a set."""
    note: str = ""
    """What a reader of the figures must know."""

    @property
    def source_name(self) -> str:
        """Where its images come from."""
        return self.source or self.place

    @property
    def place(self) -> str:
        """Folder inside the data folder."""
        return self.folder or self.id

    @model_validator(mode="after")
    def _needs_a_modality(self) -> TextsFile:
        if self.modality is None and self.table.reader is None:
            raise ValueError(
                f"texts {self.id}: name their modality, or the table's reader, which says it of each image"
            )
        return self


class SetFile(_Part):
    """One labelled set."""

    id: SetId
    group: Name
    modality: Modality | Literal["generic"]
    """Whose adapter reads the images; "generic" for the rendering that modalities are inferred from."""
    title: Words | None = None
    folder: Folder | None = None
    """Folder inside the data folder; the id where left out."""
    table: TableFile = TableFile()
    source: Words | None = None
    """Where its images come from, as the pack's card names its data; the folder where left out. Sets of one task and
    several sources are measured within each and across them."""
    origin: Words | None = None
    """The source that its images are of, too, where a set holds images of another one: PTB-XL scaled anew, say. Sources
    of one origin are one place, and what holds in both has not been shown of another."""
    split: str | None = None
    """Rows of the table with this split only, where it has a split column."""
    where: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Rows of the table whose cells of these columns are one of these only."""
    held_out: bool = False
    """Only files that the pack's card lists as those that its figures were measured on, where it lists any."""
    values: dict[str, Name | None] = Field(default_factory=dict)
    """A label cell, or the name of a class folder, to the class it means; null leaves it out on purpose."""
    others: Literal["refuse", "leave_out"] = "refuse"
    """What becomes of labels that neither `values` nor the classes name."""
    constant: Name | None = None
    """The class of every row of a table that has no column for it."""
    task: Name | None = None
    """A task of the vocabulary, whose sentences stand for its classes; no classes are then written here."""
    finding: Name | None = None
    """A class of that task, where an image may have several: the classes are then `absent` and `present`."""
    patterns: tuple[Words, ...] = ()
    classes: tuple[ClassFile, ...] = ()
    """Two or more, or none for a set with a task."""
    metric: Literal["accuracy", "balanced_accuracy", "macro_f1", "auroc"] = "accuracy"
    """The figure that enters the group's mean."""
    note: str = ""
    """What a reader of the figure must know."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes in order."""
        return tuple(c.name for c in self.classes)

    @property
    def source_name(self) -> str:
        """Where its images come from."""
        return self.source or self.place

    @property
    def origin_name(self) -> str:
        """The place that its images are of."""
        return self.origin or self.source_name

    @property
    def place(self) -> str:
        """Folder inside the data folder."""
        return self.folder or self.id

    def prompts(self) -> tuple[tuple[str, ...], ...]:
        """Return all sentences of each class: its own, then the patterns filled with its phrase."""
        return tuple(
            (*c.prompts, *(p.replace(SLOT, c.phrase) for p in self.patterns if c.phrase is not None))
            for c in self.classes
        )

    def class_of(self, value: str) -> int | None:
        """Return the class index of a label cell or folder name; None for one that is left out on purpose.

        Raises:
            KeyError: For a value that the suite does not know, unless it leaves others out.
        """
        name = self.values.get(value, value)
        if name is None:
            return None
        if name not in self.names:
            if self.others == "leave_out":
                return None
            raise KeyError(value)
        return self.names.index(name)

    @model_validator(mode="after")
    def _needs_classes(self) -> SetFile:
        if self.task is None and len(self.classes) < 2:
            raise ValueError(f"set {self.id}: two classes or more are needed, or a task of the vocabulary")
        if self.finding is not None and self.task is None:
            raise ValueError(f"set {self.id}: a finding is one of a task, and none is named")
        return self

    @model_validator(mode="after")
    def _check(self) -> SetFile:
        if not self.classes:
            return self
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"set {self.id}: two classes have the same name")
        if any(p.count(SLOT) != 1 for p in self.patterns):
            raise ValueError(f"set {self.id}: a pattern needs exactly one {SLOT}")
        if bool(self.patterns) != any(c.phrase for c in self.classes):
            raise ValueError(f"set {self.id}: patterns and the classes' phrases belong together")
        if self.metric == "auroc" and len(self.classes) != 2:
            raise ValueError(f"set {self.id}: auroc needs two classes")
        if strange := sorted({v for v in (*self.values.values(), self.constant) if v is not None} - set(self.names)):
            raise ValueError(f"set {self.id}: values names a class that is not there: {', '.join(strange)}")
        owners: dict[str, str] = {}
        for name, sentences in zip(self.names, self.prompts(), strict=True):
            for prompt in sentences:
                if owners.setdefault(prompt.lower(), name) != name:
                    raise ValueError(f"set {self.id}: two classes share the prompt {prompt!r}")
            if len({p.lower() for p in sentences}) != len(sentences):
                raise ValueError(f"set {self.id}: class {name} repeats a prompt")
        return self


class MasksFile(_Part):
    """Images of one kind with masks, on which a head over a frozen tower's feature maps learns to segment."""

    id: SetId
    group: Name
    modality: Modality | Literal["generic"]
    """As of a set."""
    title: Words | None = None
    folder: Folder | None = None
    """Folder inside the data folder; the id where left out."""
    table: TableFile = TableFile()
    """Its column of labels is not read."""
    mask: str = "mask"
    """Column with the mask's path, relative to the set's folder; an image without one is left out."""
    mask_table: Folder | None = None
    """Another table of the folder that has the masks, by the same column of files; None: the table itself."""
    where: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """As of a set."""
    shares: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(default=(0.02, 0.1, 1.0), min_length=1)
    """Shares of the training images whose masks are learned from, in rising order."""
    seeds: int = Field(default=3, ge=1, le=20)
    """Draws of these images, each with weights of its own to start from."""
    levels: bool = False
    """Whether a head reads maps of several depths of the tower (hypercolumns), or the last alone."""
    note: str = ""
    """What a reader of the figures must know."""

    @property
    def place(self) -> str:
        """Folder inside the data folder."""
        return self.folder or self.id

    @model_validator(mode="after")
    def _rises(self) -> MasksFile:
        if list(self.shares) != sorted(set(self.shares)):
            raise ValueError(f"masks {self.id}: shares rise, and none stands twice")
        return self


class GroupFile(_Part):
    """Sets that are averaged together."""

    id: Name
    title: Words
    published: float | None = None
    """The group's published mean in percent, where there is one."""


class PublishedFile(_Part):
    """What was published for the whole suite."""

    model: Words
    average: float
    """In percent, over all sets."""
    source: Words


class SuiteFile(_Part):
    """A whole suite."""

    name: Name
    title: Words
    groups: tuple[GroupFile, ...] = Field(min_length=1)
    sets: tuple[SetFile, ...] = ()
    texts: tuple[TextsFile, ...] = ()
    masks: tuple[MasksFile, ...] = ()
    published: PublishedFile | None = None
    average: Literal["sets", "groups"] = "sets"
    """What weighs alike in the average: each set, or each group, whose own mean is taken first."""
    is_averaged: bool = Field(default=True, exclude=True)
    """False where the sets ask the same images one thing after another, and a mean over them is of nothing."""

    @model_validator(mode="after")
    def _check(self) -> SuiteFile:
        if not self.sets and not self.masks:
            raise ValueError("a suite has sets, or masks")
        of_sets = [part.id for part in (*self.sets, *self.texts, *self.masks)]
        for what, ids in (("sets", of_sets), ("groups", [g.id for g in self.groups])):
            if len(set(ids)) != len(ids):
                raise ValueError(f"two {what} have the same id")
        group_ids = {g.id for g in self.groups}
        in_groups = {part.group for part in (*self.sets, *self.masks)}
        if strange := sorted(in_groups - group_ids):
            raise ValueError(f"a set is in the group {strange[0]!r}, which is not listed")
        if unused := sorted(group_ids - in_groups):
            raise ValueError(f"the group {unused[0]!r} has no set")
        return self

    def members(self, group: str) -> tuple[SetFile, ...]:
        """Return the sets of a group; their number is its weight where sets weigh alike."""
        return tuple(s for s in self.sets if s.group == group)

    def digest(self) -> str:
        """Hash of everything in the suite; 16 hex characters."""
        # What came later and is not used changes no hash: folders of before go on.
        unused = {"masks": not self.masks, "average": self.average == "sets"}
        return digest_of({k: v for k, v in self.model_dump(mode="json").items() if not unused.get(k)})


def suite_names() -> tuple[str, ...]:
    """List the suites that ship with medclip."""
    folder = files("medclip.evaluation.zero_shot") / "suite_files"
    return tuple(sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")))


def load_suite(name_or_path: str | Path) -> SuiteFile:
    """Read a suite and check it.

    Args:
        name_or_path: Name of a suite that ships with medclip ("unimed", "pathgen"), or a YAML file.

    Raises:
        MedclipError: MISSING_FILE naming the suites there are; TABLE_INVALID naming the key.

    Example:
        >>> len(load_suite("unimed").sets)
        21
    """
    import yaml

    path = Path(name_or_path)
    if str(name_or_path) in suite_names():
        text = (files("medclip.evaluation.zero_shot") / "suite_files" / f"{name_or_path}.yaml").read_text(
            encoding="utf-8"
        )
    else:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as e:
            names_hint = did_you_mean(str(name_or_path), suite_names(), "Suites that come with medclip are")
            raise MedclipError(
                Reason.MISSING_FILE,
                "there is no readable suite file here and no suite of this name.",
                where=name_or_path,
                hint=f"{names_hint} Others are YAML files.",
            ) from e
    try:
        return SuiteFile.model_validate(yaml.safe_load(text))
    except (yaml.YAMLError, RecursionError) as e:
        raise MedclipError(Reason.TABLE_INVALID, f"this is not YAML: {str(e).splitlines()[0]}.", where=path) from e
    except ValidationError as e:
        faults, hint = faults_of(e, SuiteFile, "a suite")
        raise MedclipError(Reason.TABLE_INVALID, f"the suite is not valid: {faults}.", where=path, hint=hint) from e


ABSENT, PRESENT = "absent", "present"
"""Classes of a set that asks for one finding."""


def with_vocabulary(suite: SuiteFile, card: Any) -> SuiteFile:
    """Return a suite whose sets have the sentences of the vocabulary where they name a task.

    Args:
        suite: Suite as it was read.
        card: Card of the pack: of a task that it lists its own classes are asked. Images of others are left out, and so
            are sets that hold nothing else, and sets of one class of a modality that its figures are not of.

    Raises:
        MedclipError: TABLE_INVALID for a task or class that the vocabulary does not have, or a finding of a task of
            which one class alone is true.
    """
    filled = (_filled(part, card) for part in suite.sets)
    return suite.model_copy(update={"sets": tuple(part for part in filled if part is not None)})


def _filled(part: SetFile, card: Any) -> SetFile | None:
    if part.task is None or part.classes:
        return part
    task, entry = load_task(part.task), card.tasks.get(part.task)
    if task.rules.independent != (part.finding is not None):
        needs = "name one of its findings" if part.finding is None else "it has no findings; leave `finding` out"
        raise MedclipError(Reason.TABLE_INVALID, f"set {part.id}: the task {task.name} is {task.kind}; {needs}.")
    if part.finding is not None:
        (prompts,) = expand(task, [part.finding])
        sentences = {ABSENT: prompts.negative, PRESENT: prompts.positive}
    else:
        class_names = None if entry is None else list(entry.classes)
        sentences = {prompts.name: prompts.positive for prompts in expand(task, class_names)}
        if strange := sorted({v for v in part.values.values() if v} - {c.name for c in task.classes}):
            raise MedclipError(
                Reason.TABLE_INVALID, f"set {part.id}: values names a class that {task.name} has not: {strange[0]}."
            )
    is_measured = entry is None or not entry.modalities or part.modality in (*entry.modalities, "generic")
    if part.constant is not None and not (part.constant in sentences and is_measured):
        return None
    values = {cell: name if name in sentences else None for cell, name in part.values.items()}
    classes = [{"name": name, "prompts": texts} for name, texts in sentences.items()]
    return SetFile.model_validate(part.model_dump() | {"classes": classes, "values": values})

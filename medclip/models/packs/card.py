"""The model card: what a pack is for, what it was trained on, how well it does, where it ends, and its terms.

No torch here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from medclip.errors import MedclipError, Reason
from medclip.models.packs.card_citations import Citation
from medclip.models.packs.card_sources import ALL, METRIC_TITLES, SourceFigures
from medclip.models.packs.manifest import LICENCE_NAME
from medclip.models.packs.word_control import WordControl
from medclip.result import Result
from medclip.sample import Kind, Modality
from medclip.schema_faults import faults_of
from medclip.wording import estimate

FILE_NAME = "card.json"
IMPORTED = "imported_from"
"""Key of `created_from` in packs that `medclip models import` made."""
STARTED_FROM = "started_from"
"""Key of `created_from` in packs whose training began with another pack: its name and the head of its hash."""
IMAGE_TOWER_OF = "image_tower_of"
"""Key of `created_from` in packs whose image tower alone began as that of another pack."""
ADAPTED_FROM = "adapted_from"
"""Key of `created_from` in packs that `medclip adapt` made."""
ANCESTORS = "ancestors"
"""Beside `started_from`, the heads of the sha256 of the weights of all packs that it goes back to, the oldest first:
packs that have one in common began with the same weights."""
MERGED_FROM = "merged_from"
"""Key of `created_from` in packs that `medclip models merge` made."""


class Figure(BaseModel):
    """One measured figure with its 95 % patient-bootstrap interval. Baselines are figures of the same metric."""

    model_config = ConfigDict(extra="allow", frozen=True)
    value: float
    low: float | None = None
    high: float | None = None
    chance: float | None = None
    num_patients: int | None = None
    """None where nobody knows whose images they are: rows, or groups of alike ones, are never counted as patients."""


class NotClaimed(Figure):
    """What was measured of a task or a class that the card does not list, and why it does not."""

    metric: str
    """Its key: "auroc", "balanced_accuracy"."""
    why: str = Field(min_length=1)
    """Half a sentence, such as "not told from chance"."""

    @property
    def in_words(self) -> str:
        """The figure with its interval and what chance gives, and why it is not claimed.

        Example:
            >>> figure = {"value": 0.59, "low": 0.48, "high": 0.68, "chance": 0.5}
            >>> NotClaimed(metric="balanced_accuracy", why="not told from chance", **figure).in_words
            'balanced accuracy 0.59 (0.48 to 0.68), chance 0.50; not told from chance, so not claimed'
        """
        measured = estimate(self.value, self.low, self.high, decimals=2)
        chance = "" if self.chance is None else f", chance {self.chance:.2f}"
        return f"{METRIC_TITLES.get(self.metric, self.metric)} {measured}{chance}; {self.why}, so not claimed"


class CardThreshold(BaseModel):
    """The probability from which a class counts as present, and where it comes from; fields as in thresholds.json.

    A plain number is taken for a threshold of which nothing else is known.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    value: float = Field(ge=0, le=1)
    policy: str = ""
    """The rule that chose it, such as "sensitivity=0.9"."""
    chosen_on: str = ""
    """What its owner calls the data that it was chosen on."""
    n: int | None = Field(default=None, ge=0)
    n_pos: int | None = Field(default=None, ge=0)
    n_patients: int | None = Field(default=None, ge=0)
    data_sha256: str = ""
    patients_sha256: str = ""

    @model_validator(mode="before")
    @classmethod
    def _from_number(cls, value: Any) -> Any:
        """Take a number for a threshold of which nothing else is known."""
        return {"value": value} if isinstance(value, (int, float)) else value

    def in_words(self) -> str:
        """Write the threshold and where it comes from.

        Example:
            >>> CardThreshold(value=0.42, policy="sensitivity=0.9", chosen_on="site A").in_words()
            'threshold 0.42 of the model card, chosen by sensitivity=0.9 on site A'
        """
        how = "".join(f" {word} {text}" for word, text in (("by", self.policy), ("on", self.chosen_on)) if text)
        return f"threshold {self.value:g} of the model card{f', chosen{how}' if how else ''}"


class ExamPooling(BaseModel):
    """How the breasts' answers become that of a mammography examination, chosen on validation women."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    rule: str
    """A row of `medclip.scoring.pooling.POOLINGS`."""
    sharpness: float | None = Field(default=None, gt=0)
    """What the rule `learned` was fitted to; None where nothing was."""
    chosen_on: str = ""
    """Half a sentence, such as "23 validation women of CDD-CESM"."""
    figures: dict[str, Any] = Field(default_factory=dict)
    """Of test women: areas of examinations by rule, and of "breasts"."""

    def model_post_init(self, context: Any) -> None:
        """Check that each leaf is a figure."""
        _check_figures(self.figures, "pooling.figures")

    @property
    def in_words(self) -> str:
        """The rule, what chose it, and the areas of test women.

        Example:
            >>> ExamPooling(rule="max", chosen_on="24 validation women", figures={"max": {"value": 0.69}}).in_words
            'the breasts of an examination are pooled by max, chosen on 24 validation women; AUROC by max 0.69.'
        """
        areas = [f"by {name} {_area(one)}" for name, one in self.figures.items() if name != "breasts"]
        areas += [f"of single breasts {_area(one)}" for name, one in self.figures.items() if name == "breasts"]
        chosen = f", chosen on {self.chosen_on}" if self.chosen_on else ""
        measured = f"; AUROC {', '.join(areas)}" if areas else ""
        return f"the breasts of an examination are pooled by {self.rule}{chosen}{measured}."


def _area(figure: Mapping[str, Any]) -> str:
    ends = (figure["value"], figure.get("low"), figure.get("high"))
    return estimate(*ends, decimals=2) if None not in ends else f"{ends[0]:.2f}"


class TaskCard(BaseModel):
    """What the model can be asked, and what was measured."""

    model_config = ConfigDict(extra="allow", frozen=True)
    classes: tuple[str, ...] = Field(min_length=1)
    metrics: dict[str, Any] = Field(default_factory=dict)
    """Metric name to a figure, or to figures by rival, or by class and rival; every leaf is a `Figure`."""
    note: str = ""
    """What must be known beside the figures, such as where they do not hold; one or more whole sentences."""
    kinds: tuple[Kind, ...] = ()
    """What the figures are of, "image" or "signal": a run asks the task of nothing else, unless it is named. Empty
    where it is asked of everything of its modalities."""
    modalities: tuple[Modality, ...] = ()
    """What the figures are of, "ct" and "mri": a run asks the task of no other images, unless it is named, and calls
    answers of other images not learned. Empty where nobody said: of all modalities that the question makes sense for.
    """
    sources: dict[str, SourceFigures] = Field(default_factory=dict)
    """By class, or under "all" for the task as a whole: the figures within each source and across them, and what may be
    said of them; empty where nobody measured that."""
    word_control: dict[str, WordControl] = Field(default_factory=dict)
    """By class, or under "all" for the task as a whole: whether words that are not the task's own would do as well;
    empty where nobody measured that."""
    pooling: ExamPooling | None = None
    """How breasts are pooled where examinations are asked; None where nobody chose: the mean of the images."""
    calibration: dict[str, Any] | None = None
    """`{"scale": float | {class: float}, "bias": {class: float}}`, fitted on validation patients."""
    thresholds: dict[str, CardThreshold] = Field(default_factory=dict)
    """By class; empty where nobody chose any. Results for other systems call a study positive or negative by them."""

    def model_post_init(self, context: Any) -> None:
        """Check that each leaf of the metrics is a figure, and that thresholds and sources are of its classes."""
        _check_figures(self.metrics, "metrics")
        for name, figures in self.sources.items():
            _check_figures(figures.figures, f"sources.{name}")
        for what, by_class in (("are sources", self.sources), ("is a word control", self.word_control)):
            if unknown := sorted(set(by_class) - {*self.classes, ALL}):
                raise ValueError(f"there {what} of {unknown[0]!r}, which is no class of the task")
        if unknown := sorted(set(self.thresholds) - set(self.classes)):
            raise ValueError(f"there is a threshold of {unknown[0]!r}, which is no class of the task")


class Source(BaseModel):
    """One set of training data."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str
    source: str = ""
    licence: str
    num_images: int | None = None
    num_patients: int | None = None


class Adaptation(BaseModel):
    """How a pack was made of another one. The shots themselves are in `shots_file`, by hash."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    task: str
    """The task that it was adapted to; one of the card's."""
    method: str
    title: str
    """The method's printed name."""
    head: str
    """Kind of the head in adapted.safetensors; see `medclip.adaptation.data.heads`."""
    changed_towers: bool
    """Whether features are others than the base's: figures of the base's tasks do not hold then."""
    base: str
    base_version: str
    base_digest: str
    """sha256 of the base's manifest.json."""
    shots: int | None
    """Patients of each class that were asked for; None where all of a table was learned from (fine-tuning)."""
    seed: int
    init_seed: int
    num_train: int
    """Units that were learned from."""
    num_val: int
    """Units that settings were chosen with."""
    num_in_training: int | None = None
    """How many of both are among the base's own training files; None where the base does not list them."""
    num_train_by_class: dict[str, int]
    num_trainable: int | None
    settings: dict[str, Any] = Field(default_factory=dict)
    deviations: tuple[str, ...] = ()
    """Where it differs from the method's published code."""
    shots_file: str
    """Side file in the pack: sha256, patient (keyed hash), role and class of each."""


class SplitFigures(BaseModel):
    """What a run measured, after its last step, on a split of its shards that it had not been trained on."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    split: str
    shards: str
    """sha256 over the hashes of the split's shards: which data the figures are of."""
    num_images: int
    """Images that were measured."""
    num_patients: int | None
    """None where the shards do not say whose images they are: intervals are over images then."""
    num_in_training: int
    """Images left out because they, or another image of their patient, were trained on."""
    problems: dict[str, int]
    """Images that could not be read, by reason."""
    figures: dict[str, dict[str, Any]]
    """Task, or "retrieval", to metrics as in `TaskCard.metrics`; of several models by "zero_shot" (this one) and
    "start" (the one that training began with)."""
    word_control: dict[str, dict[str, WordControl]] = Field(default_factory=dict)
    """By task, then as in `TaskCard`."""
    notes: tuple[str, ...] = ()

    def model_post_init(self, context: Any) -> None:
        """Check that each leaf is a figure."""
        _check_figures(self.figures, "figures")

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each figure: task, metric, value, low, high, chance."""
        return [row for task, metrics in self.figures.items() for row in figure_rows(task, metrics)]


class Card(Result, BaseModel):
    """Contents of card.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str = Field(min_length=1)
    version: str = "0"
    summary: str = ""
    intended_use: str = ""
    modalities: tuple[str, ...] = ()
    tasks: dict[str, TaskCard] = Field(default_factory=dict)
    not_claimed: dict[str, dict[str, NotClaimed]] = Field(default_factory=dict)
    """By task, and by class or "all" for the task as a whole: what was tried and is not listed in `tasks`. Empty in
    cards that do not say what else was tried."""
    data: tuple[Source, ...] = ()
    citations: tuple[Citation, ...] = ()
    """The works behind the data and what training began with, and how to cite the pack itself; empty in cards that were
    written before there were any, and in those of imported packs. `medclip models cite` prints them."""
    licence: str = ""
    """Of the weights."""
    limits: tuple[str, ...] = ()
    created_from: dict[str, Any] = Field(default_factory=dict)
    """Recipe hash, code version, seed: what it takes to train it again."""
    train_hashes_file: str | None = None
    """Side file in the pack: one sha256 of a training file a line."""
    patient_hashes_file: str | None = None
    """Side file in the pack: one hash of a training patient's id a line."""
    test_hashes_file: str | None = None
    """Side file in the pack: one sha256 of a file a line that the figures of `tasks` were measured on, so that
    `medclip evaluate` can measure them again, and behind it the adapters that read it for them ("xray", "generic");
    none of their patients was trained on or calibrated with."""
    image_hashes_file: str | None = None
    """Side file in the pack: one perceptual hash of a training image a line (`medclip.imaging.perceptual_hash`)."""
    open_set: dict[str, Any] | None = None
    held_out: SplitFigures | None = None
    """Figures of the run's own test split. They offer no task: what `score` asks by default is in `tasks`."""
    adapted: Adaptation | None = None
    """How it was made of another pack and a few labelled studies; None for packs that were not."""

    @field_validator("citations")
    @classmethod
    def _check_keys(cls, citations: tuple[Citation, ...]) -> tuple[Citation, ...]:
        keys = [citation.key.lower() for citation in citations]
        if twice := sorted({key for key in keys if keys.count(key) > 1}):
            raise ValueError(f"two entries have the key {twice[0]!r}")
        return citations

    def __str__(self) -> str:
        """Return the facts: pydantic has a text of its own, of some pages."""
        return repr(self)

    def _facts(self) -> dict[str, object]:
        return {
            "name": f"{self.name} {self.version}",
            "summary": self.summary,
            "use": self.intended_use,
            "modalities": ", ".join(self.modalities),
            "tasks": ", ".join(self.tasks),
            "data": ", ".join(dict.fromkeys(source.name for source in self.data)),
            "licence": self.licence,
            "limits": " ".join(self.limits),
        }

    def _rows(self, most: int | None = None) -> list[dict[str, Any]]:
        rows = [row for task, card in self.tasks.items() for row in figure_rows(task, card.metrics)]
        return [*rows, *(self.held_out.rows() if self.held_out is not None else ())][:most]

    def to_json(self) -> str:
        """Return the text of card.json."""
        return json.dumps(self.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n"


def read_card(folder: Path) -> Card:
    """Read the card of a pack folder.

    Raises:
        MedclipError: PACK_INVALID when it is missing or does not follow the form; the message names the field.
    """
    path = folder / FILE_NAME
    try:
        return Card.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise MedclipError(Reason.PACK_INVALID, "the pack has no readable card.json.", where=folder) from e
    except ValidationError as e:
        faults, hint = faults_of(e, Card, "a card")
        raise MedclipError(Reason.PACK_INVALID, f"the card is not valid: {faults}.", where=path, hint=hint) from e


def figure_rows(task: str, node: Mapping[str, Any], path: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Return a task's figures as rows, each with its interval, what chance gives, and over how many patients.

    None stands where a figure does not say.
    """
    if "value" in node:
        figure = {name: node.get(name) for name in ("value", "low", "high", "chance", "num_patients")}
        figure["num_images"] = node.get("num_images", node.get("num_rows"))
        return [{"task": task, "metric": " ".join(path), **figure}]
    return [row for name, child in node.items() for row in figure_rows(task, child, (*path, name))]


def training_hashes(pack: Path, card: Card) -> frozenset[str] | None:
    """Read the sha256 of each training file that a pack's card names a list of; None for a pack that lists none.

    Raises:
        MedclipError: PACK_INVALID when the list cannot be read.
    """
    return _read_list(pack, card.train_hashes_file, "training files")


def training_patients(pack: Path, card: Card) -> frozenset[str] | None:
    """Read the keyed hash of each training patient that a pack's card names a list of; None for one that lists none.

    Raises:
        MedclipError: PACK_INVALID when the list cannot be read.
    """
    return _read_list(pack, card.patient_hashes_file, "patients")


def measured_hashes(pack: Path, card: Card) -> dict[str, frozenset[str]] | None:
    """Read the sha256 of each file that a pack's figures were measured on; None for a pack that lists none.

    Returns:
        By hash the adapters through which the file was measured, "generic" for the modality; none where the list does
        not say, and all of them then.

    Raises:
        MedclipError: PACK_INVALID when the list cannot be read.
    """
    lines = _lines_of(pack, card.test_hashes_file, "files that it was measured on")
    if lines is None:
        return None
    return {words[0]: frozenset(words[1:]) for line in lines if (words := line.split())}


def _read_list(pack: Path, name: str | None, what: str) -> frozenset[str] | None:
    lines = _lines_of(pack, name, what)
    return None if lines is None else frozenset(word for line in lines for word in line.split())


def _lines_of(pack: Path, name: str | None, what: str) -> list[str] | None:
    if name is None:
        return None
    try:
        return (pack / name).read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise MedclipError(Reason.PACK_INVALID, f"the pack's list of {what} cannot be read.", where=pack / name) from e


def _check_figures(node: Any, place: str) -> None:
    if not isinstance(node, dict):
        raise ValueError(f"{place} is not a figure")
    if "value" in node:
        Figure.model_validate(node)
        return
    for name, child in node.items():
        _check_figures(child, f"{place}.{name}")


_OF_PACK = re.compile(r"LICENSE\.([A-Za-z0-9_-]+)\.txt")
"""Names of the texts of several packs in one."""


def licence_names(pack: Path) -> tuple[str, ...]:
    """Return the names of the files in a pack, or in its export, that hold the terms of its weights; none for none."""
    return tuple(sorted(p.name for p in pack.iterdir() if _is_text(p.name) and p.is_file()))


def _is_text(name: str) -> bool:
    return name == LICENCE_NAME or _OF_PACK.fullmatch(name) is not None


def licence_files(parents: Iterable[Path]) -> dict[str, bytes]:
    """Return the texts of terms that a pack made of others has to hold, by the name of the file.

    By training on, merging or exporting, it holds what these hold: their texts lie in it. What is copied file by file
    (adapted towers that stay, thresholds) has them anyhow.

    Args:
        parents: The packs that it is made of.

    Returns:
        A text that is the same in several of them once. One alone is LICENSE.txt, of several each is named by the pack
        that it comes from, as LICENSE.medclip-mini.txt. Empty where the packs have none.
    """
    texts: dict[bytes, str] = {}
    for parent in dict.fromkeys(parents):
        for name in licence_names(parent):
            of = _OF_PACK.fullmatch(name)
            pack_name = (
                of[1] if of else re.sub(r"[^A-Za-z0-9_-]+", "-", read_card(parent).name)[:60].strip("-") or "pack"
            )
            texts.setdefault((parent / name).read_bytes(), pack_name)
    if len(texts) == 1:
        return {LICENCE_NAME: next(iter(texts))}
    files: dict[str, bytes] = {}
    for text, pack_name in texts.items():
        name, number = f"LICENSE.{pack_name}.txt", 2
        while name in files:
            name, number = f"LICENSE.{pack_name}-{number}.txt", number + 1
        files[name] = text
    return files

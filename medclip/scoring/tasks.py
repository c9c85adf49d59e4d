"""Which questions are asked of a study, and the answers: class vectors are made once per run and task.

So is the modality of an image that does not state it: the pack's only one, or the one that it looks like.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medclip.adaptation.data.class_text import ClassText
from medclip.adaptation.data.token_heads import answering, columns_of, needs_tokens
from medclip.adaptation.data.unit_features import mean_logits
from medclip.adaptation.pack.pack_head import read_pack_heads, read_pack_texts
from medclip.dicom.header.body_parts import SEEN
from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.models.packs.words import no_words, understands_words
from medclip.models.prototypes.class_vectors import (
    ClassVectors,
    Wordings,
    class_logits,
    probabilities,
    spread_over_wordings,
    vectors_of,
    wordings_of,
)
from medclip.models.prototypes.open_set import typical
from medclip.runs.planning.options import ScoreOptions
from medclip.runs.rows import Ranking
from medclip.runs.units.problems import guess_problem, no_modality, untypical
from medclip.sample import Kind, Modality
from medclip.text.vocabulary.load import MODALITY_TASK, REGION_TASK, load_task, task_names
from medclip.text.vocabulary.own_words import BAR, Prompt, ad_hoc_task, templates_of
from medclip.text.vocabulary.prompts import ClassPrompts, expand
from medclip.text.vocabulary.task import Task
from medclip.wording import list_of

if TYPE_CHECKING:
    from medclip.models.inputs.preprocess import Images, Preprocess
    from medclip.models.model import Model


NO_HEADS: Mapping[str, ClassText] = MappingProxyType({})
_MOST_HOLDING = 3
"""Tasks that a hint names for a class."""
SURE_OF_PART = 0.95
"""Probability from which on the part of the body that the model sees decides what an image is asked."""
_MANY_IMAGES = 1024
"""Studies of more are scored one by one: numpy would sum them up in another order."""


@dataclass(frozen=True)
class AskedTask:
    """One task of a run."""

    task: Task
    classes: tuple[str, ...] | None
    """The classes the pack knows, in the card's order; None for all of the vocabulary's."""
    calibration: Mapping[str, Any] | None
    listed: bool
    """The pack's card lists it: there are figures for it. Otherwise nobody has measured how good the answers are."""
    prompts: tuple[Prompt, ...] = ()
    """Of a task in a person's own words."""
    templates: bool = True
    """Phrase prompts that but name a finding in the sentences of the study's modality."""
    kinds: tuple[Kind, ...] = ()
    """What it is asked of; everything where empty."""
    modalities: tuple[Modality, ...] = ()
    """Those that the card's figures are of, and that it is asked of; all that it is about where empty."""
    chosen: bool = False
    """The caller named it, or asks in own words; otherwise it is asked because the card lists it."""

    @property
    def steps(self) -> tuple[str, ...]:
        """Steps of the scale that its classes are, the lowest first; none for a task without an order."""
        return tuple(name for name in self.task.steps if name in self.names)

    def against(self, name: str) -> str | None:
        """Return what a prompt is compared with; None for the classes of other tasks."""
        return next((f" {BAR} ".join(p.against) for p in self.prompts if p.name == name), None)

    def sentences(self, modality: Modality | None) -> tuple[ClassPrompts, ...]:
        """Return what stands for each class: the vocabulary's sentences, or the prompts for images of a modality."""
        if not self.prompts:
            return expand(self.task, self.classes)
        templates = templates_of(modality if self.templates else None)
        return tuple(p.of_modality(modality).sentences(templates) for p in self.prompts)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their scores."""
        return self.classes if self.classes is not None else tuple(c.name for c in self.task.classes)

    def fits(self, modality: Modality, body_part: str = "", kind: Kind = Kind.IMAGE) -> bool:
        """Whether a unit is asked it: of a modality, of a kind, and of the body part that a header states, if any.

        A part that is but seen decides where the card lists the task; the caller's own tasks are asked all the same.
        """
        is_heard = not (self.chosen and body_part.startswith(SEEN))
        return self.fits_kind(modality, kind) and (not is_heard or self.task.is_about(body_part))

    def fits_kind(self, modality: Modality, kind: Kind) -> bool:
        """Whether units of a modality and kind are asked it: of an ECG a record, or its printed sheet."""
        return self.fits_modality(modality) and (not self.kinds or kind in self.kinds)

    def fits_modality(self, modality: Modality) -> bool:
        """Whether images of a modality are asked it."""
        return self.is_about(modality) and (not self.modalities or modality in self.modalities)

    def is_about(self, modality: Modality) -> bool:
        """Whether the question makes sense for a modality, measured there or not."""
        return not self.task.modalities or modality in self.task.modalities


def asked_tasks(
    card: Any, options: ScoreOptions, head_tasks: Mapping[str, ClassText] = NO_HEADS
) -> tuple[AskedTask, ...]:
    """Choose the tasks of a run.

    Args:
        card: The pack's card.
        head_tasks: The tasks that the pack has heads for, which it brings along; they go before those of the vocabulary
            with their names.
        options: Tasks and prompts as named by the caller; where both are absent, all tasks that the card lists, without
            the modality task, which is for files that do not say what they are. Those of several modalities (the part
            of the body) come last: what only these images can answer is looked at first. Each is asked of the
            modalities and kinds of units that its figures are of, a task that the caller names of everything.

    Raises:
        MedclipError: WRONG_USE for a task that does not exist, naming those that do.
    """
    names = list(dict.fromkeys(options.tasks))
    if not names and not options.prompts:
        names = [name for name in card.tasks if name != MODALITY_TASK]
    task_keys = tuple(dict.fromkeys((*head_tasks, *task_names())))
    unknown = [name for name in names if name not in task_keys]
    if unknown:
        hint = f"{did_you_mean(unknown[0], task_keys, 'Tasks are')} The model's card lists: {', '.join(card.tasks)}."
        raise MedclipError(
            Reason.WRONG_USE,
            f"there is no task named {unknown[0]!r}.",
            hint=_class_hint(unknown[0], card, head_tasks, task_keys) or hint,
        )
    chosen_tasks = [replace(_asked(card, name, head_tasks), chosen=bool(options.tasks)) for name in names]
    if not options.tasks:
        entries = [card.tasks[one.task.name] for one in chosen_tasks]
        chosen_tasks = [
            replace(one, kinds=entry.kinds, modalities=entry.modalities)
            for one, entry in zip(chosen_tasks, entries, strict=True)
        ]
        chosen_tasks.sort(key=lambda one: len(one.task.modalities) > 1)
    if options.prompts:
        own_words = ad_hoc_task(options.prompts)
        chosen_tasks.append(AskedTask(own_words, None, None, False, options.prompts, options.templates, chosen=True))
    return tuple(chosen_tasks)


def _class_hint(name: str, card: Any, head_tasks: Mapping[str, ClassText], task_keys: Sequence[str]) -> str:
    """Return the hint for the name of a class in the place of a task's, those of the card first; blank for any other.

    A class may be named by its key or as it is printed.
    """

    def letters(text: str) -> str:
        return " ".join(text.casefold().replace("_", " ").split())

    tasks = {one: head_tasks[one].task if one in head_tasks else load_task(one) for one in task_keys}
    words = {t: {letters(w) for c in task.classes for w in (c.name, c.title)} for t, task in tasks.items()}
    holding = [task for task, of in words.items() if letters(name) in of]
    if not holding:
        return ""
    ordered = sorted(holding, key=lambda task: task not in card.tasks)[:_MOST_HOLDING]
    return f"{name} is a class of {list_of(ordered)}: {list_of([f'--task {task}' for task in ordered], 'or')}."


def check_words(
    pack: Path, card: Any, tasks: Sequence[AskedTask], head_tasks: Mapping[str, ClassText] = NO_HEADS
) -> None:
    """Refuse questions that a pack cannot answer: to an image-only one, and of a risk to any, all but its heads' own.

    Raises:
        MedclipError: WRONG_USE naming the prompt or the task.
    """
    for question in tasks:
        if not question.task.has_words and question.task.name not in head_tasks:
            raise MedclipError(
                Reason.WRONG_USE,
                f"the task {question.task.name} is a risk, which words cannot ask, and the pack {card.name} has no "
                "head for it.",
                hint="Train one: objective.supervised in a recipe of medclip pretrain.",
            )
    if understands_words(pack):
        return
    if not tasks:
        raise no_words(card.name, ", and it was not adapted to a task")
    for question in tasks:
        if question.task.name not in head_tasks or question.task != head_tasks[question.task.name].task:
            needs = f"the prompt {question.names[0]!r}" if question.prompts else f"the task {question.task.name}"
            raise no_words(card.name, f", which {needs} needs")


def score_named(tasks: Sequence[AskedTask], sort_by: str) -> Ranking:
    """Read TASK:CLASS as a class of a run, and TASK alone as its one class or as the expected step of its scale.

    Args:
        tasks: Tasks of the run.
        sort_by: Task, or task and class, that the caller named.

    Raises:
        MedclipError: WRONG_USE, naming those that there are.
    """
    name, colon, wanted = sort_by.partition(":")
    question = next((question for question in tasks if question.task.name == name), None)
    if question is None:
        class_ = " ".join(sort_by.split())
        classes = [f"{question.task.name}:{class_}" for question in tasks if class_ in question.names]
        hint = did_you_mean(name, [question.task.name for question in tasks], "Its tasks are")
        raise MedclipError(
            Reason.WRONG_USE,
            f"studies cannot be sorted by {name!r}, which is no task of this run.",
            hint=f"Did you mean {' or '.join(map(repr, classes))}?" if classes else hint,
        )
    if question.task.rules.placed:
        raise MedclipError(
            Reason.WRONG_USE,
            f"the task {name} is answered with maps, which studies cannot be sorted by.",
            hint="Sort the table maps.parquet by its share or its area.",
        )
    if not colon and len(question.names) == 1:
        return Ranking(name, question.names)
    if not colon and len(question.steps) > 1:
        return Ranking(name, question.steps)
    class_ = " ".join(wanted.split())  # as prompts are
    if class_ in question.names:
        return Ranking(name, (class_,))
    classes_hint = did_you_mean(class_, question.names, "Its classes are")
    if not colon:
        message = f"the task {name} has {len(question.names)} classes; studies are sorted by one, named as TASK:CLASS."
    else:
        message = f"studies cannot be sorted by {class_!r}, which is no class of the task {name}."
    raise MedclipError(Reason.WRONG_USE, message, hint=classes_hint)


def modality_task(card: Any) -> AskedTask | None:
    """Return the task that infers modalities, None for a pack that has none."""
    return _asked(card, MODALITY_TASK) if MODALITY_TASK in card.tasks else None


def region_task(card: Any) -> AskedTask | None:
    """Return the task that says which body part an image shows, None for a pack whose card does not list it."""
    if REGION_TASK not in card.tasks:
        return None
    return replace(_asked(card, REGION_TASK), modalities=card.tasks[REGION_TASK].modalities)


def _asked(card: Any, name: str, head_tasks: Mapping[str, ClassText] = NO_HEADS) -> AskedTask:
    entry = card.tasks.get(name)
    task = head_tasks[name].task if name in head_tasks else load_task(name)
    if entry is None:
        return AskedTask(task, None, None, listed=False)
    return AskedTask(task, tuple(entry.classes), entry.calibration, listed=True)


class Scorer:
    """Scores image features against tasks with one loaded model: a pack's heads answer their own tasks, and prompts
    every other.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._heads = read_pack_heads(model.path, model.card)
        of_tasks = {name: (own.head, len(own.text.names)) for name, own in self._heads.items()}
        self._columns = columns_of(of_tasks, getattr(model, "dim", 0))
        self._vectors: dict[tuple[str, Modality | None], ClassVectors] = {}
        self._wordings: dict[tuple[str, Modality | None], Wordings] = {}

    @property
    def has_text(self) -> bool:
        """Whether its model understands words."""
        return self._model.has_text

    @property
    def encoder(self) -> Any:
        """What encodes images so that its heads of tokens can answer; None where the pack has none."""
        return answering(self._model, [own.head for own in self._heads.values()]) if self._columns else None

    def takes_tokens(self, asked: AskedTask) -> bool:
        """Whether a head of tokens answers a task, for which rows of `encoder` are handed over as features."""
        return self.has_head(asked) and asked.task.name in self._columns

    def logits(
        self, features_ND: NDArray[np.float32], question: AskedTask, modality: Modality | None = None
    ) -> NDArray[np.float32]:
        """Return the logits of N images of a modality: float32 [N, C]. A logit bias would cancel out in them."""
        if self.has_head(question):
            if (columns := self._columns.get(question.task.name)) is None:
                return self._heads[question.task.name].head.logits(features_ND, self._model)
            if features_ND.shape[1] < columns.stop:
                raise needs_tokens(question.task.name)
            return features_ND[:, columns]
        vectors, scale = self.vectors(question, modality), self._model.logit_scale
        return class_logits(features_ND, vectors, question.task.kind, scale, question.calibration)

    def map_grids(self, row_X: NDArray[np.float32], question: AskedTask) -> NDArray[np.float32]:
        """Return the map that an image's row of `encoder` holds for a task: float32 [C, rows, columns], above 0 where.

        Args:
            row_X: Row of `encoder` of one image.
            question: Task that is answered with a map.
        """
        head: Any = self._heads[question.task.name].head
        return head.grids(row_X[self._columns[question.task.name]])

    def study(
        self, features_ND: NDArray[np.float32], question: AskedTask, modality: Modality | None = None
    ) -> tuple[tuple[str, ...], NDArray[np.float32], NDArray[np.float32]]:
        """Score one study: the mean of its images' logits, then softmax or sigmoid.

        Args:
            features_ND: float32 [N, D] of all images of the study.
            question: The task.
            modality: Modality of the study, for the sentences that a bare finding is put into.

        Returns:
            Class names, logits [C] and probabilities [C].
        """
        logits = mean_logits(self.logits(features_ND, question, modality))
        return question.names, logits, probabilities(logits[None], question.task.kind)[0]

    def likeliest(self, features_VD: NDArray[np.float32], question: AskedTask) -> tuple[str, float]:
        """Return the likeliest class of a study, or of a unit, and its probability."""
        names, _, probability = self.study(features_VD, question)
        best = int(np.argmax(probability))
        return names[best], float(probability[best])

    def part(self, features_VD: NDArray[np.float32], modality: Modality, question: AskedTask) -> str:
        """Return the terms of the body part that a unit shows; blank where the model is not sure of it, or not asked.

        Args:
            features_VD: float32 [V, D] of its views.
            modality: Modality of the unit.
            question: The task that `region_task` returned.
        """
        if not question.fits_modality(modality):
            return ""
        name, probability = self.likeliest(features_VD, question)
        return next(c.shows for c in question.task.classes if c.name == name) if probability >= SURE_OF_PART else ""

    def studies(
        self, features_SVD: NDArray[np.float32], question: AskedTask, modality: Modality | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Score S studies of as many images each: logits and probabilities, [S, C], with the bits that `study` has."""
        if self.has_head(question) or features_SVD.shape[1] > _MANY_IMAGES:
            logits = np.stack([mean_logits(self.logits(features, question, modality)) for features in features_SVD])
        else:  # a product for each study: that of all at once would have other last bits
            logits = self.logits(features_SVD, question, modality).astype(np.float64).mean(axis=1).astype(np.float32)
        return logits, probabilities(logits, question.task.kind)

    def spreads(
        self, features_SVD: NDArray[np.float32], question: AskedTask, modality: Modality | None = None
    ) -> list[tuple[NDArray[np.float64], NDArray[np.float64]] | None]:
        """Return by how much logits and probabilities of S studies change with the wording: `spread_over_wordings`.

        None for each class of a pack's own head, which is not made of words.
        """
        if self.has_head(question):
            return [None] * len(question.names)
        vectors, wordings = self.vectors(question, modality), self._wordings_of(question, modality)
        scale = self._model.logit_scale
        means_SD = np.asarray(features_SVD, np.float64).mean(axis=1)
        return spread_over_wordings(means_SD, vectors, wordings, question.task.kind, scale, question.calibration)

    def vectors(self, question: AskedTask, modality: Modality | None = None) -> ClassVectors:
        """Return a task's class vectors; its sentences are encoded on first use."""
        key = (question.task.name, modality if question.prompts else None)
        if key not in self._vectors:
            self._vectors[key] = vectors_of(self._model, question.sentences(modality), question.task.kind)
        return self._vectors[key]

    def _wordings_of(self, question: AskedTask, modality: Modality | None) -> Wordings:
        key = (question.task.name, modality if question.prompts else None)
        if key not in self._wordings:
            self._wordings[key] = wordings_of(self._model, question.sentences(modality))
        return self._wordings[key]

    def has_head(self, question: AskedTask) -> bool:
        """Whether the pack's own head answers a task, and no words do."""
        head = self._heads.get(question.task.name)
        return head is not None and question.task == head.text.task


def only_modality(
    card: Any, head_tasks: Mapping[str, ClassText] = MappingProxyType({}), preprocess: Preprocess | None = None
) -> Modality | None:
    """Return the modality that all questions to a pack are about, None where there are several or none.

    A pack that can tell modalities apart is asked which one a file is of; it needs no such guess. A pack that takes
    signals reads ECGs alone, whatever its card says.

    Args:
        card: The pack's card.
        head_tasks: Tasks that the pack has heads for, which it brings along.
        preprocess: Preprocessing of the pack.
    """
    if preprocess is not None and preprocess.modality is not None:
        return preprocess.modality
    if MODALITY_TASK in card.tasks:
        return None
    vocabulary = frozenset(task_names())
    about: set[frozenset[str]] = set()
    for name in card.tasks:
        if name in head_tasks:
            about.add(frozenset(map(str, head_tasks[name].task.modalities)))
        elif name in vocabulary:
            about.add(frozenset(map(str, load_task(name).modalities)))
    names = set(card.modalities)
    if about and all(about):
        names = set().union(*about)
    with suppress(ValueError):
        return Modality(names.pop()) if len(names) == 1 else None
    return None


class KnownModality:
    """Decides for one image at a time, as a scoring run does for a folder.

    Args:
        model: The loaded model.
        min_confidence: Least probability at which an inferred modality is believed.
    """

    def __init__(self, model: Model, min_confidence: float) -> None:
        self._model, self._least = model, min_confidence
        self._task = modality_task(model.card) if model.has_text else None

    @property
    def stated(self) -> Modality | None:
        """The modality of a pack that knows one alone, which needs no guess."""
        head_tasks = read_pack_texts(self._model.path, self._model.card)
        return only_modality(self._model.card, head_tasks, self._model.preprocess)

    def infer(self, kind: Kind, images: Images, *, coloured: bool) -> Modality:
        """Return what an image in its generic rendering looks like.

        Raises:
            MedclipError: MODALITY_UNKNOWN, MODALITY_UNCERTAIN.
        """
        problem = no_modality(kind) if kind is not Kind.IMAGE or self._task is None else None
        if problem is None and self._task is not None:
            features_VD = self._model.encode_image(images)
            name, probability = Scorer(self._model).likeliest(features_VD, self._task)
            problem = guess_problem(name, probability, self._least, coloured=coloured)
            if problem is None and not typical(self._model, features_VD[:1], name)[0]:
                problem = untypical(name)
            if problem is None:
                return Modality(name)
        assert problem is not None
        raise problem.error(None)

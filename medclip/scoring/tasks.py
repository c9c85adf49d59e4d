"""Which questions are asked of a study, and the answers: class vectors are made once per run and task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.adaptation.data.class_text import ClassText
from medclip.adaptation.data.token_heads import answering, columns_of, needs_tokens
from medclip.adaptation.data.unit_features import mean_logits
from medclip.adaptation.pack.pack_head import read_pack_heads
from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.models.packs.words import no_words, understands_words
from medclip.models.prototypes.class_vectors import ClassVectors, probabilities, score_features, vectors_of
from medclip.models.prototypes.wordings import Wordings, spread_over_wordings, wordings_of
from medclip.runs.planning.options import ScoreOptions
from medclip.sample import Kind, Modality
from medclip.text.vocabulary.load import MODALITY_TASK, load_task, task_names
from medclip.text.vocabulary.own_words import BAR, Prompt, ad_hoc_task, templates_of
from medclip.text.vocabulary.prompts import ClassPrompts, expand
from medclip.text.vocabulary.task import Task
from medclip.wording import list_of

NO_HEADS: Mapping[str, ClassText] = MappingProxyType({})
_MOST_HOLDING = 3
"""Tasks that a hint names for a class."""
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

    def against(self, name: str) -> str | None:
        """Return what a prompt is compared with; None for the classes of other tasks."""
        return next((f" {BAR} ".join(p.against) for p in self.prompts if p.name == name), None)

    def sentences(self, modality: Modality | None) -> tuple[ClassPrompts, ...]:
        """Return what stands for each class: the vocabulary's sentences, or the prompts for images of a modality."""
        if not self.prompts:
            return expand(self.task, self.classes)
        templates = templates_of(modality if self.templates else None)
        return tuple(p.sentences(templates) for p in self.prompts)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their scores."""
        return self.classes if self.classes is not None else tuple(c.name for c in self.task.classes)

    def fits(self, modality: Modality, body_part: str = "", kind: Kind = Kind.IMAGE) -> bool:
        """Whether a unit is asked it: of a modality, of a kind, and of the body part that a header states, if any."""
        return self.fits_kind(modality, kind) and self.task.is_about(body_part)

    def fits_kind(self, modality: Modality, kind: Kind) -> bool:
        """Whether units of a modality and kind are asked it: of an ECG a record, or its printed sheet."""
        return self.fits_modality(modality) and (not self.kinds or kind in self.kinds)

    def fits_modality(self, modality: Modality) -> bool:
        """Whether images of a modality are asked it."""
        return self.is_about(modality) and (not self.modalities or modality in self.modalities)

    def is_about(self, modality: Modality) -> bool:
        """Whether the question makes sense for a modality, measured there or not."""
        return not self.task.modalities or modality in self.task.modalities


def asked_tasks(card: Any, options: ScoreOptions, own: Mapping[str, ClassText] = NO_HEADS) -> tuple[AskedTask, ...]:
    """Choose the tasks of a run.

    Args:
        card: The pack's card.
        own: The tasks that the pack has heads for, which it brings along; they go before vocabulary tasks of their
            names.
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
    known = tuple(dict.fromkeys((*own, *task_names())))
    unknown = [name for name in names if name not in known]
    if unknown:
        hint = f"{did_you_mean(unknown[0], known, 'Tasks are')} The model's card lists: {', '.join(card.tasks)}."
        raise MedclipError(
            Reason.WRONG_USE,
            f"there is no task named {unknown[0]!r}.",
            hint=_class_hint(unknown[0], card, own, known) or hint,
        )
    asked = [replace(_asked(card, name, own), chosen=bool(options.tasks)) for name in names]
    if not options.tasks:
        entries = [card.tasks[one.task.name] for one in asked]
        asked = [
            replace(one, kinds=entry.kinds, modalities=entry.modalities)
            for one, entry in zip(asked, entries, strict=True)
        ]
        asked.sort(key=lambda one: len(one.task.modalities) > 1)
    if options.prompts:
        own_words = ad_hoc_task(options.prompts)
        asked.append(AskedTask(own_words, None, None, False, options.prompts, options.templates, chosen=True))
    return tuple(asked)


def _class_hint(name: str, card: Any, own: Mapping[str, ClassText], known: Sequence[str]) -> str:
    """Return the hint for the name of a class in the place of a task's, those of the card first; blank for any other.

    A class may be named by its key or as it is printed.
    """

    def letters(text: str) -> str:
        return " ".join(text.casefold().replace("_", " ").split())

    tasks = {one: own[one].task if one in own else load_task(one) for one in known}
    words = {t: {letters(w) for c in task.classes for w in (c.name, c.title)} for t, task in tasks.items()}
    holding = [task for task, of in words.items() if letters(name) in of]
    if not holding:
        return ""
    ordered = sorted(holding, key=lambda task: task not in card.tasks)[:_MOST_HOLDING]
    return f"{name} is a class of {list_of(ordered)}: {list_of([f'--task {task}' for task in ordered], 'or')}."


def check_words(pack: Path, card: Any, tasks: Sequence[AskedTask], own: Mapping[str, ClassText] = NO_HEADS) -> None:
    """Refuse questions that a pack cannot answer: to an image-only one, and of a risk to any, all but its heads' own.

    Args:
        pack: Folder of the pack.
        card: Card of the pack.
        tasks: Tasks of the run.
        own: Tasks that the pack has heads for.

    Raises:
        MedclipError: WRONG_USE naming the prompt or the task.
    """
    for asked in tasks:
        if not asked.task.has_words and asked.task.name not in own:
            raise MedclipError(
                Reason.WRONG_USE,
                f"the task {asked.task.name} is a risk, which words cannot ask, and the pack {card.name} has no head "
                "for it.",
                hint="Train one: objective.supervised in a recipe of medclip pretrain.",
            )
    if understands_words(pack):
        return
    if not tasks:
        raise no_words(card.name, ", and it was not adapted to a task")
    for asked in tasks:
        if asked.task.name not in own or asked.task != own[asked.task.name].task:
            needs = f"the prompt {asked.names[0]!r}" if asked.prompts else f"the task {asked.task.name}"
            raise no_words(card.name, f", which {needs} needs")


def score_named(tasks: Sequence[AskedTask], sort_by: str) -> tuple[str, str]:
    """Read TASK:CLASS, or TASK alone where it has one class, as a task and a class of a run.

    Args:
        tasks: Tasks of the run.
        sort_by: Task, or task and class, that the caller named.

    Raises:
        MedclipError: WRONG_USE, naming those that there are.
    """
    name, colon, wanted = sort_by.partition(":")
    asked = next((asked for asked in tasks if asked.task.name == name), None)
    if asked is None:
        class_ = " ".join(sort_by.split())
        classes = [f"{asked.task.name}:{class_}" for asked in tasks if class_ in asked.names]
        hint = did_you_mean(name, [asked.task.name for asked in tasks], "Its tasks are")
        raise MedclipError(
            Reason.WRONG_USE,
            f"studies cannot be sorted by {name!r}, which is no task of this run.",
            hint=f"Did you mean {' or '.join(map(repr, classes))}?" if classes else hint,
        )
    if not colon and len(asked.names) == 1:
        return name, asked.names[0]
    class_ = " ".join(wanted.split())  # as prompts are
    if class_ in asked.names:
        return name, class_
    known = did_you_mean(class_, asked.names, "Its classes are")
    if not colon:
        message = f"the task {name} has {len(asked.names)} classes; studies are sorted by one, named as TASK:CLASS."
    else:
        message = f"studies cannot be sorted by {class_!r}, which is no class of the task {name}."
    raise MedclipError(Reason.WRONG_USE, message, hint=known)


def modality_task(card: Any) -> AskedTask | None:
    """Return the task that infers modalities, None for a pack that has none."""
    return _asked(card, MODALITY_TASK) if MODALITY_TASK in card.tasks else None


def _asked(card: Any, name: str, own: Mapping[str, ClassText] = NO_HEADS) -> AskedTask:
    entry = card.tasks.get(name)
    task = own[name].task if name in own else load_task(name)
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
        self, features_ND: NDArray[np.float32], asked: AskedTask, modality: Modality | None = None
    ) -> NDArray[np.float32]:
        """Return the logits of N images of a modality: float32 [N, C]. A logit bias would cancel out in them."""
        if self.has_head(asked):
            if (columns := self._columns.get(asked.task.name)) is None:
                return self._heads[asked.task.name].head.logits(features_ND, self._model)
            if features_ND.shape[1] < columns.stop:
                raise needs_tokens(asked.task.name)
            return features_ND[:, columns]
        vectors, scale = self.vectors(asked, modality), self._model.logit_scale
        return score_features(features_ND, vectors, asked.task.kind, scale, asked.calibration)[0]

    def study(
        self, features_ND: NDArray[np.float32], asked: AskedTask, modality: Modality | None = None
    ) -> tuple[tuple[str, ...], NDArray[np.float32], NDArray[np.float32]]:
        """Score one study: the mean of its images' logits, then softmax or sigmoid.

        Args:
            features_ND: float32 [N, D] of all images of the study.
            asked: The task.
            modality: Modality of the study, for the sentences that a bare finding is put into.

        Returns:
            Class names, logits [C] and probabilities [C].
        """
        logits = mean_logits(self.logits(features_ND, asked, modality))
        return asked.names, logits, probabilities(logits[None], asked.task.kind)[0]

    def likeliest(self, features_VD: NDArray[np.float32], asked: AskedTask) -> tuple[str, float]:
        """Return the likeliest class of a study, or of a unit, and its probability."""
        names, _, probability = self.study(features_VD, asked)
        best = int(np.argmax(probability))
        return names[best], float(probability[best])

    def studies(
        self, features_SVD: NDArray[np.float32], asked: AskedTask, modality: Modality | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Score S studies of as many images each: logits and probabilities, [S, C], with the bits that `study` has."""
        if self.has_head(asked) or features_SVD.shape[1] > _MANY_IMAGES:
            logits = np.stack([mean_logits(self.logits(features, asked, modality)) for features in features_SVD])
        else:  # a product for each study: that of all at once would have other last bits
            logits = self.logits(features_SVD, asked, modality).astype(np.float64).mean(axis=1).astype(np.float32)
        return logits, probabilities(logits, asked.task.kind)

    def spreads(
        self, features_SVD: NDArray[np.float32], asked: AskedTask, modality: Modality | None = None
    ) -> list[tuple[NDArray[np.float64], NDArray[np.float64]] | None]:
        """Return by how much logits and probabilities of S studies change with the wording: `spread_over_wordings`.

        None for each class of a pack's own head, which is not made of words.
        """
        if self.has_head(asked):
            return [None] * len(asked.names)
        vectors, wordings = self.vectors(asked, modality), self._wordings_of(asked, modality)
        scale = self._model.logit_scale
        means_SD = np.asarray(features_SVD, np.float64).mean(axis=1)
        return spread_over_wordings(means_SD, vectors, wordings, asked.task.kind, scale, asked.calibration)

    def vectors(self, asked: AskedTask, modality: Modality | None = None) -> ClassVectors:
        """Return a task's class vectors; its sentences are encoded on first use."""
        key = (asked.task.name, modality if asked.prompts else None)
        if key not in self._vectors:
            self._vectors[key] = vectors_of(self._model, asked.sentences(modality), asked.task.kind)
        return self._vectors[key]

    def _wordings_of(self, asked: AskedTask, modality: Modality | None) -> Wordings:
        key = (asked.task.name, modality if asked.prompts else None)
        if key not in self._wordings:
            self._wordings[key] = wordings_of(self._model, asked.sentences(modality))
        return self._wordings[key]

    def has_head(self, asked: AskedTask) -> bool:
        """Whether the pack's own head answers a task, and no words do."""
        own = self._heads.get(asked.task.name)
        return own is not None and asked.task == own.text.task

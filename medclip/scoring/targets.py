"""What of a task is explained: the very logits that scoring computes, of a prompt, a class, or a pack's own head."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medclip.adaptation.pack.pack_head import read_pack_texts
from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.explaining.target import Target, logit_target
from medclip.models.packs.card_sources import class_figures, measured_of
from medclip.runs.planning.options import ScoreOptions
from medclip.sample import Kind, Modality, spoken
from medclip.scoring.cautions import Cautions, answer_cautions, elsewhere, place_notes, question_notes
from medclip.scoring.tasks import AskedTask, Scorer, asked_tasks
from medclip.text.vocabulary.load import MODALITY_TASK, load_task, spoken_names
from medclip.text.vocabulary.own_words import AD_HOC
from medclip.wording import list_of

if TYPE_CHECKING:
    from medclip.models.model import Model

_MOST_TASKS = 3
"""Tasks of the vocabulary, beside those of the card, that are looked at for the least related question."""
_RELATED = 0.5
"""Cosine of two directions from which on they ask much the same."""


@dataclass(frozen=True, eq=False)
class Question:
    """A task that is asked of a unit, and the class that is meant."""

    asked: AskedTask
    class_: str | None = None
    """None: the one of the highest probability."""


class Targets:
    """Turns what a person asks into what is explained.

    Args:
        model: The loaded model.
        options: Prompts and what they are compared with.
        named: Tasks, and classes as TASK:CLASS; where neither these nor prompts are named, the card's tasks.
        contrast: Whether to compare as the score does. False: the logit of a prompt or class by itself.

    Raises:
        MedclipError: WRONG_USE for a task or class that there is not, and for words of a pack that has none.
    """

    def __init__(
        self, model: Model, options: ScoreOptions, named: Sequence[str] = (), *, contrast: bool = True
    ) -> None:
        self.model, self._contrast = model, contrast
        self._scorer = Scorer(model)
        self._head_tasks = read_pack_texts(model.path, model.card)
        self._top_only = not named and not options.prompts
        self._questions = self._read(options, named)
        self._tasks = tuple({one.asked.task.name: one.asked for one in self._questions}.values())
        self.notes = question_notes(model.card, self._tasks, Path(model.path))
        """What is worth knowing of what was asked, as a run has it."""
        if options.prompts and not model.has_text:
            drawable = (
                f"of a class of its own task: --task {next(iter(self._head_tasks))}:CLASS"
                if self._head_tasks
                else "of no class either"
            )
            raise MedclipError(
                Reason.WRONG_USE,
                f"the pack {model.name} has no text tower, so that no prompt can be explained.",
                hint=f"It can show the heat map {drawable}.",
            )

    def _read(self, options: ScoreOptions, named: Sequence[str]) -> tuple[Question, ...]:
        tasks = tuple(dict.fromkeys(name.partition(":")[0] for name in named))
        prompts = ScoreOptions(tasks=tasks, prompts=options.prompts, templates=options.templates)
        by_name = {one.task.name: one for one in asked_tasks(self.model.card, prompts, self._head_tasks)}
        if not by_name:
            hint = "Name a --prompt." if self.model.has_text else "Adapt it first: medclip adapt."
            raise MedclipError(
                Reason.WRONG_USE, "the pack's card lists no task, and nothing was named to explain.", hint=hint
            )
        results = [Question(by_name[task], class_of(by_name[task], class_)) for task, class_ in map(_parts, named)]
        if AD_HOC in by_name:
            results += [Question(by_name[AD_HOC], prompt) for prompt in by_name[AD_HOC].names]
        return tuple(results or map(Question, by_name.values()))

    def of(
        self, features_VD: NDArray[np.float32], modality: Modality | None, kind: Kind = Kind.IMAGE
    ) -> tuple[Target, ...]:
        """Return what is explained of one unit.

        Where nothing was named, that is one class: the finding of the highest probability, or the class of the first
        task where none is about findings.

        Args:
            features_VD: Vectors of the unit's images, float32 [V, D].
            modality: Modality of the unit; questions about others are passed over.
            kind: Kind of the unit; questions that a run asks of other kinds alone are passed over, too.

        Raises:
            MedclipError: NO_TASK where no question fits.
        """
        fitting = [q for q in self._questions if modality is None or q.asked.fits_kind(modality, kind)]
        if not fitting:
            names = list_of([q.asked.task.name for q in self._questions], most=4)
            what = "images of an unknown modality" if modality is None else f"{spoken(modality)} images"
            raise MedclipError(
                Reason.NO_TASK, f"no task that was asked ({names}) is about {what}.", hint="Ask with --prompt."
            )
        best = [question if question.class_ else self._best(question, features_VD, modality) for question in fitting]
        if self._top_only:
            findings = [question for question in best if question.asked.task.rules.independent]
            best = [max(findings, key=lambda q: self._score(q, features_VD, modality))] if findings else best[:1]
        return tuple(
            replace(
                target,
                caution="" if modality is None else self._caution(target, modality, kind),
                figures=self._figures(target, modality, kind),
            )
            for target in (self._target(question, modality) for question in best)
        )

    def place_notes(self, explained: Iterable[tuple[str, str, str]]) -> tuple[str, ...]:
        """Write which of the scores that were explained may tell the place instead of the patient, as a run does.

        Args:
            explained: Modality of the unit, task and class.
        """
        pairs = list(explained)
        of = [
            (asked_task, {name for _, task, name in pairs if task == asked_task.task.name})
            for asked_task in self._tasks
        ]
        alone = [
            replace(asked_task, prompts=tuple(p for p in asked_task.prompts if p.name in names))
            if asked_task.prompts
            else replace(asked_task, classes=tuple(name for name in asked_task.names if name in names))
            for asked_task, names in of
            if names
        ]
        return place_notes(self.model.card, alone, {modality for modality, _, _ in pairs})

    @cached_property
    def _cautions(self) -> Cautions:
        tokenizer = self.model.tokenizer if self.model.has_text else None
        return answer_cautions(self.model.card, self._tasks, Path(self.model.path), tokenizer)

    def _caution(self, target: Target, modality: Modality, kind: Kind) -> str:
        return self._cautions.get((modality, kind, target.task, target.name), "")

    def _figures(self, target: Target, modality: Modality | None, kind: Kind) -> tuple[Mapping[str, Any], ...]:
        """Return what the card says of a class of a task that it lists; of units that nobody measured nothing."""
        card, task = self.model.card, target.task
        if task not in card.tasks or (modality is not None and elsewhere(card, [task], modality, [kind])):
            return ()
        figures = class_figures(measured_of(card, task), card.tasks[task].sources, target.name)
        return tuple(one.facts() for one in figures)

    def named(self, task: str, class_: str, modality: Modality | None) -> Target | None:
        """Return one class of what is asked; None where it is not asked."""
        asked_task = next((q.asked for q in self._questions if q.asked.task.name == task), None)
        if asked_task is None or class_ not in asked_task.names:
            return None
        return self._target(Question(asked_task, class_), modality)

    def least_related(self, target: Target, feature_D: NDArray[np.float32], modality: Modality | None) -> Target | None:
        """Return what has least to do with a target: whose direction is nearest to a right angle to its.

        Findings of the card and of the vocabulary are looked at; where all are related, also choices such as the view
        or another grade of the same scale.

        Returns:
            None where there is no other: a pack with a head of two classes alone.
        """
        direction_D = target.direction(feature_D)
        ranked = [
            (abs(_cosine(direction_D, other.direction(feature_D))), asked_task.task.rules.independent, other)
            for asked_task in self._others(modality)
            for name in asked_task.names
            if asked_task.task.name != target.task
            or (name != target.name and not (asked_task.task.rules.one_answer and len(asked_task.names) == 2))
            for other in (self._target(Question(asked_task, name), modality),)
        ]
        findings = [entry for entry in ranked if entry[1] and entry[0] < _RELATED]
        return min(findings or ranked, key=lambda entry: entry[0], default=(0.0, False, None))[2]

    def _others(self, modality: Modality | None) -> list[AskedTask]:
        def fits(asked_task: AskedTask) -> bool:
            return asked_task.task.name != MODALITY_TASK and (modality is None or asked_task.fits_modality(modality))

        words, card = self.model.has_text, self.model.card
        names = tuple(name for name in card.tasks if words or name in self._head_tasks)
        chosen = (
            [one for one in asked_tasks(card, ScoreOptions(tasks=names), self._head_tasks) if fits(one)]
            if names
            else []
        )
        if words:
            more = (AskedTask(load_task(n), None, None, listed=False) for n in spoken_names() if n not in names)
            chosen += [one for one in more if fits(one)][:_MOST_TASKS]
        return chosen

    def _best(self, question: Question, features_VD: NDArray[np.float32], modality: Modality | None) -> Question:
        names, _, probability = self._scorer.study(features_VD, question.asked, modality)
        return Question(question.asked, names[int(np.argmax(probability))])

    def _score(self, question: Question, features_VD: NDArray[np.float32], modality: Modality | None) -> float:
        names, logits, _ = self._scorer.study(features_VD, question.asked, modality)
        return float(logits[names.index(question.class_ or "")])

    def _target(self, question: Question, modality: Modality | None) -> Target:
        asked_task, name = question.asked, question.class_ or ""
        number, exclusive = asked_task.names.index(name), asked_task.task.rules.one_answer
        logits = partial(self._scorer.logits, question=asked_task, modality=modality)
        if not self._contrast:
            if not exclusive and not self._scorer.has_head(asked_task):
                vectors_CD = self._scorer.vectors(asked_task, modality).positive * np.float32(self.model.logit_scale)
                return logit_target(name, "", asked_task.task.name, lambda f: f @ vectors_CD.T, number, exclusive=False)
            return logit_target(name, "", asked_task.task.name, logits, number, exclusive=False)
        against = asked_task.against(name) or ("the other classes" if exclusive else f"no {name.replace('_', ' ')}")
        return logit_target(name, against, asked_task.task.name, logits, number, exclusive=exclusive)


def _parts(named: str) -> tuple[str, str]:
    task, _, class_ = named.partition(":")
    return task, " ".join(class_.split())


def class_of(asked_task: AskedTask, class_: str) -> str | None:
    """Return the class that is named, None for none.

    Raises:
        MedclipError: WRONG_USE where the task has no such class.
    """
    if class_ and class_ not in asked_task.names:
        raise MedclipError(
            Reason.WRONG_USE,
            f"the task {asked_task.task.name} has no class {class_!r}.",
            hint=did_you_mean(class_, asked_task.names, "Its classes are"),
        )
    return class_ or None


def _cosine(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    return float(one @ other / max(1e-12, np.linalg.norm(one) * np.linalg.norm(other)))

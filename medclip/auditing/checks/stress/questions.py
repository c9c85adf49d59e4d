"""Which question of a pack answers a label of the audit, also in the context of an image.

Would naming view, device, quality or patient make groups more alike? See `medclip.models.prototypes.context_prompts`.
The context is inferred from the image; where the label table knows it (view, sex) also taken from there. Phrases of a
device go with findings: a gain there may be the label told by the phrase.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medclip.adaptation.pack.pack_head import read_pack_texts
from medclip.auditing.checks.stress.shifts import Condition
from medclip.models.prototypes.class_vectors import encode_prompts
from medclip.models.prototypes.context_prompts import in_context
from medclip.runs.planning.options import ScoreOptions
from medclip.sample import Modality
from medclip.scoring.tasks import AskedTask, asked_tasks, check_words
from medclip.statistics.cohort import Cohort
from medclip.text.vocabulary.contexts import CONTEXTS, UNKNOWN, Attribute, combinations, completed
from medclip.text.vocabulary.find_task import class_said, find_task
from medclip.text.vocabulary.prompts import expand

if TYPE_CHECKING:
    from medclip.models.model import Model


@dataclass(frozen=True)
class Question:
    """One class of one task of a pack."""

    asked: AskedTask
    place: int
    """Of the class among `asked.names`."""

    @property
    def name(self) -> str:
        """Return task and class as `medclip score` writes them."""
        return f"{self.asked.task.name}:{self.asked.names[self.place]}"


def pack_tasks(model: Any, modality: Modality, task: str | Path | None = None) -> tuple[AskedTask, ...]:
    """List the tasks of a pack that can be asked of a modality.

    Args:
        model: A loaded pack.
        modality: Modality of the images.
        task: The only one that is wanted, by name or as a task file; None: all that the card lists.

    Raises:
        MedclipError: WRONG_USE or NO_TASK for a task that there is none of; WRONG_USE for one that an image-only pack
            was not adapted to.
    """
    own = read_pack_texts(model.path, model.card)
    if task is not None and Path(task).suffix.lower() in (".yaml", ".yml"):
        asked: tuple[AskedTask, ...] = (AskedTask(find_task(task), None, None, listed=False),)
    else:
        options = ScoreOptions(tasks=() if task is None else (str(task),))
        known = asked_tasks(model.card, options, own)
        asked = tuple(a for a in known if task is not None or a.fits_modality(modality))
    check_words(Path(model.path), model.card, asked, own)
    return asked


def questions_of(label: str, tasks: Sequence[AskedTask]) -> tuple[Question, ...]:
    """List the classes that a label may mean, by name, title or wording; none, one, or one in each of several tasks.

    Args:
        label: Name of a label, as the audit has it; `column: label` where two columns have one.
        tasks: Tasks from `pack_tasks`.
    """
    meant: list[Question] = []
    for asked in tasks:
        for text in (label, label.rpartition(": ")[2]):
            named = class_said(asked.task, text)
            if named is not None and named.name in asked.names:
                meant.append(Question(asked, asked.names.index(named.name)))
                break
        else:
            if len(asked.names) == 1 and label.casefold() == asked.task.name.casefold():
                meant.append(Question(asked, 0))
    return tuple(meant)


INFERRED, KNOWN = "inferred", "from the table"


def prompt_scores(
    model: Model,
    question: Question,
    features_ND: NDArray[np.float32],
    modality: Modality,
    cohort: Cohort,
) -> Iterator[tuple[Condition, NDArray[np.float64]]]:
    """Yield each way of conditioning with the class's probability, [N]; NaN where an image has no vector.

    Args:
        model: The loaded pack.
        question: Task and class.
        features_ND: Unit vectors of the images as they are scored.
        modality: Modality whose contexts are asked.
        cohort: Cohort of the same images; an attribute of the context's name that says the same values is what is
            known.
    """
    for name, attribute in CONTEXTS.get(modality, {}).items():
        values = list(attribute)
        logits_NYZ = _logits(model, question, features_ND, attribute)
        place = question.place if question.asked.task.kind == "multiclass" else 0
        yield _condition(name, INFERRED), in_context(logits_NYZ).classes_NY[:, place]
        known_N = _known(cohort, name, values)
        if known_N is not None:
            given_NY = in_context(logits_NYZ).given_NYZ[np.arange(len(known_N)), :, known_N]
            yield _condition(name, KNOWN), given_NY[:, place]


def _condition(attribute: str, how: str) -> Condition:
    return Condition("prompts", attribute, None, how, metrics=("auroc",))


def _logits(
    model: Model, question: Question, features_ND: NDArray[np.float32], attribute: Attribute
) -> NDArray[np.float64]:
    """Compute scaled cosines with every class in every context, [N, Y, Z]; of a finding there and not there."""
    task, asked = question.asked.task, question.asked.names
    if task.kind == "multiclass":
        classes = [p.positive for p in expand(task, asked)]
    else:
        (of_finding,) = expand(task, [asked[question.place]])
        classes = [of_finding.positive, of_finding.negative]
    contexts = list(combinations([attribute]).values())
    prompts = [
        [completed(prompt, phrase) for prompt in of_class for phrase in phrases]
        for of_class in classes
        for phrases in contexts
    ]
    vectors_KD = encode_prompts(model, prompts).astype(np.float64)
    logits_NK = features_ND.astype(np.float64) @ vectors_KD.T * model.logit_scale
    return logits_NK.reshape(len(features_ND), len(classes), len(contexts))


def _known(cohort: Cohort, name: str, values: list[str]) -> NDArray[np.intp] | None:
    """Return the context of each row as an attribute of the audit states it, blank where it says something else."""
    attribute = next((a for a in cohort.attributes if a.name.casefold() == name), None)
    if attribute is None:
        return None
    spoken: Mapping[str, int] = {value.casefold(): z for z, value in enumerate(values)}
    places = np.array([spoken.get(group.casefold(), values.index(UNKNOWN)) for group in attribute.groups])
    if (places == values.index(UNKNOWN)).all():
        return None
    return places[attribute.codes_N]

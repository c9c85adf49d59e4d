"""Images read once and scored in every form by the pack, as `medclip score` scores them: for a label, which question.

Also the scores of a label table's own images: an audit without a run of `medclip score` before it.

Prompts in the context of an image: would naming view, device, quality or patient make groups more alike? See
`medclip.models.prototypes.class_vectors`. The context is inferred from the image, with prompts of the classes or with
the image's name alone; where the label table knows it (view, sex) also taken from there. Phrases of a device go with
findings: a gain there may be the label told by the phrase.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from medclip.adaptation.pack.pack_head import read_pack_texts
from medclip.auditing.checks.evidence import modality_of
from medclip.auditing.checks.stress.shifts import CLASS_FREE, INFERRED, KNOWN, Condition
from medclip.auditing.input.read import FILES
from medclip.auditing.input.score_table import ScoreSource
from medclip.auditing.options import MeasureOptions
from medclip.embeddings.embeddings_reader import open_reader
from medclip.errors import MedclipError, Reason
from medclip.files.tables.table import Table, no_such
from medclip.models.prototypes.class_vectors import encode_prompts, in_context
from medclip.progress import Progress
from medclip.runs.planning.options import ScoreOptions
from medclip.sample import Modality, spoken
from medclip.scoring.tasks import AskedTask, Scorer, asked_tasks, check_words
from medclip.settings import Settings
from medclip.statistics.cohort import Cohort
from medclip.text.vocabulary.find_task import class_said, find_task
from medclip.text.vocabulary.prompts import CONTEXTS, UNKNOWN, Attribute, combinations, completed, expand
from medclip.wording import by_reason, count

if TYPE_CHECKING:
    from medclip.embeddings.open_embeddings import Embeddings
    from medclip.models.inputs.preprocess import Images, Preprocess
    from medclip.models.model import Model
    from medclip.sample import View
    from medclip.settings import Settings


@dataclass(frozen=True)
class Question:
    """One class of one task of a pack."""

    asked_task: AskedTask
    place: int
    """Of the class among `asked_task.names`."""

    @property
    def name(self) -> str:
        """Return task and class as `medclip score` writes them."""
        return f"{self.asked_task.task.name}:{self.asked_task.names[self.place]}"


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
    texts = read_pack_texts(model.path, model.card)
    if task is not None and Path(task).suffix.lower() in (".yaml", ".yml"):
        tasks: tuple[AskedTask, ...] = (AskedTask(find_task(task), None, None, listed=False),)
    else:
        options = ScoreOptions(tasks=() if task is None else (str(task),))
        of_card = asked_tasks(model.card, options, texts)
        tasks = tuple(a for a in of_card if task is not None or a.fits_modality(modality))
    check_words(Path(model.path), model.card, tasks, texts)
    return tasks


def questions_of(label: str, tasks: Sequence[AskedTask]) -> tuple[Question, ...]:
    """List the classes that a label may mean, by name, title or wording; none, one, or one in each of several tasks."""
    meant: list[Question] = []
    for asked_task in tasks:
        for text in (label, label.rpartition(": ")[2]):
            named = class_said(asked_task.task, text)
            if named is not None and named.name in asked_task.names:
                meant.append(Question(asked_task, asked_task.names.index(named.name)))
                break
        else:
            if len(asked_task.names) == 1 and label.casefold() == asked_task.task.name.casefold():
                meant.append(Question(asked_task, 0))
    return tuple(meant)


def prompt_scores(
    model: Model,
    question: Question,
    features_ND: NDArray[np.float32],
    modality: Modality,
    cohort: Cohort,
    temperature: float = 1.0,
) -> Iterator[tuple[Condition, NDArray[np.float64]]]:
    """Yield each way of conditioning with the class's probability, [N]; NaN where an image has no vector.

    The context is inferred at a temperature: with the classes' own prompts, and with the name of the image alone.
    """
    for name, attribute in CONTEXTS.get(modality, {}).items():
        values = list(attribute)
        logits_NYZ = _logits(model, question, features_ND, attribute)
        place = question.place if question.asked_task.task.rules.one_answer else 0
        context_logits_NZ = _context_logits(model, question, features_ND, attribute, modality)
        for how, evidence_NZ in ((INFERRED, None), (CLASS_FREE, context_logits_NZ)):
            answer = in_context(logits_NYZ, evidence_NZ, temperature=temperature)
            yield _condition(name, how), answer.classes_NY[:, place]
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
    task, names = question.asked_task.task, question.asked_task.names
    if task.rules.one_answer:
        classes = [p.positive for p in expand(task, names)]
    else:
        (of_finding,) = expand(task, [names[question.place]])
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


def _context_logits(
    model: Model, question: Question, features_ND: NDArray[np.float32], attribute: Attribute, modality: Modality
) -> NDArray[np.float64]:
    """Compute scaled cosines with every context of an image of which no class is said, [N, Z]."""
    nouns = question.asked_task.task.image_names or (spoken(modality),)
    prompts = [
        [completed(noun, phrase) for noun in nouns for phrase in phrases]
        for phrases in combinations([attribute]).values()
    ]
    vectors_ZD = encode_prompts(model, prompts).astype(np.float64)
    return features_ND.astype(np.float64) @ vectors_ZD.T * model.logit_scale


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


MOST_FEATURE_BYTES = 256_000_000
"""Vectors of all forms that are kept; 15,000 images in 16 forms of 256 dimensions."""


class Forms(Protocol):
    """Renders an image in several forms: `Variants`, `Patches`."""

    @property
    def num(self) -> int:
        """Forms of each view."""
        ...

    def __call__(self, views: Sequence[View], sha256: str, preprocess: Preprocess) -> Images:
        """Render V × F images at the model's size, the forms of one view together."""
        ...


class _Unit(NamedTuple):
    path: Path
    modality: Modality


@dataclass(frozen=True, eq=False)
class Rescored:
    """What a pack says of N images in F forms: those that were rendered, or one."""

    scores: Mapping[str, NDArray[np.float64]]
    """Probability by question, [F, N]; NaN where an image could not be read."""
    features_FND: NDArray[np.float32]
    """Unit vector of each form, mean of the views; NaN where there is none. Shorter than N where they would not fit."""
    problems: Mapping[str, int]
    """Why images could not be read, and how many."""

    def of_rows(self, of_row_N: NDArray[np.intp]) -> Rescored:
        """Return the same by row, given the image of each; vectors of images beyond the kept ones are NaN."""
        kept = self.features_FND.shape[1]
        features_FND = self.features_FND[:, np.minimum(of_row_N, kept - 1)]
        features_FND[:, of_row_N >= kept] = np.nan
        return Rescored({name: s[:, of_row_N] for name, s in self.scores.items()}, features_FND, self.problems)


def rescore(
    model: Model,
    scorer: Scorer,
    files: Sequence[Path],
    modality: Modality,
    questions: Sequence[Question],
    variants: Forms | None,
    settings: Settings,
    step: Callable[[int], None],
    *,
    stored: Embeddings | None = None,
    originals: Path | None = None,
) -> Rescored:
    """Read, corrupt, encode and score images.

    Args:
        model: The loaded pack.
        scorer: Scorer of the same pack.
        files: A file, or the folder of one series, for each image.
        modality: Modality whose adapter reads the files.
        questions: Questions that are asked.
        variants: The forms; None: the images as they are.
        settings: Limits and number of reading processes.
        step: Function called with the number of images read since the last call.
        stored: Embeddings of the images, which are read in their place; there are then no variants.
        originals: Folder where files that were embedded may lie still.

    Returns:
        Scores and vectors in the order of the files. An image that cannot be read stops nothing.
    """
    num, forms = len(files), 1 if variants is None else variants.num
    kept = min(num, MOST_FEATURE_BYTES // (4 * forms * model.dim))
    features_FND = np.full((forms, kept, model.dim), np.nan, np.float32)
    scores = {q.name: np.full((forms, num), np.nan) for q in questions}
    tasks = {q.asked_task.task.name: q.asked_task for q in questions}
    problems: Counter[str] = Counter()
    with open_reader(model, settings, stored, originals=originals) as reader:
        for start in range(0, num, reader.at_once):
            units = [_Unit(path, modality) for path in files[start : start + reader.at_once]]
            ahead = max(2 * settings.workers, reader.at_once // (4 * forms))
            read = reader.read(units, step, keep_pixels=False, render=variants, ahead=ahead)
            for row, unit in enumerate(read, start):
                if unit.problem is not None:
                    problems[str(unit.problem.reason)] += 1
                    continue
                of_form_FVD = unit.features.reshape(-1, forms, model.dim).swapaxes(0, 1)  # [V, F, D] as rendered
                for f, views_VD in enumerate(of_form_FVD):
                    answers = {name: _probabilities(scorer, views_VD, asked_task) for name, asked_task in tasks.items()}
                    for q in questions:
                        scores[q.name][f, row] = answers[q.asked_task.task.name][q.place]
                if row < kept:
                    mean_FD = of_form_FVD.mean(axis=1, dtype=np.float64)
                    features_FND[:, row] = mean_FD / np.linalg.norm(mean_FD, axis=1, keepdims=True)
    return Rescored(scores, features_FND, dict(problems))


def _probabilities(scorer: Scorer, views_VD: NDArray[np.float32], asked_task: AskedTask) -> NDArray[np.float64]:
    """Return the probabilities of a study's classes in double precision: single precision rounds 17 logits to 1."""
    _, logits, _ = scorer.study(views_VD, asked_task)
    exact = logits.astype(np.float64)
    return asked_task.task.rules.probabilities_of(exact[None])[0]


def score_images(
    table: Table,
    model: Model,
    stored: Embeddings | None,
    options: MeasureOptions,
    settings: Settings,
    progress: Progress,
) -> tuple[ScoreSource, tuple[str, ...]]:
    """Score every file of a label table, each by itself.

    Returns:
        Tables of the form that `medclip score` writes, a study for each file; and a sentence about files that could not
        be scored.

    Raises:
        MedclipError: TABLE_INVALID without a column of files; NOTHING_TO_DO where no image could be scored; what the
            task raises.
    """
    import pyarrow as pa

    images, modality = options.image_checks.images, modality_of(options.image_checks, model)
    assert images is not None  # AuditOptions refuses it
    column = table.find(*FILES)
    if column is None:
        raise no_such(FILES[0], table.names, table.where, "of files")
    names = list(dict.fromkeys(name for name in table.texts(column) if name))
    (asked_task,) = pack_tasks(model, modality, options.task)
    questions = [Question(asked_task, place) for place in range(len(asked_task.names))]
    progress.stage("Scoring images", len(names))
    scored = rescore(
        model,
        Scorer(model),
        [images / n for n in names],
        modality,
        questions,
        None,
        settings,
        progress.step,
        stored=stored,
        originals=None if table.path is None else table.path.parent,
    )
    probability_CN = np.stack([scored.scores[q.name][0] for q in questions])
    scored_places = np.flatnonzero(~np.isnan(probability_CN[0]))
    if not len(scored_places):
        raise MedclipError(
            Reason.NOTHING_TO_DO,
            f"none of the {count(len(names), 'file')} could be scored: {by_reason(scored.problems)}.",
            where=images,
            hint="Check the folder of images and the modality.",
        )
    studies = [str(i) for i in scored_places.tolist()]
    columns: dict[str, Any] = {
        "study": studies * len(questions),
        "task": [asked_task.task.name] * (len(studies) * len(questions)),
        "class": [name for name in asked_task.names for _ in studies],
        "kind": [asked_task.task.kind] * (len(studies) * len(questions)),
        "probability": probability_CN[:, scored_places].ravel(),
    }
    files = pa.table({"path": [names[i] for i in scored_places.tolist()], "study": studies})
    where = f"scores of {model.name}"
    source = ScoreSource(Table(pa.table(columns), where), Table(files, where))
    if not scored.problems:
        return source, ()
    lost = sum(scored.problems.values())
    return source, (f"{count(lost, 'image')} could not be scored: {by_reason(scored.problems)}.",)

"""Figures of sets, of tasks over all sets that ask them (by source, across sources, beside the card), and of texts."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medclip.evaluation.label_retrieval import recall_figures
from medclip.evaluation.word_control import compare_words, other_wordings
from medclip.evaluation.zero_shot.suite import SetFile
from medclip.models.packs.card_sources import ALL
from medclip.models.packs.word_control import WordControl
from medclip.statistics.estimate import DECIMALS, NUM_RESAMPLES, Figure
from medclip.statistics.metrics.by_source import NOT_TESTABLE, WITHIN_ONLY, WITHIN_SOURCES, BySource, by_source
from medclip.statistics.metrics.classification import measured
from medclip.statistics.resampling.resampled import interval_of
from medclip.text.vocabulary.load import load_task, task_names
from medclip.wording import count, estimate, list_of, number

if TYPE_CHECKING:
    import pyarrow as pa


def metric_names(num_classes: int) -> tuple[str, ...]:
    """List the metrics of a set with so many classes."""
    several = ("accuracy", "balanced_accuracy", "macro_f1", "macro_precision")
    return (*several, "auroc", "precision", "recall", "f1") if num_classes == 2 else several


def set_figures(
    labels_N: NDArray[np.int64],
    scores_NC: NDArray[np.floating],
    patients: Sequence[Hashable],
    *,
    num_resamples: int = NUM_RESAMPLES,
) -> dict[str, Figure]:
    """Compute each metric of a set with its interval. The prediction is the class with the highest score, the first
    one among equals; macro means are over the classes that have images.

    Args:
        labels_N: Class indices; at least one.
        scores_NC: One score for each class.
        patients: Keys of what images share; unique ones give intervals over images.
        num_resamples: Resamples of patients.

    Returns:
        Accuracy, balanced_accuracy (macro recall), macro_f1, macro_precision; for two classes also auroc of the second
        score minus the first, and precision, recall and f1 of the second class. A metric that is not defined (the area,
        where one class has no image) is left out.
    """
    names = metric_names(scores_NC.shape[1])
    figures = measured(labels_N, scores_NC, patients, names, num_resamples=num_resamples, seed=0)
    return {name: Figure.of(interval_of(figure)) for name, figure in figures.items()}


RETRIEVAL = "retrieval"
MIN_TEXTS = 20
"""Different texts of a source below which nothing is looked for among them."""


def retrieval_name(source: str) -> str:
    """Return how a card names the retrieval of a source among the figures of its test split."""
    return f"{RETRIEVAL}, {source}"


@dataclass(frozen=True)
class TextFigures:
    """One source."""

    id: str
    source: str
    num_images: int
    num_texts: int
    """Different ones."""
    num_patients: int | None
    """None where the set does not know its patients."""
    problems: Mapping[str, int]
    """Images that could not be read, by reason."""
    figures: Mapping[str, Mapping[str, Any]]
    """R@k by way, as cards have figures: "text_to_image_r5". Empty where there are fewer texts than `MIN_TEXTS`."""
    on_card: Mapping[str, Mapping[str, Any]]
    """The same on the pack's card; empty where it has none."""
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


def texts_measured(
    images_ND: NDArray[np.float32],
    texts: Sequence[str],
    patients: Sequence[Any],
    model: Any,
    *,
    knows_patients: bool,
    num_resamples: int,
) -> dict[str, dict[str, Any]]:
    """Measure retrieval among the images and texts of one source, as cards have figures.

    Args:
        images_ND: Vectors of images, float32 [N, D] of unit norm.
        texts: Text of each image; equal ones are right answers of each other.
        patients: Patient of each image, or what stands for that.
        model: Model whose text tower is asked.
        knows_patients: Whether `patients` names patients: else none are counted.
        num_resamples: Number of resamples of patients.

    Returns:
        R@k by way; empty where there are fewer different texts than `MIN_TEXTS`.
    """
    keys = [text.strip().lower() for text in texts]
    if len(set(keys)) < MIN_TEXTS:
        return {}
    return recall_figures(
        images_ND,
        model.encode_text(list(texts)),
        keys,
        patients,
        knows_patients=knows_patients,
        num_resamples=num_resamples,
    )


def text_lines(texts: Sequence[TextFigures]) -> Iterator[str]:
    """Yield a table of what is looked for in which source, each figure beside chance and the card."""
    width = max(len(one.source) for one in texts)
    head = f"{'texts of':{width}}{'images':>8}{'patients':>10}{'recall':>19}{'measured':>24}{'chance':>8}"
    yield f"{head}{'on the card':>24}"
    for one in texts:
        patients = "unknown" if one.num_patients is None else number(one.num_patients)
        if not one.figures:
            few = f"{one.num_texts} different texts; {MIN_TEXTS} are needed."
            yield f"{one.source:{width}}{one.num_images:>8}{patients:>10}  {few}"
        for name, figure in one.figures.items():
            card = one.on_card.get(name)
            on_card = "not listed" if card is None else estimate(card["value"], card.get("low"), card.get("high"))
            measured = estimate(figure["value"], figure["low"], figure["high"])
            yield (
                f"{one.source:{width}}{one.num_images:>8}{patients:>10}{name.replace('_', ' '):>19}{measured:>24}"
                f"{figure['chance']:>8.3f}{on_card:>24}"
            )
        if one.note:
            yield f"  {one.note}"


_OWN = "zero_shot"
"""How a card names the pack's own figure among its rivals."""


@dataclass(frozen=True)
class TaskFigures:
    """One task, or one finding of a task."""

    task: str
    finding: str | None
    classes: tuple[str, ...]
    sets: tuple[str, ...]
    num_images: int
    num_patients: int | None
    """None where some set does not know its patients."""
    figures: Mapping[str, Figure]
    """Over all sets; of a finding the area of pairs within a source, since across sources the place may be told."""
    verdict: str
    """`medclip.statistics.metrics.by_source`: what may be said across sources."""
    source_names: tuple[str, ...]
    """All that were measured."""
    sources: tuple[str, ...]
    """Those within which the whole interval lies above chance."""
    by_source: Mapping[str, Mapping[str, Any]]
    """Areas by what they are of, as cards have figures."""
    on_card: Mapping[str, Mapping[str, Any]]
    """The pack's own figures on its card, by the names of `figures`; empty where the card does not list the task."""
    by_source_on_card: Mapping[str, Mapping[str, Any]]
    """The same of `by_source`."""
    word_control: WordControl | None = None
    """The task with words that are not its own, over the sources within which it holds where it does not hold across
    them (all where it holds within none); None where no figure is defined."""

    @property
    def name(self) -> str:
        """The task, and its finding."""
        return self.task if self.finding is None else f"{self.task}:{self.finding}"


def measure_tasks(
    parts: Sequence[SetFile], tables: Mapping[str, pa.Table], card: Any, *, num_resamples: int
) -> tuple[TaskFigures, ...]:
    """Measure each task over the sets that ask it.

    Args:
        parts: The suite's entries of the sets that were measured.
        tables: Predictions by set, as predictions.parquet has them.
        card: Card of the pack.
        num_resamples: Number of resamples of patients.
    """
    sets_of: dict[tuple[str, str | None], list[SetFile]] = {}
    for part in parts:
        if part.task is not None:
            sets_of.setdefault((part.task, part.finding), []).append(part)
    results = (_measure(*of, sets, tables, card, num_resamples) for of, sets in sets_of.items())
    return tuple(result for result in results if result is not None)


def _measure(
    task: str,
    finding: str | None,
    parts: Sequence[SetFile],
    tables: Mapping[str, pa.Table],
    card: Any,
    num_resamples: int,
) -> TaskFigures | None:
    names = parts[0].names
    rows = [(part, row) for part in parts for row in tables[part.id].to_pylist() if row["scores"] is not None]
    if not rows:
        return None
    labels_N = np.array([names.index(row["label"]) for _, row in rows])
    scores_NC = np.array([row["scores"] for _, row in rows], np.float32)
    whose = [(part.origin_name, row["patient"] or f"{part.id} {row['row']}") for part, row in rows]
    of_source = by_source(
        labels_N, scores_NC, [part.source_name for part, _ in rows], whose, num_resamples=num_resamples
    )
    knows_patients = all(part.table.is_patient and row["patient"] for part, row in rows)
    on_card = _on_card(card, task, finding)
    if finding is None:
        asked = load_task(task)
        steps = asked.step_numbers(names)
        drawn = measured(labels_N, scores_NC, whose, asked.rules.metrics, steps=steps, num_resamples=num_resamples)
        figures = {name: Figure.of(interval_of(figure)) for name, figure in drawn.items()}
    else:
        area = _within(of_source, card, task, finding)
        figures = {} if area is None else {"auroc": Figure.of(area.estimate)}
    return TaskFigures(
        task,
        finding,
        names,
        tuple(part.id for part in parts),
        len(rows),
        len(set(whose)) if knows_patients else None,
        figures,
        NOT_TESTABLE if len({part.origin_name for part, _ in rows}) == 1 else of_source.verdict,
        of_source.sources,
        of_source.held_in,
        of_source.figures({part.source_name for part in parts if not part.table.is_patient}),
        on_card,
        _by_source_on_card(card, task, finding),
        _word_control(parts, rows, labels_N, scores_NC, whose, of_source, num_resamples),
    )


OTHER_WORDS = "other_words"
"""Column of the kept predictions with the scores by other words, of sets that ask a task."""


def _word_control(
    parts: Sequence[SetFile],
    rows: Sequence[tuple[SetFile, Mapping[str, Any]]],
    labels_N: NDArray[np.int64],
    scores_NC: NDArray[np.float32],
    whose: Sequence[Hashable],
    of_source: BySource,
    num_resamples: int,
) -> WordControl | None:
    """Compare the task's words with others: of several modalities the k-th other words of each are one way."""
    modalities = (None if part.modality == "generic" else part.modality for part in parts)
    each = [other_wordings(part.prompts(), modality) for part, modality in zip(parts, modalities, strict=True)]
    wordings = [one for one in each if one is not None]
    if len(wordings) < len(parts):
        return None
    num_ways = min(len(one.names) for one in wordings)
    names = (" / ".join(dict.fromkeys(one.names[k] for one in wordings)) for k in range(num_ways))
    joint = replace(wordings[0], names=tuple(names))
    others = [np.reshape(row[OTHER_WORDS], (-1, scores_NC.shape[1]))[:num_ways] for _, row in rows]
    sources = np.array([part.source_name for part, _ in rows], object)
    within = of_source.held_in if of_source.verdict == WITHIN_ONLY else ()
    held_N = np.isin(sources, within or of_source.sources)
    trained = {patient for patient, (_, row) in zip(whose, rows, strict=True) if row["in_training"]}
    new_N = held_N & np.array([patient not in trained for patient in whose])
    used_N = new_N if len(set(labels_N[new_N].tolist())) > 1 else held_N
    return compare_words(
        scores_NC[used_N],
        np.stack(others)[used_N],
        joint,
        labels_N[used_N],
        [patient for patient, used in zip(whose, used_N, strict=True) if used],
        sources=sources[used_N].tolist(),
        num_resamples=num_resamples,
    )


def _within(of_source: BySource, card: Any, task: str, finding: str) -> Any:
    """Return the area of a finding that the card's is the same of: over all sources, or of the one that it names."""
    entry = card.tasks.get(task)
    of_sources = None if entry is None else entry.sources.get(finding)
    if of_sources is None or len(of_sources.sources) != 1:
        return of_source.within
    on_card, over_all = _on_card(card, task, finding).get("auroc"), of_sources.figures.get(WITHIN_SOURCES)
    if on_card is not None and over_all is not None and on_card["value"] == over_all["value"]:
        return of_source.within
    return of_source.of_source.get(of_sources.sources[0])


def _on_card(card: Any, task: str, finding: str | None) -> dict[str, Mapping[str, Any]]:
    entry = card.tasks.get(task)
    if entry is None or (finding is not None and finding not in entry.classes):
        return {}
    metrics = entry.metrics if finding is None else {"auroc": (entry.metrics.get("auroc") or {}).get(finding) or {}}
    of_pack = {name: node.get(_OWN, node) for name, node in metrics.items()}
    return {name: node for name, node in of_pack.items() if "value" in node}


def _by_source_on_card(card: Any, task: str, finding: str | None) -> dict[str, Mapping[str, Any]]:
    entry = card.tasks.get(task)
    of_sources = None if entry is None else entry.sources.get(finding or ALL)
    return {} if of_sources is None else dict(of_sources.figures)


@dataclass(frozen=True)
class BesideCard:
    """How far what was measured is from the pack's card."""

    num_compared: int
    """Figures of the card that were measured again."""
    furthest: str
    """Which of them differs most; empty where none was measured again."""
    difference: float
    """Of its value, measured less the card's."""
    left: tuple[str, ...]
    """Tasks and texts of the card of which nothing was measured here."""


def beside_card(tasks: Sequence[TaskFigures], texts: Sequence[TextFigures], card: Any) -> BesideCard | None:
    """Compare what was measured with a card; None for a card without figures."""
    pairs: list[tuple[str, float, float]] = []
    measured = set()
    for task in tasks:
        values = {name: figure.value for name, figure in task.figures.items()}
        pairs += _pairs(task.name, values, task.on_card)
        areas = {name: area["value"] for name, area in task.by_source.items()}
        pairs += _pairs(task.name, areas, task.by_source_on_card)
        if task.figures and task.on_card:
            measured.add(task.name)
    for one in texts:
        values = {name: figure["value"] for name, figure in one.figures.items()}
        pairs += _pairs(f"texts of {one.source}", values, one.on_card)
        if one.figures and one.on_card:
            measured.add(retrieval_name(one.source))
    listed = set(held_out.figures) if (held_out := card.held_out) is not None else set()
    on_card = {name for name in listed if name.startswith(retrieval_name(""))}
    for name, entry in card.tasks.items():
        if name in task_names():
            with_findings = load_task(name).rules.independent
            on_card |= {f"{name}:{finding}" for finding in entry.classes} if with_findings else {name}
    if not pairs and not on_card:
        return None
    furthest = max(pairs, key=lambda pair: abs(pair[1] - pair[2]), default=("", 0.0, 0.0))
    apart = round(furthest[1] - furthest[2], DECIMALS) + 0.0
    return BesideCard(len(pairs), furthest[0], apart, tuple(sorted(on_card - measured)))


def _pairs(
    name: str, values: Mapping[str, float], card: Mapping[str, Mapping[str, Any]]
) -> list[tuple[str, float, float]]:
    return [(f"{name}, {what.replace('_', ' ')}", values[what], card[what]["value"]) for what in values if what in card]


def card_lines(beside: BesideCard) -> Iterator[str]:
    """Yield in a sentence or two how far what was measured is from the card."""
    if beside.num_compared:
        yield (
            f"Beside the card: {count(beside.num_compared, 'figure')} measured again; the furthest is "
            f"{beside.difference:+.4f} from the card ({beside.furthest})."
        )
    if beside.left:
        yield f"On the card and not measured here: {list_of(beside.left)}."


def task_lines(tasks: Sequence[TaskFigures]) -> Iterator[str]:
    """Yield a table of tasks, each beside the card, and below each the areas by source that say what holds."""
    width = max(len(task.name) for task in tasks)
    yield f"{'task':{width}}{'images':>8}{'patients':>10}{'metric':>19}{'measured':>24}{'on the card':>24}"
    for task in tasks:
        patients = "unknown" if task.num_patients is None else number(task.num_patients)
        for metric, figure in task.figures.items():
            card = task.on_card.get(metric)
            on_card = "not listed" if card is None else estimate(card["value"], card.get("low"), card.get("high"))
            yield (
                f"{task.name:{width}}{task.num_images:>8}{patients:>10}{metric.replace('_', ' '):>19}"
                f"{estimate(figure.value, figure.low, figure.high):>24}{on_card:>24}"
            )
        yield f"  {task.verdict}{f' ({list_of(task.sources)})' if task.sources else ''}"
        for what, area in task.by_source.items():
            if what != "pooled" or task.finding is not None:
                card = task.by_source_on_card.get(what)
                on_card = "" if card is None else f"; card {estimate(card['value'], card.get('low'), card.get('high'))}"
                yield f"    AUROC {what}: {estimate(area['value'], area.get('low'), area.get('high'))}{on_card}"
        if task.word_control is not None and len(task.sets) > 1:
            yield from task.word_control.lines()

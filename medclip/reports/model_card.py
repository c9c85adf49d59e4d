"""A model card as a report prints it: plain text and rounded numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from medclip.errors import MedclipError, printable
from medclip.models.packs.card_sources import (
    ALL,
    METRIC_TITLES,
    OWN,
    SourceFigures,
    beside_chance,
    caution_of,
    remark_of,
    why_unmeasured,
    within_figures,
)
from medclip.models.packs.words import title_of, unanswered
from medclip.sample import spoken
from medclip.statistics.metrics.classification import STEPS_IN_WORDS
from medclip.text.vocabulary.load import load_task
from medclip.text.vocabulary.task import Task
from medclip.wording import capital, estimate, interval, number

_RIVALS = {"imagenet_probe": "linear probe on ImageNet features", "small_cnn": "small CNN on labels alone"}
"""What else was measured beside a pack, where the key does not say it."""
_VIEWS = ("ap", "pa")
UNKNOWN = "unknown"
_MOST_FINDINGS = 4
"""Findings of a task whose figures stand side by side below its answers; of more the first."""
_TRAINING_METRICS = {
    "balanced_accuracy": "Balanced accuracy",
    "macro_auroc": "Mean AUROC",
    "macro_auroc_within": "Mean AUROC within one source",
    "auroc": "AUROC",
    **{name: capital(words) for name, words in STEPS_IN_WORDS.items()},
    "val_loss": "Loss",
    "supervised_loss": "Loss of the classifier",
    "masked_error": "Squared error of hidden pixels",
    "masked_gain": "Part of the error without a model that is taken away",
    "image_to_text_r1": "Images that find their text first (R@1)",
    "image_to_text_r5": "Images that find their text among five (R@5)",
    "image_to_text_r10": "Images that find their text among ten (R@10)",
    "text_to_image_r1": "Texts that find their image first (R@1)",
    "text_to_image_r5": "Texts that find their image among five (R@5)",
    "text_to_image_r10": "Texts that find their image among ten (R@10)",
    "spread": "Distance between views of one thing, over that to other things",
    "distance": "Distance between views of one thing (1 − cosine)",
    "recall_across_views": "Views that find another view of their thing first (R@1)",
    "re_identification": "Images that find an image of the same patient first (CMC@1)",
    "linkage": "Pairs of one patient that are linked at a false positive rate of 0.001",
    "probe": "Read by a linear probe (AUROC)",
}
RIVALS = ("zero_shot", "start")
"""Last words of a metric that name whose figure it is: of the run's own model, of the one it began with."""


@dataclass(frozen=True)
class PrintedFigure:
    """One figure of one task."""

    name: str
    value: str
    interval: str
    chance: str
    patients: str
    images: str
    baselines: str
    is_within: bool = False
    """It is of the source that a caution names."""
    is_pooled: bool = False
    """It is over all sources of a task that holds within some of them only."""
    estimated: str = ""
    """The figure with its interval and chance, as it stands in a sentence."""


@dataclass(frozen=True)
class PrintedTask:
    """One task of the card."""

    name: str
    title: str
    metrics: tuple[PrintedFigure, ...]
    class_titles: Mapping[str, str] = field(default_factory=dict)
    """Printed names of the classes of a task that is the pack's own; empty where the vocabulary has them."""
    adapted: str = ""
    """What it was adapted with; empty for a task that is answered with prompts."""
    note: str = ""
    """What must be known beside the figures."""
    thresholds: Mapping[str, float] = field(default_factory=dict)
    """Probability from which on a class is called present, where the card names one."""
    cautions: Mapping[str, str] = field(default_factory=dict)
    """What must stand beside an answer to a class, such as "within its source only (nih_cxr)"; only where something
    must."""
    remarks: Mapping[str, str] = field(default_factory=dict)
    """What may stand beside an answer to a class without a caution, such as "measured at one source (csdi_fundus)"."""
    across: tuple[tuple[str, str, tuple[PrintedFigure, ...]], ...] = ()
    """By the sources of the images, where the card has them: the class (blank for the task as a whole), whether
    it holds at all of them, and the figures.
    """
    modalities: tuple[str, ...] = ()
    """Printed names of the modalities that are asked it; empty for a task of all of them."""
    classes: tuple[str, ...] = ()

    @property
    def unanswered(self) -> str:
        """Which classes of the vocabulary the card does not list: "not answered: hypertrophy"; blank for none."""
        return unanswered(self.name, self.classes)

    @property
    def summary(self) -> str:
        """The first figure, e.g. "AUROC 0.81 (0.77-0.85) on unseen patients", or those of a few findings.

        Of what holds within its source only it is the figure within that source; of what nobody has measured the first
        sentence of the note, such as "Not measured after merging". `note` must be within sight of it.
        Where the card does not know the patients, the images are unseen.
        """
        adapted = f"{self.adapted} · " if self.adapted else ""
        if not self.metrics:
            return f"{adapted}{why_unmeasured(self.note)}"
        first = self.metrics[0]
        figures = f"{first.name} {first.estimated}"
        kind, comma, _ = first.name.partition(", ")
        alike = [m for m in self.metrics if m.name.startswith(f"{kind}, ") and not m.is_pooled]
        if comma and first.name not in METRIC_TITLES.values() and 1 < len(alike) <= _MOST_FINDINGS:
            figures = f"{kind}: " + ", ".join(f"{m.name.partition(', ')[2]} {m.estimated}" for m in alike)
        unseen = "unseen images" if first.patients == UNKNOWN else "unseen patients"
        if first.is_within and len(alike) <= 1 and first.patients not in ("", UNKNOWN):
            unseen = f"{first.patients} {unseen}"
        return f"{adapted}{figures} on {unseen}"


@dataclass(frozen=True)
class PrintedCard:
    """The card."""

    name: str
    version: str
    summary: str
    intended_use: str
    modalities: tuple[str, ...]
    licence: str
    tasks: tuple[PrintedTask, ...]
    data: tuple[dict[str, str], ...]
    """Sources of the data: `name`, `source`, `licence`, `patients`, `images`."""
    limits: tuple[str, ...]
    modality_names: tuple[str, ...] = ()
    """Keys of the modalities."""
    not_claimed: tuple[tuple[str, str], ...] = ()
    """What was tried and is not listed among the tasks: what it is, and the figure with the reason."""


def view_card(card: Any) -> PrintedCard:
    """Turn a card into what a report prints."""
    plain: dict[str, Any] = card.model_dump(mode="json") if hasattr(card, "model_dump") else dict(vars(card))
    limits = plain.get("limits") or ()
    return PrintedCard(
        name=_text(plain["name"]),
        version=_text(plain["version"]),
        summary=_text(plain.get("summary")),
        intended_use=_text(plain.get("intended_use")),
        modalities=tuple(modality_title(str(m)) for m in plain.get("modalities") or ()),
        modality_names=tuple(str(m) for m in plain.get("modalities") or ()),
        licence=_text(plain.get("licence")),
        tasks=tuple(
            _task(name, entry, plain.get("adapted"), _held_out(plain, name))
            for name, entry in (plain.get("tasks") or {}).items()
        ),
        data=tuple(_data(entry) for entry in plain.get("data") or ()),
        not_claimed=tuple(
            (_text(task_title(task) + ("" if name == ALL else f", {title_of(task, name)}")), _text(one.in_words))
            for task, of in (getattr(card, "not_claimed", None) or {}).items()
            for name, one in of.items()
        ),
        limits=(_text(limits),) if isinstance(limits, str) else tuple(_text(limit) for limit in limits),
    )


def task_title(name: str) -> str:
    """Return a task's printed name; its key where the vocabulary does not have it."""
    try:
        return load_task(name).title
    except MedclipError:
        return capital(name.replace("_", " "))


def metric_title(name: str) -> str:
    """Return the printed name of a metric, such as "auroc pneumonia zero_shot", without whose figure it is.

    Example:
        >>> metric_title("auroc pleural_thickening zero_shot"), metric_title("macro_auroc")
        ('AUROC, pleural thickening', 'Mean AUROC')
    """
    first, *inner = name.split()
    if inner and inner[-1] in RIVALS:
        inner.pop()
    title = _TRAINING_METRICS.get(first, first.replace("_", " "))
    return ", ".join([title, *(part.replace("_", " ") for part in inner)])


def modality_title(name: str) -> str:
    """Return a modality's printed name."""
    return capital(spoken(name))


def _held_out(card: Mapping[str, Any], task: str) -> Mapping[str, Any]:
    """Return the figures of a task on the run's own split."""
    return ((card.get("held_out") or {}).get("figures") or {}).get(task) or {}


def _task(
    name: str, entry: Mapping[str, Any], adapted: Mapping[str, Any] | None, held_out: Mapping[str, Any]
) -> PrintedTask:
    vocabulary_task = _vocabulary_task(name)
    titles = {} if vocabulary_task is None else {c.name: c.title for c in vocabulary_task.classes}
    measured = entry.get("metrics") or held_out
    metrics = tuple(_metrics("", measured, titles))
    named = entry.get("thresholds")
    named = named if isinstance(named, Mapping) else {}
    named = {c: t.get("value") if isinstance(t, Mapping) else t for c, t in named.items()}
    thresholds = {c: t for c, t in named.items() if isinstance(t, (int, float))}
    sources = {key: SourceFigures.model_validate(value) for key, value in (entry.get("sources") or {}).items()}
    classes = entry.get("classes") or ()
    cautions = {c: _text(caution_of(sources, c)) for c in classes if caution_of(sources, c)}
    remarks = {c: _text(remark_of(sources, c)) for c in classes if remark_of(sources, c)}
    if adapted is None or adapted["task"] != name:
        return PrintedTask(
            name,
            task_title(name),
            _by_source(metrics, measured, sources, titles),
            note=_text(entry.get("note")),
            thresholds=thresholds,
            cautions=cautions,
            remarks=remarks,
            across=tuple(_across(key, figures, titles) for key, figures in sources.items()),
            modalities=tuple(
                modality_title(str(m))
                for m in entry.get("modalities") or (() if vocabulary_task is None else vocabulary_task.modalities)
            ),
            classes=tuple(classes),
        )
    return PrintedTask(
        name,
        str(entry.get("title") or task_title(name)),
        metrics,
        dict(entry.get("class_titles") or {}),
        adapted_from(adapted),
        _text(entry.get("note")),
        thresholds,
        classes=tuple(classes),
    )


def _by_source(
    metrics: Sequence[PrintedFigure],
    measured: Mapping[str, Any],
    sources: Mapping[str, SourceFigures],
    titles: Mapping[str, str],
) -> tuple[PrintedFigure, ...]:
    """Return figures, of what holds within its source only with those of that source first, and the others named so."""
    views = list(metrics)
    for name in sources:
        figures = within_figures(measured, sources, name)
        end = "" if name == ALL else f", {titles.get(name, name.replace('_', ' '))}"
        pooled = [n for n, m in enumerate(views) if not m.is_within and (not end or m.name.endswith(end))]
        if not sources[name].caution or not pooled:
            continue
        for n in pooled:
            views[n] = replace(views[n], name=f"{views[n].name}, over all its sources", is_pooled=True)
        views[pooled[0] : pooled[0]] = [
            replace(
                _metric(
                    f"{METRIC_TITLES.get(one.metric, one.metric)}{end}, within {_text(one.source)}", one.figure, {}
                ),
                is_within=True,
            )
            for one in figures
        ]
    return tuple(views)


def _vocabulary_task(name: str) -> Task | None:
    """Return a task of the vocabulary; None for a pack's own."""
    try:
        return load_task(name)
    except MedclipError:
        return None


def _across(name: str, sources: SourceFigures, titles: Mapping[str, str]) -> tuple[str, str, tuple[PrintedFigure, ...]]:
    figures = tuple(_metric(_text(of), figure, {}) for of, figure in sources.printed.items())
    what = "" if name == ALL else _text(titles.get(name, name.replace("_", " ")))
    return what, _text(sources.in_words), figures


def adapted_from(adapted: Mapping[str, Any]) -> str:
    """Return in one line what a pack was adapted with, from its card's `adapted` as plain values."""
    if adapted["shots"] is None:
        return f"made by {adapted['title']} from {adapted['num_train']} images"
    each = "patient" if adapted["shots"] == 1 else "patients"
    return (
        f"adapted with {adapted['title']} from {adapted['shots']} {each} of each class "
        f"({adapted['num_train']} files in all)"
    )


def _metrics(name: str, node: Mapping[str, Any], titles: Mapping[str, str]) -> Iterator[PrintedFigure]:
    """Flatten a card's figures: metric, or metric by rival, or metric by class and rival."""
    if "value" in node:
        yield _metric(name, node, node.get("baselines") or {})
    elif node and all("value" in child for child in node.values()) and any(key in node for key in OWN):
        ours = next(key for key in OWN if key in node)
        yield _metric(name, node[ours], {key: child for key, child in node.items() if key != ours})
    else:
        for key, child in node.items():
            metric_name = METRIC_TITLES.get(key) or titles.get(key, key.replace("_", " "))
            yield from _metrics(f"{name}, {metric_name}" if name else metric_name, child, titles)


def _metric(name: str, metric: Mapping[str, Any], rivals: Mapping[str, Any]) -> PrintedFigure:
    low, high, value, chance = (metric.get(key) for key in ("low", "high", "value", "chance"))
    around = "" if low is None or high is None else interval(low, high, decimals=2)
    estimated = f"{_figure(value)} ({around})" if around else _figure(value)
    return PrintedFigure(
        name=name or "figure",
        value=_figure(value),
        interval=around,
        estimated=beside_chance(estimated, name, chance if isinstance(chance, (int, float)) else None),
        chance=_figure(chance),
        patients=_patients(metric),
        images=_images(metric),
        baselines="; ".join(f"{_rival_name(key)} {_rival(value)}" for key, value in rivals.items()),
    )


def _rival_name(key: str) -> str:
    """Write what else was measured: another model, or this one over some of the images.

    Example:
        >>> _rival_name("linear_probe"), _rival_name("zero_shot_nih_cxr_only"), _rival_name("zero_shot_ap_only")
        ('linear probe', 'this model on nih_cxr alone', 'this model on AP views alone')
    """
    part = key.removeprefix("zero_shot_").removesuffix("_only")
    if key == f"zero_shot_{part}_only":
        return f"this model on {f'{part.upper()} views' if part in _VIEWS else part} alone"
    return _RIVALS.get(key, key.replace("_", " "))


def _patients(metric: Mapping[str, Any]) -> str:
    """Write how many patients a figure is over; "unknown" where the card says that nobody knows."""
    if "num_patients" in metric and metric["num_patients"] is None:
        return UNKNOWN
    return _count(metric.get("n_patients", metric.get("num_patients")))


def _images(metric: Mapping[str, Any]) -> str:
    if "num_positive" in metric and "num_negative" in metric:
        return f"{_count(metric['num_positive'])} against {_count(metric['num_negative'])}"
    return _count(metric.get("n_images", metric.get("num_images", metric.get("num_rows"))))


def _data(entry: Mapping[str, Any]) -> dict[str, str]:
    names = {name: _text(entry.get(name)) for name in ("name", "source", "licence")}
    return {**names, "patients": _count(entry.get("num_patients")), "images": _count(entry.get("num_images"))}


def _rival(value: Any) -> str:
    if not isinstance(value, Mapping):
        return _figure(value)
    return estimate(value.get("value"), value.get("low"), value.get("high"), decimals=2)


def _figure(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, (int, float)) else _text(value)


def _count(value: Any) -> str:
    return number(value) if isinstance(value, int) else _text(value)


def _text(value: Any) -> str:
    """Write what a card says, which anybody may have written: nothing in it drives a terminal or breaks a page."""
    return "" if value is None else printable(str(value))

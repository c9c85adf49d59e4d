"""Stage 5: measure a trained pack on held-out patients, beside chance and three baselines, within and across sources.

Usage: python pipelines/mini/evaluate.py SHARDS PACK OUT.json [--skip-cnn] [--skip-imagenet] [--records TABLE.csv]

What is measured is what the labels of the shards name. Every figure has a 95 % interval that resamples patients, as
`medclip evaluate` has it. Zero-shot calibration (one scale for a task, one offset for a class) is fitted on validation
patients; test patients are only scored. The figure of a finding is the area of pairs within a source: across sources
the place may be told.
With the table of the shards every figure of ECG records stands beside a regression on their median beat and distances
of beats. Figures over rows of which nobody knows whose they are say no number of patients.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from baselines import CNN_EPOCHS, CNN_SIZE_PX, imagenet_features, kept, linear_probe, small_cnn
from heartbeat import heartbeats
from measured_split import MODALITY, Judged, Split, labelled, labelled_finding, load_split, tasks_of
from numpy.typing import NDArray
from shared_sets import SAME_ORIGIN
from sklearn.linear_model import LogisticRegression

from medclip.evaluation.zero_shot.figures import texts_measured
from medclip.models.packs.card_sources import ALL
from medclip.models.packs.pack import Model, load_model
from medclip.models.prototypes.class_vectors import class_vectors, score_features
from medclip.settings import Settings
from medclip.statistics.estimate import LEVEL, NUM_RESAMPLES
from medclip.statistics.metrics.by_source import NOT_TESTABLE, BySource, by_source
from medclip.statistics.metrics.classification import measured
from medclip.statistics.resampling.resampled import interval_of
from medclip.text.captions.record import VIEW_TASK
from medclip.text.vocabulary.load import load_task

__all__ = ["Judged", "Split", "labelled_finding", "load_split"]

SPLITS = ("train", "val", "test")

# In the NIH part every image without pneumonia is an image without any finding. Against those, each finding would be
# scored by recognising pneumonia; among images with pneumonia it has to be told apart.
AMONG_PNEUMONIA = Judged("nih_cxr", "pneumonia")
FINDINGS = {
    "chest_xray_findings": {
        "pneumonia": Judged(),
        "effusion": AMONG_PNEUMONIA,
        "edema": AMONG_PNEUMONIA,
        "atelectasis": AMONG_PNEUMONIA,
        "infiltration": AMONG_PNEUMONIA,
        "consolidation": AMONG_PNEUMONIA,
        "cardiomegaly": AMONG_PNEUMONIA,
        "mass": AMONG_PNEUMONIA,
        "nodule": AMONG_PNEUMONIA,
        "pleural_thickening": AMONG_PNEUMONIA,
        "covid_19": Judged("covid_cxr"),
    }
}
"""Of other tasks every finding is judged on all images that say whether they have it."""
MIN_PATIENTS = 10
"""Test patients with and without a finding (or of a class within a source) below which no figure is given."""

MIN_VAL_POSITIVES = 3
"""Validation images with the finding below which it cannot be calibrated, and is not listed."""


Part = tuple[NDArray, NDArray]
Cnn = Callable[[Part, Part, NDArray, int], NDArray]


def kept_cnn(folder: Path) -> Cnn:
    """Return `small_cnn`, whose test scores are kept in a folder."""

    def scores(train: Part, val: Part, test_images: NDArray, num_classes: int) -> NDArray:
        settings = "small_cnn", CNN_SIZE_PX, CNN_EPOCHS, num_classes
        inputs = (*settings, *train, *val, test_images)
        return kept(folder, inputs, lambda: small_cnn(train, val, test_images, num_classes))

    return scores


def figure(
    metric: str,
    labels: NDArray,
    scores: NDArray,
    patients: NDArray,
    chance: float,
    *,
    level: float = LEVEL,
    unknown: Sequence[str] = (),
) -> dict[str, Any]:
    """One figure with its interval, as stored in the card; without a number of patients where a source is unknown."""
    e = interval_of(measured(labels, scores, patients.tolist(), [metric])[metric], level=level)
    counts = {"num_patients": None if unknown else len(set(patients.tolist())), "num_images": len(labels)}
    ends = {"low": e.low, "high": e.high} if e.has_interval else {}
    return {k: round(v, 4) for k, v in ({"value": e.value} | ends).items()} | counts | {"chance": round(chance, 4)}


def multiclass(
    model: Model, data: dict[str, Split], name: str, cnn: Cnn | None, classes: Sequence[str] = ()
) -> dict[str, Any]:
    """Zero-shot and baselines for a multi-class task."""
    classes = tuple(classes) or tasks_of(data)[0][name]
    parts = {s: labelled(data[s], name, classes) for s in SPLITS}
    vectors = class_vectors(model, load_task(name), classes)
    logits = {
        s: score_features(data[s].features[rows], vectors, "multiclass", model.logit_scale)[0]
        for s, (rows, _) in parts.items()
    }
    test, units = data["test"], {s: data[s].of_units(rows) for s, (rows, _) in parts.items()}
    rivals = {"zero_shot": logits["test"]} | rival_scores(data, parts, len(classes), cnn)
    rivals = {name: units["test"].mean(scores) for name, scores in rivals.items()}
    logits = {s: units[s].mean(of) for s, of in logits.items()}
    rows, labels = (column[units["test"].first_U] for column in parts["test"])
    patients, unknown = test.patients[rows], test.unknown(rows)
    accuracy = {
        k: figure("balanced_accuracy", labels, s, patients, 1 / len(classes), unknown=unknown)
        for k, s in rivals.items()
    }
    metrics = {
        "balanced_accuracy": accuracy | within_sources(test, rows, labels, logits["test"]),
        "macro_auroc": {k: figure("macro_auroc", labels, s, patients, 0.5, unknown=unknown) for k, s in rivals.items()},
    }
    of_source = by_source(labels, logits["test"], test.sources[rows].tolist(), patients.tolist())
    return {
        "classes": list(classes),
        "calibration": {
            "scale": round(temperature(logits["val"], parts["val"][1][units["val"].first_U]), 4),
            "bias": {},
        },
        "counts": {c: int((labels == i).sum()) for i, c in enumerate(classes)},
        "metrics": metrics,
        "sources": {ALL: for_card(of_source, unknown)},
    }


def for_card(of_source: BySource, unknown: Sequence[str]) -> dict[str, Any]:
    """Return the figures by source as a card has them; its sources are those within which the task holds.

    Sets of one origin are sources of their own, whose pairs no figure within a source has; but they are no two places.
    """
    is_one_place = len({SAME_ORIGIN.get(source, source) for source in of_source.sources}) == 1
    return {
        "verdict": NOT_TESTABLE if is_one_place else of_source.verdict,
        "sources": list(of_source.held_in or of_source.sources),
        "figures": of_source.figures(unknown),
    }


def within_sources(test: Split, rows: NDArray, labels: NDArray, logits: NDArray) -> dict[str, Any]:
    """Zero-shot balanced accuracy inside each source that has two or more classes; empty for tasks of one source."""
    figures = {}
    for source in sorted(set(test.sources[rows].tolist())):
        inside = test.sources[rows] == source
        patients = test.patients[rows]
        common = [c for c in set(labels.tolist()) if len(set(patients[inside & (labels == c)])) >= MIN_PATIENTS]
        kept = inside & np.isin(labels, common)
        if len(common) < 2 or inside.all():
            continue
        index = np.searchsorted(sorted(common), labels[kept])
        chosen = logits[kept][:, sorted(common)]
        unknown = test.unknown(rows[kept])
        figures[f"zero_shot_{source}_only"] = figure(
            "balanced_accuracy", index, chosen, patients[kept], 1 / len(common), unknown=unknown
        ) | {"num_classes": len(common)}
    return figures


def multilabel(
    model: Model, data: dict[str, Split], task: str, findings: dict[str, Judged], cnn: Cnn | None
) -> dict[str, Any]:
    """Zero-shot and baselines for each class of a multi-label task."""
    metrics: dict[str, Any] = {}
    calibration: dict[str, Any] = {"scale": {}, "bias": {}}
    counts: dict[str, Any] = {}
    sources: dict[str, Any] = {}
    test = data["test"]
    for name, judged in findings.items():
        parts = {s: labelled_finding(data[s], task, name, judged) for s in SPLITS}
        # Offsets are fitted on all images of the source: scoring does not know which other findings an image has.
        calibration_rows, calibration_labels = labelled_finding(data["val"], task, name, Judged(judged.source))
        units, of_val = test.of_units(parts["test"][0]), data["val"].of_units(calibration_rows)
        rows, labels = (column[units.first_U] for column in parts["test"])
        calibration_labels = calibration_labels[of_val.first_U]
        patients, of, unknown = test.patients[rows], test.sources[rows].tolist(), test.unknown(rows)
        counts[name] = {"positive": int(labels.sum()), "negative": int((1 - labels).sum()), "among": judged.among}
        few_test = min(len(set(patients[labels == c])) for c in (0, 1)) < MIN_PATIENTS
        if few_test or calibration_labels.sum() < MIN_VAL_POSITIVES or len(set(parts["train"][1].tolist())) < 2:
            continue
        vectors = class_vectors(model, load_task(task), [name])
        logits = score_features(test.features[parts["test"][0]], vectors, "multilabel", model.logit_scale)[0][:, 0]
        rivals = {"zero_shot": logits}
        rivals |= {k: s[:, 1] for k, s in rival_scores(data, parts, 2, cnn).items()}
        rivals = {k: units.mean(scores) for k, scores in rivals.items()}
        val_features = data["val"].features[calibration_rows]
        val_logits = of_val.mean(score_features(val_features, vectors, "multilabel", model.logit_scale)[0][:, 0])
        logits = rivals["zero_shot"]
        of_source = by_source(labels, logits, of, patients.tolist())
        if of_source.within is None:
            continue
        calibration["scale"][name], calibration["bias"][name] = platt(val_logits, calibration_labels)
        sources[name] = for_card(of_source, unknown)
        metrics[name] = {k: within(labels, s, of, patients, unknown) for k, s in rivals.items()}
        widened = within(labels, logits, of, patients, unknown, level=1 - 0.05 / len(findings))
        metrics[name]["zero_shot"]["low_adjusted"] = widened.get("low", 0.0)
        views = np.array([str(test.records[i].labels.get(VIEW_TASK) or test.records[i].view).upper() for i in rows])
        for view in ("AP", "PA"):
            inside = views == view
            if min(len(set(patients[inside & (labels == c)])) for c in (0, 1)) >= MIN_PATIENTS:
                of_view = [source for source, is_in in zip(of, inside, strict=True) if is_in]
                in_view = within(labels[inside], logits[inside], of_view, patients[inside], unknown)
                metrics[name] |= {f"zero_shot_{view.lower()}_only": in_view} if in_view else {}
    return {
        "classes": list(metrics),
        "calibration": calibration,
        "counts": counts,
        "metrics": {"auroc": metrics},
        "sources": sources,
    }


def within(
    labels: NDArray,
    scores: NDArray,
    sources: Sequence[str],
    patients: NDArray,
    unknown: Sequence[str],
    *,
    level: float = LEVEL,
) -> dict[str, Any]:
    """Return the area of pairs within a source, as a card has figures; empty where no source has both sides."""
    area = by_source(labels, scores, sources, patients.tolist(), level=level).within
    return {} if area is None else area.figure(knows_patients=not unknown) | {"num_images": len(labels)}


def rival_scores(
    data: dict[str, Split], parts: dict[str, Any], num_classes: int, cnn: Cnn | None
) -> dict[str, NDArray]:
    """Test-set probabilities of the baselines."""

    def take(array: str, split: str) -> tuple[NDArray, NDArray]:
        rows, labels = parts[split]
        return getattr(data[split], array)[rows], labels

    def probed(array: str) -> NDArray:
        return linear_probe(take(array, "train"), take(array, "val"), take(array, "test")[0], num_classes)

    scores = {"linear_probe": probed("features")}
    if data["test"].imagenet is not None:
        scores["imagenet_probe"] = probed("imagenet")
    if all(data[s].beats is not None and np.isfinite(take("beats", s)[0]).all() for s in SPLITS):
        scores["heartbeat"] = probed("beats")
    if cnn is not None:
        scores["small_cnn"] = cnn(
            take("images", "train"), take("images", "val"), take("images", "test")[0], num_classes
        )
    return scores


def temperature(logits: NDArray, labels: NDArray) -> float:
    """Factor on the logits that minimises validation log-loss, between 1/50 and 1.

    It never sharpens: where validation patients are told apart without an error, log-loss would ask for certainty.
    """
    from scipy.optimize import fminbound
    from scipy.special import log_softmax

    def loss(log_scale: float) -> float:
        log_p = log_softmax(logits * np.exp(log_scale), axis=1)
        return -float(log_p[np.arange(len(log_p)), labels].mean())

    return float(np.exp(fminbound(loss, -np.log(50), 0.0)))


def platt(logits: NDArray, labels: NDArray) -> tuple[float, float]:
    """Scale and offset of a logistic regression on validation patients; (1, 0) without both classes."""
    if len(set(labels.tolist())) < 2:
        return 1.0, 0.0
    spread = float(logits.std()) or 1.0
    fit = LogisticRegression(C=10.0).fit((logits / spread)[:, None], labels)
    slope = max(float(fit.coef_[0, 0]), 1e-3) / spread
    return round(slope, 5), round(float(fit.intercept_[0]), 5)


def retrieved(model: Model, test: Split) -> dict[str, Any]:
    """Look for the text of an image and the image of a text among those of its source, where a source has texts.

    Returns:
        By source: R@1, 5 and 10 both ways, beside what a shuffled gallery would give. Equal texts are right answers.
    """
    figures: dict[str, Any] = {}
    for source in sorted(set(test.sources.tolist())):
        rows = [i for i in np.flatnonzero((test.sources == source) & ~test.generic) if test.records[i].texts]
        texts = [test.records[i].texts[0] for i in rows]
        whose, unknown = test.patients[rows].tolist(), test.unknown(np.array(rows, int))
        found = texts_measured(
            test.features[rows], texts, whose, model, knows_patients=not unknown, num_resamples=NUM_RESAMPLES
        )
        figures |= {source: found} if found else {}
    return figures


def evaluate(
    shards: Path,
    pack: Path,
    baselines: Path,
    with_cnn: bool = True,
    with_imagenet: bool = True,
    records: Path | None = None,
) -> dict[str, Any]:
    """Measure every task; plain data, ready for JSON.

    Args:
        shards: The shard folder.
        pack: The pack.
        baselines: Folder in which what the pack has no part in is kept.
        with_cnn: Also train the small CNN.
        with_imagenet: Also probe ImageNet features.
        records: Table that the shards were built of, for the heartbeats of ECG records.
    """
    model = load_model(pack)
    cnn = kept_cnn(baselines) if with_cnn else None
    beats = None if records is None else heartbeats(records)
    data = {s: load_split(shards, s, model, beats) for s in SPLITS}
    if with_imagenet:
        weights = Settings().home
        for name, split in data.items():
            inputs = "imagenet", split.images
            features = kept(baselines, inputs, lambda images=split.images: imagenet_features(images, weights))
            data[name] = split.with_imagenet(features)
    classes, findings = tasks_of(data)
    result = {name: multiclass(model, data, name, cnn, of) for name, of in classes.items()}
    for task, names in findings.items():
        known = FINDINGS.get(task)
        judged = {name: Judged() for name in names} if known is None else known
        result[task] = multilabel(model, data, task, dict(judged), cnn)
    return result | {"retrieval": retrieved(model, data["test"])}


def show(result: dict[str, Any]) -> None:
    """Print the table of figures, and below each task what holds across sources."""

    def line(task: str, metric: str, rivals: dict[str, Any]) -> None:
        for rival, f in rivals.items():
            patients = "patients unknown" if f["num_patients"] is None else f"{f['num_patients']} patients"
            print(
                f"{task:42} {metric:18} {rival:18} {f['value']:.3f} [{f.get('low', 0):.3f}, {f.get('high', 1):.3f}] "
                f"chance {f['chance']:.2f}  {patients}"
            )

    for task, r in result.items():
        if task == "retrieval":
            for source, figures in r.items():
                line(f"retrieval:{source}", "recall", figures)
            continue
        for metric, figures in r["metrics"].items():
            if "zero_shot" in figures:
                line(task, metric, figures)
            else:
                for name, rivals in figures.items():
                    line(f"{task}:{name}", metric, rivals)
        for name, sources in r["sources"].items():
            print(f"{task}:{name}: {sources['verdict']} ({', '.join(sources['sources'])})")
            if task != MODALITY:
                line(f"{task}:{name}", "auroc", sources["figures"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shards", type=Path)
    parser.add_argument("pack", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--skip-cnn", action="store_true")
    parser.add_argument("--skip-imagenet", action="store_true")
    parser.add_argument("--records", type=Path)
    args = parser.parse_args()
    baselines = args.out.parent / "baselines"
    figures = evaluate(args.shards, args.pack, baselines, not args.skip_cnn, not args.skip_imagenet, args.records)
    args.out.write_text(json.dumps(figures, indent=1) + "\n")
    show(figures)

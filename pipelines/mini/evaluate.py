"""Stage 4: measure a trained pack on held-out patients, beside chance and the two baselines.

Usage: python pipelines/mini/evaluate.py SHARDS PACK OUT.json [--skip-cnn]

Every figure has a 95 % interval that resamples patients, as `medclip evaluate` has it. Zero-shot calibration (one scale
for a task, one offset for a class) is fitted on validation patients; test patients are only scored.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from baselines import linear_probe, small_cnn
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from medclip.imaging.geometry import letterbox
from medclip.models.class_vectors import class_vectors, score_features
from medclip.models.packs.pack import Model, load_model
from medclip.shards.reading.samples import ShardReader
from medclip.statistics.estimate import LEVEL
from medclip.statistics.metrics.classification import measured
from medclip.statistics.resampling.resampled import interval_of
from medclip.text.vocabulary.load import load_task

SPLITS = ("train", "val", "test")
MULTICLASS = {
    "modality": ("xray", "mammography", "ct", "mri", "fundus"),
    "chest_xray_view": ("ap", "pa", "lateral"),
    "brain_mri_tumour": ("glioma", "meningioma", "pituitary", "no_tumour"),
    "breast_density": ("fatty", "fatty_glandular", "dense_glandular"),
}


@dataclass(frozen=True)
class Judged:
    """On which images a finding is judged."""

    source: str | None = None
    """Within one source only: across sources the site gives the answer away."""
    among: str | None = None
    """Only images that have this other finding."""


# In the NIH part every image without pneumonia is an image without any finding. Against those, each finding would be
# scored by recognising pneumonia; among images with pneumonia it has to be told apart.
AMONG_PNEUMONIA = Judged("nih_cxr", "pneumonia")
FINDINGS = {
    "pneumonia": Judged("nih_cxr"),
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
MIN_PATIENTS = 10
"""Test patients with and without a finding (or of a class within a source) below which no figure is given."""

MIN_VAL_POSITIVES = 3
"""Validation images with the finding below which it cannot be calibrated, and is not listed."""


@dataclass(frozen=True, eq=False)
class Split:
    """One split in memory."""

    images: NDArray[np.uint8]
    features: NDArray[np.float32]
    records: list[Any]
    patients: NDArray[Any]
    sources: NDArray[Any]
    generic: NDArray[np.bool_]


def load_split(shards: Path, name: str, model: Model) -> Split:
    """Read a split and encode it with the pack, as scoring does."""
    reader = ShardReader(shards, name)
    samples = [reader[i] for i in range(len(reader))]
    images = np.stack([letterbox(s.image, model.preprocess.size_px) for s in samples])
    return Split(
        images,
        model.encode_image(images),
        [s.record for s in samples],
        np.array([s.meta["patient"] for s in samples]),
        np.array([s.meta["source"] for s in samples]),
        np.array([s.meta["adapter"] == "generic" for s in samples]),
    )


def labelled(split: Split, task: str, classes: tuple[str, ...]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows of a split that carry a multi-class label, and the class index of each."""
    rows, labels = [], []
    for i, record in enumerate(split.records):
        label = str(record.modality) if task == "modality" else record.labels.get(task)
        if split.generic[i] == (task == "modality") and label in classes:
            rows.append(i)
            labels.append(classes.index(label))
    return np.array(rows, dtype=int), np.array(labels, dtype=int)


def labelled_finding(split: Split, task: str, name: str, judged: Judged) -> tuple[NDArray, NDArray]:
    """Rows of a split that say 0 or 1 for a finding, and what they say."""
    rows, labels = [], []
    for i, record in enumerate(split.records):
        said = record.labels.get(task) or {}
        elsewhere = judged.source not in (None, split.sources[i])
        if split.generic[i] or elsewhere or (judged.among is not None and said.get(judged.among) != 1):
            continue
        if said.get(name) in (0, 1):
            rows.append(i)
            labels.append(int(said[name]))
    return np.array(rows, dtype=int), np.array(labels, dtype=int)


def figure(
    metric: str, labels: NDArray, scores: NDArray, patients: NDArray, chance: float, *, level: float = LEVEL
) -> dict[str, Any]:
    """One figure with its interval, as stored in the card."""
    e = interval_of(measured(labels, scores, patients.tolist(), [metric])[metric], level=level)
    counts = {"num_patients": len(set(patients.tolist())), "num_images": len(labels)}
    return (
        {k: round(v, 4) for k, v in (("value", e.value), ("low", e.low), ("high", e.high))}
        | counts
        | {"chance": round(chance, 4)}
    )


def multiclass(model: Model, data: dict[str, Split], name: str, with_cnn: bool) -> dict[str, Any]:
    """Zero-shot and baselines for a multi-class task."""
    classes = MULTICLASS[name]
    parts = {s: labelled(data[s], name, classes) for s in SPLITS}
    vectors = class_vectors(model, load_task(name), classes)
    logits = {
        s: score_features(data[s].features[rows], vectors, "multiclass", model.logit_scale)[0]
        for s, (rows, _) in parts.items()
    }
    rows, labels = parts["test"]
    patients = data["test"].patients[rows]
    rivals = {"zero_shot": logits["test"]} | rival_scores(data, parts, len(classes), with_cnn)
    accuracy = {k: figure("balanced_accuracy", labels, s, patients, 1 / len(classes)) for k, s in rivals.items()}
    metrics = {
        "balanced_accuracy": accuracy | within_sources(data["test"], rows, labels, logits["test"]),
        "macro_auroc": {k: figure("macro_auroc", labels, s, patients, 0.5) for k, s in rivals.items()},
    }
    return {
        "classes": list(classes),
        "calibration": {"scale": round(temperature(logits["val"], parts["val"][1]), 4), "bias": {}},
        "counts": {c: int((labels == i).sum()) for i, c in enumerate(classes)},
        "metrics": metrics,
    }


def within_sources(test: Split, rows: NDArray, labels: NDArray, logits: NDArray) -> dict[str, Any]:
    """Zero-shot balanced accuracy inside each source that has two or more classes; empty for tasks of one source."""
    found = {}
    for source in sorted(set(test.sources[rows].tolist())):
        inside = test.sources[rows] == source
        patients = test.patients[rows]
        common = [c for c in set(labels.tolist()) if len(set(patients[inside & (labels == c)])) >= MIN_PATIENTS]
        kept = inside & np.isin(labels, common)
        if len(common) < 2 or inside.all():
            continue
        index = np.searchsorted(sorted(common), labels[kept])
        chosen = logits[kept][:, sorted(common)]
        found[f"zero_shot_{source}_only"] = figure(
            "balanced_accuracy", index, chosen, patients[kept], 1 / len(common)
        ) | {"num_classes": len(common)}
    return found


def multilabel(
    model: Model, data: dict[str, Split], task: str, findings: dict[str, Judged], with_cnn: bool
) -> dict[str, Any]:
    """Zero-shot and baselines for each class of a multi-label task."""
    metrics: dict[str, Any] = {}
    calibration: dict[str, Any] = {"scale": {}, "bias": {}}
    counts: dict[str, Any] = {}
    for name, judged in findings.items():
        parts = {s: labelled_finding(data[s], task, name, judged) for s in SPLITS}
        # Offsets are fitted on all images of the source: scoring does not know which other findings an image has.
        calibration_rows, calibration_labels = labelled_finding(data["val"], task, name, Judged(judged.source))
        rows, labels = parts["test"]
        patients = data["test"].patients[rows]
        counts[name] = {"positive": int(labels.sum()), "negative": int((1 - labels).sum()), "among": judged.among}
        few_test = min(len(set(patients[labels == c])) for c in (0, 1)) < MIN_PATIENTS
        if few_test or calibration_labels.sum() < MIN_VAL_POSITIVES:
            continue
        vectors = class_vectors(model, load_task(task), [name])
        logits = {
            s: score_features(data[s].features[r], vectors, "multilabel", model.logit_scale)[0][:, 0]
            for s, (r, _) in parts.items()
        }
        val_features = data["val"].features[calibration_rows]
        val_logits = score_features(val_features, vectors, "multilabel", model.logit_scale)[0][:, 0]
        calibration["scale"][name], calibration["bias"][name] = platt(val_logits, calibration_labels)
        rivals = {"zero_shot": logits["test"]}
        rivals |= {k: s[:, 1] for k, s in rival_scores(data, parts, 2, with_cnn).items()}
        metrics[name] = {k: figure("auroc", labels, s, patients, 0.5) for k, s in rivals.items()}
        widened = 1 - 0.05 / len(findings)
        adjusted = figure("auroc", labels, logits["test"], patients, 0.5, level=widened)
        metrics[name]["zero_shot"]["low_adjusted"] = adjusted["low"]
        views = np.array([str(data["test"].records[i].view).upper() for i in rows])
        for view in ("AP", "PA"):
            inside = views == view
            if min(len(set(patients[inside & (labels == c)])) for c in (0, 1)) >= MIN_PATIENTS:
                metrics[name][f"zero_shot_{view.lower()}_only"] = figure(
                    "auroc", labels[inside], logits["test"][inside], patients[inside], 0.5
                )
    return {"classes": list(metrics), "calibration": calibration, "counts": counts, "metrics": {"auroc": metrics}}


def rival_scores(data: dict[str, Split], parts: dict[str, Any], num_classes: int, with_cnn: bool) -> dict[str, NDArray]:
    """Test-set probabilities of the baselines."""

    def take(array: str, split: str) -> tuple[NDArray, NDArray]:
        rows, labels = parts[split]
        return getattr(data[split], array)[rows], labels

    scores = {
        "linear_probe": linear_probe(
            take("features", "train"), take("features", "val"), take("features", "test")[0], num_classes
        )
    }
    if with_cnn:
        scores["small_cnn"] = small_cnn(
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


def evaluate(shards: Path, pack: Path, with_cnn: bool = True) -> dict[str, Any]:
    """Measure every task; plain data, ready for JSON."""
    model = load_model(pack)
    data = {s: load_split(shards, s, model) for s in SPLITS}
    result = {name: multiclass(model, data, name, with_cnn) for name in MULTICLASS}
    result["chest_xray_findings"] = multilabel(model, data, "chest_xray_findings", dict(FINDINGS), with_cnn)
    result["fundus_cataract"] = multilabel(model, data, "fundus_cataract", {"cataract": Judged()}, with_cnn)
    return result


def show(result: dict[str, Any]) -> None:
    """Print the table of figures."""

    def line(task: str, metric: str, rivals: dict[str, Any]) -> None:
        for rival, f in rivals.items():
            print(
                f"{task:42} {metric:18} {rival:18} {f['value']:.3f} [{f['low']:.3f}, {f['high']:.3f}] "
                f"chance {f['chance']:.2f}  {f['num_patients']} patients"
            )

    for task, r in result.items():
        for metric, figures in r["metrics"].items():
            if "zero_shot" in figures:
                line(task, metric, figures)
            else:
                for name, rivals in figures.items():
                    line(f"{task}:{name}", metric, rivals)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shards", type=Path)
    parser.add_argument("pack", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--skip-cnn", action="store_true")
    args = parser.parse_args()
    figures = evaluate(args.shards, args.pack, not args.skip_cnn)
    args.out.write_text(json.dumps(figures, indent=1) + "\n")
    show(figures)

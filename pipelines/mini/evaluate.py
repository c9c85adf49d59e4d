"""Stage 4: measure a trained pack on held-out patients, beside chance and the two baselines.

Usage: python pipelines/mini/evaluate.py SHARDS PACK OUT.json [--skip-cnn]

Every figure has a 95 % interval from 1,000 patient-bootstrap replicates. Zero-shot calibration (one scale for a task,
one offset for a class) is fitted on validation patients; test patients are only scored.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from baselines import linear_probe, small_cnn
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from medclip.evaluate.intervals import auroc, balanced_accuracy, macro_auroc, patient_bootstrap
from medclip.evaluate.zero_shot import class_vectors, score_features
from medclip.imaging.geometry import letterbox
from medclip.models.packs import Model, load_model
from medclip.shards.read import ShardReader
from medclip.text.vocabularies import load_task

SPLITS = ("train", "val", "test")
MULTICLASS = {
    "modality": ("xray", "mammography", "ct", "mri", "fundus"),
    "chest_xray_view": ("ap", "pa", "lateral"),
    "brain_mri_tumour": ("glioma", "meningioma", "pituitary", "no_tumour"),
    "breast_density": ("fatty", "fatty_glandular", "dense_glandular"),
}
# The sources a finding is judged on: across sources the site gives the answer away.
FINDINGS = {
    "pneumonia": "nih_cxr",
    "effusion": "nih_cxr",
    "edema": "nih_cxr",
    "atelectasis": "nih_cxr",
    "infiltration": "nih_cxr",
    "consolidation": "nih_cxr",
    "cardiomegaly": "nih_cxr",
    "mass": "nih_cxr",
    "nodule": "nih_cxr",
    "pleural_thickening": "nih_cxr",
    "covid_19": "covid_cxr",
}
MIN_POSITIVES = 10
"""Test images with the finding below which no figure is given (specification zero_shot_and_retrieval, section 5)."""

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


def labelled_finding(split: Split, task: str, name: str, source: str | None) -> tuple[NDArray, NDArray]:
    """Rows of a split that say 0 or 1 for a finding, and what they say."""
    rows, labels = [], []
    for i, record in enumerate(split.records):
        value = (record.labels.get(task) or {}).get(name)
        if not split.generic[i] and value in (0, 1) and source in (None, split.sources[i]):
            rows.append(i)
            labels.append(int(value))
    return np.array(rows, dtype=int), np.array(labels, dtype=int)


def figure(metric: Callable, labels: NDArray, scores: NDArray, patients: NDArray, chance: float) -> dict[str, Any]:
    """One figure with its interval, as stored in the card."""
    return {
        k: round(v, 4) if isinstance(v, float) else v
        for k, v in asdict(patient_bootstrap(metric, labels, scores, patients.tolist())).items()
    } | {"chance": round(chance, 4)}


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
    return {
        "classes": list(classes),
        "calibration": {"scale": round(temperature(logits["val"], parts["val"][1]), 4), "bias": {}},
        "counts": {c: int((labels == i).sum()) for i, c in enumerate(classes)},
        "metrics": {
            "balanced_accuracy": {
                k: figure(balanced_accuracy, labels, s, patients, 1 / len(classes)) for k, s in rivals.items()
            },
            "macro_auroc": {k: figure(macro_auroc, labels, s, patients, 0.5) for k, s in rivals.items()},
        },
    }


def multilabel(
    model: Model, data: dict[str, Split], task: str, findings: dict[str, str | None], with_cnn: bool
) -> dict[str, Any]:
    """Zero-shot and baselines for each class of a multi-label task."""
    metrics: dict[str, Any] = {}
    calibration: dict[str, Any] = {"scale": {}, "bias": {}}
    counts: dict[str, Any] = {}
    for name, source in findings.items():
        parts = {s: labelled_finding(data[s], task, name, source) for s in SPLITS}
        rows, labels = parts["test"]
        counts[name] = {"positive": int(labels.sum()), "negative": int((1 - labels).sum())}
        few_test = min(labels.sum(), (1 - labels).sum()) < MIN_POSITIVES
        if few_test or parts["val"][1].sum() < MIN_VAL_POSITIVES:
            continue
        vectors = class_vectors(model, load_task(task), [name])
        logits = {
            s: score_features(data[s].features[r], vectors, "multilabel", model.logit_scale)[0][:, 0]
            for s, (r, _) in parts.items()
        }
        calibration["scale"][name], calibration["bias"][name] = platt(logits["val"], parts["val"][1])
        rivals = {"zero_shot": logits["test"]}
        rivals |= {k: s[:, 1] for k, s in rival_scores(data, parts, 2, with_cnn).items()}
        patients = data["test"].patients[rows]
        metrics[name] = {k: figure(auroc, labels, s, patients, 0.5) for k, s in rivals.items()}
        adjusted = patient_bootstrap(
            auroc, labels, logits["test"], patients.tolist(), num_replicates=4000, level=1 - 0.05 / len(findings)
        )
        metrics[name]["zero_shot"]["low_adjusted"] = round(adjusted.low, 4)
        views = np.array([str(data["test"].records[i].view).upper() for i in rows])
        for view in ("AP", "PA"):
            inside = views == view
            if min(labels[inside].sum(), (1 - labels[inside]).sum()) >= MIN_POSITIVES:
                metrics[name][f"zero_shot_{view.lower()}_only"] = figure(
                    auroc, labels[inside], logits["test"][inside], patients[inside], 0.5
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
    """Factor on the logits that minimises validation log-loss, between 1/50 and 50."""
    from scipy.optimize import minimize_scalar

    def loss(log_scale: float) -> float:
        z = logits * np.exp(log_scale)
        z = z - z.max(axis=1, keepdims=True)
        return float((np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), labels]).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-np.log(50), np.log(50)), method="bounded").x))


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
    result["fundus_cataract"] = multilabel(model, data, "fundus_cataract", {"cataract": None}, with_cnn)
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

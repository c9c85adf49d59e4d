"""The same rows have the same interval, to the last digit that is printed, whichever verb measures them."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import medclip
from medclip.adaptation.run import ScoredTest
from medclip.evaluation.adapted_figures import measure
from medclip.evaluation.zero_shot.figures import set_figures
from tests.kits.adapt_tables import views


@pytest.fixture(scope="module")
def rows() -> tuple[list[str], np.ndarray, np.ndarray]:
    """101 images of 40 patients, alike within a patient: patient, label, logits of two classes."""
    rng = np.random.default_rng(12)
    owner = np.concatenate([np.arange(40), rng.integers(0, 40, 61)])
    labels = (rng.random(40) < 0.5)[owner].astype(int)
    logits = rng.normal(size=(40, 2))[owner] + rng.normal(size=(101, 2)) + 0.7 * np.eye(2)[labels]
    order = rng.permutation(101)
    return [f"p{n}" for n in owner[order]], labels[order], logits[order].astype(np.float32)


def adapted(patients: list[str], labels: np.ndarray, logits: np.ndarray) -> Any:
    """Measure as `adapt` does."""
    keys = tuple(range(1, len(labels) + 1))
    hashes = tuple(f"{n:064x}" for n in keys)
    test = ScoredTest(keys, hashes, tuple(patients), labels, logits, -logits, "multiclass")
    card = SimpleNamespace(train_hashes_file=None)
    model = SimpleNamespace(path=None, card=card)
    run: Any = SimpleNamespace(text=views(), test=test, notes=(), adapted=SimpleNamespace(model=model))
    return measure(run).metrics


def audited(folder: Path, patients: list[str], labels: np.ndarray, logits: np.ndarray) -> dict[str, Any]:
    """Measure as `audit` does, from a table, with a threshold of one half."""
    with (folder / "table.csv").open("w", newline="") as f:
        writer = csv.writer(f)
        writer.writerow(["key", "patient", "sex", "ill", "ill_score"])
        for n, (patient, label, score) in enumerate(zip(patients, labels, logits, strict=True)):
            p = 1 / (1 + np.exp(-np.float64(score[1] - score[0])))
            writer.writerow([n, patient, "F" if int(patient[1:]) < 20 else "M", label, p])
    found = medclip.audit(folder / "table.csv", by=["sex"], num_permutations=100)
    everybody = [row for row in found.metrics if row["attribute"] == "all"]
    return {row["metric"]: (row["value"], row["low"], row["high"]) for row in everybody}


def test_evaluate_adapt_and_audit_print_one_interval(rows: Any, tmp_path: Path) -> None:
    patients, labels, logits = rows
    evaluated, audit = set_figures(labels, logits, patients), audited(tmp_path, *rows)
    adapt = adapted(*rows)
    for ours, at_adapt, at_audit in (
        ("auroc", "macro_auroc", "auroc"),
        ("accuracy", "accuracy", "accuracy"),
        ("recall", None, "tpr"),
        ("precision", None, "ppv"),
        ("f1", None, "f1"),
        ("balanced_accuracy", "balanced_accuracy", None),
    ):
        figure = evaluated[ours]
        expected = (figure.value, figure.low, figure.high)
        assert figure.low < figure.value < figure.high
        if at_adapt is not None:
            entry = adapt[at_adapt]["adapted"]
            assert (entry["value"], entry["low"], entry["high"]) == expected, ours
        if at_audit is not None:
            assert tuple(round(x, 4) for x in audit[at_audit]) == expected, ours

"""Made-up cohorts with a device: one model that looks at the device, one that looks at the disease."""

from __future__ import annotations

from typing import Any

import numpy as np

from medclip.statistics.cohort import Attribute, Cohort, Label


def chests(
    seed: int = 0,
    *,
    num_patients: int = 600,
    shortcut: float = 0.0,
    most_images: int = 4,
    device_if_ill: float = 0.7,
    device_if_not: float = 0.15,
    prevalence: float = 0.3,
) -> Cohort:
    """Draw patients with 1 to `most_images` X-rays; `shortcut` is how far a device moves the score, in logits."""
    rng = np.random.default_rng(seed)
    images = rng.integers(1, most_images + 1, num_patients)
    patients = np.repeat(np.arange(num_patients), images)
    n = len(patients)
    ill = (rng.random(num_patients) < prevalence)[patients]
    device = rng.random(n) < np.where(ill, device_if_ill, device_if_not)
    z = -1.5 + 1.6 * ill + shortcut * device + rng.normal(0, 0.7, num_patients)[patients] + rng.normal(0, 0.7, n)
    age = np.clip(rng.normal(55, 18, num_patients), 18, 95)[patients]
    sex = rng.integers(0, 2, num_patients)[patients]
    identities = np.array([f"{seed}-{p}" for p in range(num_patients)], object)[patients]
    return Cohort(
        patients.astype(np.int32),
        (label(1 / (1 + np.exp(-z)), ill),),
        (
            Attribute("sex", ("F", "M"), sex.astype(np.int16), constant=True),
            Attribute("age", ("under 50", "50 and over"), (age >= 50).astype(np.int16)),
        ),
        columns={"device": device.astype(float), "age": age},
        keys=tuple(f"{seed}/{i}" for i in range(n)),
        identities=tuple(identities),
    )


def label(score: Any, truth: Any, **more: Any) -> Label:
    """Make a label of plain lists."""
    return Label("Pneumothorax", np.asarray(score, np.float64), np.asarray(truth, np.float64), **more)


def plain(score: Any, truth: Any, patients: Any = None, **more: Any) -> Cohort:
    """Make a cohort of one label without groups."""
    n = len(score)
    patients = np.arange(n) if patients is None else patients
    return Cohort(np.asarray(patients, np.int32), (label(score, truth),), (), **more)


def bootstrap(cohort: Cohort, num_replicates: int = 300, seed: int = 0) -> np.ndarray:
    """How often each patient is drawn, [P, B]."""
    rng = np.random.default_rng(seed)
    p = cohort.num_patients
    return rng.multinomial(p, np.full(p, 1 / p), num_replicates).T.astype(np.uint8)

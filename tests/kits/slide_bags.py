"""Slides as bags of patch vectors, made by code: some patches of a positive slide are witnesses."""

from __future__ import annotations

import numpy as np

from medclip.slides.learning.labels import Bags, bags_in_memory

DIM = 16


def planted(
    num_patients: int = 24,
    *,
    rate: float = 0.2,
    patches: int = 30,
    strength: float = 5.0,
    num_classes: int = 2,
    slides_each: int = 1,
    seed: int = 0,
) -> tuple[Bags, list[np.ndarray]]:
    """Bags of which class c > 0 has a share of witnesses along axis c, and which patches those are."""
    rng = np.random.default_rng(seed)
    features, witnesses, targets, patients = [], [], [], []
    for patient in range(num_patients):
        for _ in range(slides_each):
            target = patient % num_classes
            bag = rng.normal(size=(patches, DIM))
            chosen = rng.permutation(patches)[: max(1, round(rate * patches))] if target else np.zeros(0, int)
            bag[chosen, target] += strength
            features.append(bag.astype(np.float32))
            witnesses.append(chosen)
            targets.append(target)
            patients.append(f"patient-{patient}")
    names = [f"class_{c}" for c in range(num_classes)]
    return bags_in_memory(features, np.array(targets), patients, names), witnesses

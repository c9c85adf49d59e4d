"""A cohort of slides as bags of patch vectors, in which a share of the patches of positive slides are witnesses.

Patches are unit vectors of `dim` numbers. Each is of one of six kinds of tissue, in proportions that differ from slide
to slide; on top come a shift of the whole slide (its stain), and noise. A witness has a direction of its own added. In
every slide, positive or not, as many patches as the witness rate asks for have a *distractor* added instead, of the
same length: that a patch is unusual says nothing, only how it is.

    python pipelines/slides/simulated_slides.py OUT 12      # 12 patients as a store and labels.csv
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medclip.embeddings.embedded_unit import EmbeddingPack
from medclip.files.output import write_file
from medclip.slides.learning.labels import Bags, bags_in_memory
from medclip.slides.slide_features import SlideFeatures, write_slide_features
from medclip.slides.slide_store import DONE, RUN, SLIDES, SlideRow, features_path, write_slide_rows


@dataclass(frozen=True)
class Cohort:
    """How the slides are."""

    num_patients: int = 100
    slides_each: tuple[int, int] = (1, 2)
    """Fewest and most slides of a patient."""
    patches: tuple[int, int] = (200, 300)
    """Fewest and most patches of a slide."""
    dim: int = 64
    tissues: int = 6
    stain: float = 0.35
    """Length of the shift of a slide, against tissue means of length 1."""
    noise: float = 1.0
    """Length of the noise of a patch."""
    witness: float = 1.5
    """Length of what a witness, or a distractor, has added."""


def simulate(cohort: Cohort, rate: float, seed: int) -> tuple[Bags, list[NDArray[np.int64]], NDArray[np.float32]]:
    """Draw a cohort; half of the patients are positive.

    Args:
        cohort: How the slides are.
        rate: Share of witnesses in a positive slide, at least one patch.
        seed: The same seed draws the same patients, tissues and stains at every rate.

    Returns:
        The slides, the witnesses of each (none of a negative one), and the direction of a witness, unit [D].
    """
    rng = np.random.default_rng(seed)
    tissue_TD = _unit(rng.normal(size=(cohort.tissues, cohort.dim)))
    witness_D, distractor_D = _unit(rng.normal(size=(2, cohort.dim)))
    features, witnesses, targets, patients = [], [], [], []
    for patient in range(cohort.num_patients):
        positive = patient % 2
        for _ in range(rng.integers(cohort.slides_each[0], cohort.slides_each[1] + 1)):
            count = int(rng.integers(cohort.patches[0], cohort.patches[1] + 1))
            shares = rng.dirichlet(np.ones(cohort.tissues))
            bag = tissue_TD[rng.choice(cohort.tissues, count, p=shares)]
            bag = bag + cohort.stain * _unit(rng.normal(size=cohort.dim))
            bag = bag + cohort.noise * _unit(rng.normal(size=bag.shape))
            order = rng.permutation(count)
            num = max(1, round(rate * count))
            chosen, others = order[:num], order[num : 2 * num]
            if positive:
                bag[chosen] += cohort.witness * witness_D
            else:
                chosen = chosen[:0]
            bag[others] += cohort.witness * distractor_D
            features.append(_unit(bag).astype(np.float32))
            witnesses.append(np.sort(chosen))
            targets.append(positive)
            patients.append(f"p{patient}")
    bags = bags_in_memory(features, np.array(targets), patients, ("negative", "positive"))
    return bags, witnesses, witness_D.astype(np.float32)


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def write_store(folder: Path, cohort: Cohort, rate: float, seed: int = 0) -> None:
    """Write a cohort as `medclip slides embed` would leave it, FOLDER/store, and its table, FOLDER/labels.csv.

    Patches lie row by row on a grid of 128 µm; there are no pixels.
    """
    bags, _, _ = simulate(cohort, rate, seed)
    pack = EmbeddingPack("simulated", "1", "0" * 64, "0" * 64, "0" * 64)
    rows, table = [], ["slide,patient,grade"]
    for i in range(len(bags)):
        key = f"{i:016x}"
        vectors = np.asarray(bags.read(i), np.float32)
        across = math.ceil(math.sqrt(len(vectors)))
        places = np.stack(np.divmod(np.arange(len(vectors)), across), axis=1) * 128.0
        side = across * 128.0
        features = SlideFeatures(
            key, vectors, places, np.ones(len(vectors), np.float32), 256, 0.5, (0.5, 0.5), (side, side), pack, "0" * 16
        )
        write_slide_features(features_path(folder / "store", key), features)
        rows.append(SlideRow(key, f"slide_{i}.tiff", 1, DONE, num_patches=len(vectors), num_lost=0))
        table.append(f"slide_{i}.tiff,{bags.patients[i]},{bags.names[int(bags.targets[i])]}")
    write_slide_rows(folder / "store" / SLIDES, rows)
    write_file(folder / "store" / RUN, json.dumps({"pack": pack.to_dict()}) + "\n")
    write_file(folder / "labels.csv", "\n".join(table) + "\n")


if __name__ == "__main__":
    write_store(Path(sys.argv[1]), Cohort(num_patients=int(sys.argv[2]), patches=(30, 40), witness=2.5), rate=0.3)

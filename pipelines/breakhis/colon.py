"""The rows of frozen features on real tissue that is here: glas_colon, benign or malignant, each patient left out once.

Usage: python pipelines/breakhis/colon.py SHARED_DATA RUN [--tiny]

Eleven patients, three of them with both grades: the intervals are wide, and nothing is claimed. A tile's label is the
grade of its image. Features and what is measured on each kind of them are kept: call it again to go on. It writes
RUN/table.md and RUN/figures.json. Some six minutes of one core.

Ways: the grade that most of the other patients' tiles have, the colour of the stain alone, descriptors of texture, and
three frozen encoders that have never seen tissue: medclip-mini 1.2 (radiographs and fundus photographs; later versions
learn from these very images), EfficientNet-Lite0 of ImageNet, and the same tower with random weights as a control.
Words are those of medclip-mini.

A shot is a tile of each grade, of another patient each as far as there are so many; the logistic regression learns from
`SHOTS` of them, drawn `DRAWS` times among the patients that are not tested. How draws differ is in its interval.

Chance is not one half where patients are left out: the tiles of the one that is tested are missing from what is
learned, so that a classifier that learns only how frequent grades are is wrong more often than right. `SHUFFLES` times
grades are dealt anew to the patients; what a linear support vector machine reaches then is chance.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from encoders import IMAGENET, embed_files, load_encoder
from figures import RATES, Tested, calibration, measure_tested, numbers_of, written
from numpy.typing import NDArray
from scipy.special import log_softmax
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from texture import COLUMNS, DESCRIPTORS, Multinomial, describe_files, fit_probe, gives_probabilities, probe_scores

from medclip.adaptation.data.class_text import class_text
from medclip.adaptation.data.shots import Division, draw_shots
from medclip.adaptation.data.table import LabelledUnit
from medclip.models.prototypes.class_vectors import encode_prompts
from medclip.sample import Modality
from medclip.statistics.metrics.classification import HeldOut, figures, numbered
from medclip.statistics.metrics.ranks import auroc
from medclip.statistics.resampling.resampled import interval_of
from medclip.statistics.resampling.weights import draw_weights
from medclip.text.vocabulary.find_task import find_task
from medclip.text.vocabulary.prompts import expand

sys.path.insert(0, str(Path(__file__).parents[1]))
from measuring import measure, read_rows  # pyright: ignore[reportMissingImports]

COMMONEST = "the commonest grade"
GRADES = ("benign", "malignant")
CONTROL = "random:tf_efficientnet_lite0"
ENCODERS = ("medclip-mini", IMAGENET, CONTROL)
TASK = Path(__file__).parent / "tasks" / "colon_grade.yaml"
SHOTS, DRAWS, SHUFFLES = (1, 4, 16), 10, 100
CHANCE_BY = ("SVM", True)
"""Classifier and whether columns are standardised: of the quick ones."""
_FIGURES = ("accuracy", "balanced_accuracy", "macro_f1", "auroc")
_NAMES = {"accuracy": "image_rate"}
_NOT_MEASURED = ("sensitivity", "specificity")
"""There are no validation patients to lock a threshold on."""


@dataclass(frozen=True, eq=False)
class Tiles:
    """Tiles with patients and grades."""

    files: tuple[Path, ...]
    patients: tuple[str, ...]
    truth_N: NDArray[np.int64]

    def folds(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Yield the rows to learn from and to test on, one patient after the other."""
        whose = np.array(self.patients)
        for patient in dict.fromkeys(self.patients):
            yield np.flatnonzero(whose != patient), np.flatnonzero(whose == patient)


def read_tiles(data: Path, every: int = 1) -> Tiles:
    """Read the table of glas_colon; every n-th row."""
    folder = data / "glas_colon"
    rows = read_rows(folder / "labels.csv")[::every]
    truth_N = np.array([GRADES.index(row["grade"]) for row in rows])
    return Tiles(tuple(folder / row["file"] for row in rows), tuple(row["patient_id"] for row in rows), truth_N)


def features_of(name: str, tiles: Tiles, run: Path) -> tuple[Any, Any]:
    """Return features [N, D] of one kind, and the model that they are of; None for a descriptor."""
    if name not in DESCRIPTORS:
        model = load_encoder(name, run)
        return embed_files(model, tiles.files, run / "features" / f"{_file_name(name)}.npy"), model
    kept = run / "features" / f"{_file_name(name)}.npy"
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.save(kept, describe_files(name, tiles.files))
    return np.load(kept), None


def _file_name(features: str) -> str:
    return features.split(",")[0].replace(":", "-")


def probed(tiles: Tiles, features_ND: Any, classifier: str, standardize: bool) -> Tested:
    """Answer for each patient by a classifier that learned from the others."""
    scores_N2, has_p = np.zeros((len(tiles.truth_N), 2)), True
    for train, test in tiles.folds():
        whose = [tiles.patients[i] for i in train]
        model = fit_probe(classifier, standardize, features_ND[train], tiles.truth_N[train], whose)
        scores_N2[test], has_p = probe_scores(model, features_ND[test], 2), has_p and gives_probabilities(model)
    return Tested(tiles.patients, tiles.truth_N, scores_N2, probability=has_p)


def commonest(tiles: Tiles) -> Tested:
    """Answer with the grade that most tiles of the others have: right as often as grades are alike in all patients."""
    scores_N2 = np.zeros((len(tiles.truth_N), 2))
    for train, test in tiles.folds():
        scores_N2[test, np.bincount(tiles.truth_N[train], minlength=2).argmax()] = 1.0
    return Tested(tiles.patients, tiles.truth_N, scores_N2, probability=False)


def few_shot(tiles: Tiles, features_ND: Any, shots: int, num_resamples: int) -> dict[str, dict[str, float]]:
    """Measure the logistic regression on a few tiles of each grade, over several draws; they are too few to choose its
    strength by, which is 1.
    """
    scores_RN2 = np.zeros((DRAWS, len(tiles.truth_N), 2))
    text = class_text(find_task(TASK))
    units = [
        LabelledUnit(i + 1, file, patient, Modality.PATHOLOGY, None, int(grade), f"{file.parent.name}/{file.name}")
        for i, (file, patient, grade) in enumerate(zip(tiles.files, tiles.patients, tiles.truth_N, strict=True))
    ]
    for draw in range(DRAWS):
        for train, test in tiles.folds():
            division = Division(tuple(train.tolist()), (), tuple(test.tolist()))
            drawn = list(draw_shots(units, division, text, shots, draw).train)
            model = make_pipeline(StandardScaler(), Multinomial()).fit(features_ND[drawn], tiles.truth_N[drawn])
            scores_RN2[draw, test] = probe_scores(model, features_ND[test], 2)
    held = HeldOut(tiles.truth_N, numbered(tiles.patients), 2)
    weights_PB = draw_weights(held.num_patients, num_resamples, seed=0)
    ways = figures(scores_RN2, held, weights_PB, _FIGURES, runs=(DRAWS, 1))
    return {_NAMES.get(name, name): numbers_of(interval_of(one)) for name, one in ways.items()}


def shuffled(tiles: Tiles, seed: int) -> Tiles:
    """Deal the grades of patients anew; who has tiles of both has tiles of both afterwards, perhaps the other way."""
    groups = list(zip(tiles.patients, tiles.truth_N.tolist(), strict=True))
    both = {patient for patient, _ in groups if {(patient, 0), (patient, 1)} <= set(groups)}
    rng = np.random.default_rng(seed)
    single = [group for group in dict.fromkeys(groups) if group[0] not in both]
    dealt = dict(zip(single, rng.permutation([grade for _, grade in single]).tolist(), strict=True))
    for patient in sorted(both):
        turned = int(rng.integers(2))
        dealt |= {(patient, grade): grade ^ turned for grade in range(2)}
    return replace(tiles, truth_N=np.array([dealt[group] for group in groups]))


def by_chance(tiles: Tiles, features_ND: Any, num_shuffles: int) -> dict[str, float]:
    """Return the area of `CHANCE_BY`, and what it reaches on grades that were dealt anew."""
    areas = []
    for seed in range(-1, num_shuffles):
        dealt = tiles if seed < 0 else shuffled(tiles, seed)
        areas.append(float(auroc(probed(dealt, features_ND, *CHANCE_BY).lead_N, dealt.truth_N == 1)))
    own, others = areas[0], np.array(areas[1:])
    return {
        "auroc": round(own, 4),
        "mean": round(float(others.mean()), 4),
        "shuffles": num_shuffles,
        "highest_in_20": round(float(np.quantile(others, 0.95)), 4),
        "as_high": int((others >= own).sum()),
    }


def worded(tiles: Tiles, model: Any, features_ND: Any) -> Tested:
    """Answer by words, without a label."""
    cosines_N2 = features_ND @ encode_prompts(model, [prompts.positive for prompts in expand(find_task(TASK))]).T
    return Tested(tiles.patients, tiles.truth_N, log_softmax(np.float64(model.logit_scale * cosines_N2), axis=1))


def measure_features(name: str, tiles: Tiles, run: Path, tiny: bool) -> dict[str, Any]:
    """Measure every way that there is with one kind of features; without features the answer of the commonest grade."""
    num_resamples = 50 if tiny else 2000
    rows: list[dict[str, Any]] = []

    def add(way: str, tested: Tested) -> None:
        measured = measure_tested(tested, num_resamples=num_resamples)
        error = calibration(tested, num_resamples=num_resamples)
        values = {key: numbers_of(interval_of(one)) for key, one in measured.items()}
        rows.append({"way": way, "figures": values | ({} if error is None else {"ece": numbers_of(error)})})

    if name == COMMONEST:
        add(COMMONEST, commonest(tiles))
        return {"rows": rows}
    features_ND, model = features_of(name, tiles, run)
    for classifier, standardize in COLUMNS:
        tested = probed(tiles, features_ND, classifier, standardize)
        add(f"{name}, {classifier}{', standardised' if standardize else ''}", tested)
    for shots in SHOTS:
        values = few_shot(tiles, features_ND, shots, num_resamples)
        rows.append({"way": f"{name}, logistic, {shots} {'tile' if shots == 1 else 'tiles'}", "figures": values})
    if model is not None and model.has_text:
        add(f"{name}, words", worded(tiles, model, features_ND))
    return {"name": name, "rows": rows, "chance": by_chance(tiles, features_ND, 3 if tiny else SHUFFLES)}


def table_of(tiles: Tiles, figures: Mapping[str, Any]) -> str:
    """Write all ways as one table, and below it what chance is."""
    shown = [name for name in RATES if name not in _NOT_MEASURED]
    lines = [
        f"{len(tiles.files)} tiles of {len(set(tiles.patients))} patients, {int(tiles.truth_N.sum())} malignant.",
        "",
        "| way | " + " | ".join([*(RATES[name] for name in shown), "calibration error"]) + " |",
        "|" + "---|" * (len(shown) + 2),
    ]
    for row in (row for part in figures.values() for row in part["rows"]):
        lines.append(f"| {row['way']} | {' | '.join(written(row['figures'].get(n), 2) for n in (*shown, 'ece'))} |")
    lines += [
        "",
        "| features | AUC | grades dealt anew: mean | one in 20 is above | as high |",
        "|---|---|---|---|---|",
    ]
    for part in (part for part in figures.values() if "chance" in part):
        one = part["chance"]
        lines.append(
            f"| {part['name']}, SVM, standardised | {one['auroc']:.2f} | {one['mean']:.2f} | "
            f"{one['highest_in_20']:.2f} | {one['as_high']} of {one['shuffles']} |"
        )
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    """Measure what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--tiny", action="store_true", help="every eighth tile: does it run?")
    args = parser.parse_args(arguments)
    (run := args.run.resolve()).mkdir(parents=True, exist_ok=True)
    tiles = read_tiles(args.data.resolve(), 8 if args.tiny else 1)
    names = (COMMONEST, *DESCRIPTORS, *(ENCODERS[:1] if args.tiny else ENCODERS))
    stages = {_file_name(name): partial(measure_features, name, tiles, run, args.tiny) for name in names}
    measure(run, stages, partial(table_of, tiles))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

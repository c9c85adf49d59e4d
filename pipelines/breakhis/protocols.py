"""Who is learned from, who is chosen with and who is tested: the protocols of BreakHis, by patient first.

`patient_cv` is ours; `patient_5fold_7030` is how the set's authors divide it, as it is told (their own lists of folds
are not here); `eva_40x_8c` and `eva_40x_4c` are the fixed patients of two versions of kaiko's eva; `audit_holdout` is
the rule of a public audit by patient. `image_random` divides images and so shows the same patient, and the same field
at another magnification, on both sides: it only serves to reproduce literature, and says so.

The same patient's images of all magnifications are always on one side, so that a model of one magnification and a model
of all of them have the same test patients.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from tree import SUBTYPES, BreakHisImage

NUM_FOLDS = 5
TEST_SHARE = 0.3
"""Of patients in `patient_5fold_7030`."""
_VAL_PARTS = 5
"""One of so many parts of the training patients chooses; the others are learned from."""
NUM_HELD_OUT, LARGEST_SHARE = 16, 0.12
"""Patients of `audit_holdout`, and how much of the test images one of them may have."""
LEAKAGE = (
    "WARNING: image_random divides images and not patients: images of one patient, and of one field at four "
    "magnifications, are on both sides. Its figures say how well patients are recognised, not tumours; use them only "
    "beside literature that did the same."
)
EVA_8C = frozenset(
    {
        "18842D",
        "16184",
        "8168",
        "4372",
        "16716",
        "9146",
        "21978AB",
        "6241",
        "17901",
        "12465",
        "3411F",
        "18842",
        "2980",
        "15570C",
        "2985",
        "13413",
        "3909",
        "14134E",
        "2523",
        "19854C",
        "19979",
        "29960CD",
        "21998AB",
        "29960AB",
        "14946",
    }
)
"""Validation patients of eva's version with eight classes: 1,471 training and 524 validation images at 40×."""
EVA_4C = frozenset(
    {
        "18842D",
        "19979",
        "15275",
        "15792",
        "16875",
        "3909",
        "5287",
        "16716",
        "2773",
        "5695",
        "16184CD",
        "23060CD",
        "21998CD",
        "21998EF",
    }
)
"""Of eva's version with four classes: 1,132 and 339 images at 40×."""
EVA_4C_CLASSES = ("tubular_adenoma", "mucinous_carcinoma", "fibroadenoma", "ductal_carcinoma")

Sides = NDArray[np.str_]
"""train, val, test of each image, or blank where it has no part."""


@dataclass(frozen=True)
class Protocol:
    """A way to divide the set."""

    name: str
    title: str
    divide: Callable[[Sequence[BreakHisImage], int], list[Sides]]
    magnifications: tuple[int, ...] | None = None
    """The only ones it is about; None for all."""
    classes: tuple[str, ...] = SUBTYPES
    """Subtypes it is about."""
    leaks: bool = False
    averaged: bool = False
    """Whether all divisions test the same images, so that the models' probabilities are averaged."""

    def divisions(self, images: Sequence[BreakHisImage], seed: int = 0) -> list[Sides]:
        """Divide the images; another seed, another division, and the same one for the same seed.

        Raises:
            SystemExit: The set has too few patients for this protocol, or lacks those it names.
        """
        if self.leaks:
            print(LEAKAGE, flush=True)
        sides = self.divide(images, seed)
        for number, side in enumerate(sides):
            if missing := [name for name in ("train", "val", "test") if not (side == name).any()]:
                raise SystemExit(f"{self.name}: nobody is in {missing[0]} of division {number}; the set is too small.")
            if not self.leaks:
                check_sides(images, side)
        return sides


def check_sides(images: Sequence[BreakHisImage], side: Sides) -> None:
    """Refuse a division that has a patient on two sides.

    Raises:
        ValueError: One has; it is not named.
    """
    where: dict[str, set[str]] = {}
    for image, own in zip(images, side, strict=True):
        if own:
            where.setdefault(image.patient, set()).add(str(own))
    if several := sum(len(sides) > 1 for sides in where.values()):
        raise ValueError(f"{several} of {len(where)} patients are on two sides of the division")


def _patients(images: Sequence[BreakHisImage]) -> NDArray[np.str_]:
    return np.array([image.patient for image in images])


def _strata(images: Sequence[BreakHisImage]) -> NDArray[np.int64]:
    return np.array([SUBTYPES.index(image.subtype) for image in images])


def _folds(images: Sequence[BreakHisImage], num_folds: int, seed: int) -> NDArray[np.int64]:
    """Return the fold of each image: whole patients, subtypes spread as evenly as their patients allow."""
    patients, strata = _patients(images), _strata(images)
    most = min(len(set(patients.tolist())), int(np.bincount(strata).max()))
    if most < num_folds:
        raise SystemExit(
            f"{most} patients, or images of the largest subtype, cannot be divided into {num_folds} folds."
        )
    fold_N = np.zeros(len(images), np.int64)
    splitter = StratifiedGroupKFold(num_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():  # a subtype of three patients is not in every fold, and the table says so
        warnings.filterwarnings("ignore", "The least populated class")
        for number, (_, test) in enumerate(splitter.split(strata, strata, patients)):
            fold_N[test] = number
    return fold_N


def _with_val(images: Sequence[BreakHisImage], test_N: NDArray[np.bool_], seed: int) -> Sides:
    """Choose validation patients among those that are not tested."""
    side = np.where(test_N, "test", "train")
    rest = np.flatnonzero(~test_N)
    inner = _folds([images[i] for i in rest.tolist()], _VAL_PARTS, seed + 1)
    side[rest[inner == 0]] = "val"
    return side


def _patient_cv(images: Sequence[BreakHisImage], seed: int) -> list[Sides]:
    fold_N = _folds(images, NUM_FOLDS, seed)
    return [_with_val(images, fold_N == k, seed + k) for k in range(NUM_FOLDS)]


def _patient_5fold_7030(images: Sequence[BreakHisImage], seed: int) -> list[Sides]:
    """Draw 30 % of the patients of each side five times; a patient may be tested more than once."""
    patients, divisions = _patients(images), []
    malignant = {image.patient: image.malignancy for image in images}
    for number in range(NUM_FOLDS):
        rng = np.random.default_rng((seed, number))
        tested: set[str] = set()
        for answer in sorted(set(malignant.values())):
            own = sorted(patient for patient, side in malignant.items() if side == answer)
            tested |= set(rng.permutation(own)[: max(1, round(TEST_SHARE * len(own)))].tolist())
        divisions.append(_with_val(images, np.isin(patients, sorted(tested)), seed + number))
    return divisions


def _fixed(tested: frozenset[str], classes: Sequence[str]) -> Callable[[Sequence[BreakHisImage], int], list[Sides]]:
    def divide(images: Sequence[BreakHisImage], seed: int) -> list[Sides]:
        used = np.array([image.magnification == 40 and image.subtype in classes for image in images])
        test = np.isin(_patients(images), sorted(tested)) & used
        if not test.any():
            raise SystemExit("none of the patients that this protocol names is in the set.")
        rows = np.flatnonzero(used)
        side = np.full(len(images), "", "<U5")
        side[rows] = _with_val([images[i] for i in rows.tolist()], test[rows], seed)
        return [side]

    return divide


def _audit_holdout(images: Sequence[BreakHisImage], seed: int) -> list[Sides]:
    """Hold out patients by subtype, none with phyllodes tumours or too many images; five folds of the rest."""
    patients, sizes = _patients(images), Counter(image.patient for image in images)
    subtype = {image.patient: image.subtype for image in images}
    num_held = min(NUM_HELD_OUT, round(NUM_HELD_OUT / 82 * len(sizes)) or 1)
    allowed = LARGEST_SHARE * num_held * len(images) / len(sizes)
    rng = np.random.default_rng(seed)
    held: list[str] = []
    for name in SUBTYPES:
        own = sorted(p for p, s in subtype.items() if s == name)
        if name == "phyllodes_tumour" or len(own) < 2:
            continue
        drawn = [p for p in rng.permutation(own).tolist() if sizes[p] <= allowed]
        held += drawn[: max(1, round(num_held * len(own) / len(sizes)))]
    held = _without_large(held[:num_held], sizes)
    test_N = np.isin(patients, held)
    rest = np.flatnonzero(~test_N)
    fold_n, divisions = _folds([images[i] for i in rest.tolist()], NUM_FOLDS, seed), []
    for k in range(NUM_FOLDS):
        side = np.where(test_N, "test", "train")
        side[rest[fold_n == k]] = "val"
        divisions.append(side)
    return divisions


def _without_large(held: Sequence[str], sizes: Mapping[str, int]) -> list[str]:
    """Leave out who has too large a share of the test images, the largest first."""
    kept = sorted(held, key=lambda patient: sizes[patient])
    while len(kept) > round(1 / LARGEST_SHARE) + 1 and sizes[kept[-1]] > LARGEST_SHARE * sum(sizes[p] for p in kept):
        kept.pop()
    return kept


def _image_random(images: Sequence[BreakHisImage], seed: int) -> list[Sides]:
    """Divide images, whoever they are of."""
    strata, rows = _strata(images), np.arange(len(images))
    divisions = []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class")
        for train, test in StratifiedKFold(NUM_FOLDS, shuffle=True, random_state=seed).split(rows, strata):
            side = np.full(len(images), "test", "<U5")
            inner = StratifiedKFold(_VAL_PARTS, shuffle=True, random_state=seed + 1)
            learned, chosen = next(iter(inner.split(train, strata[train])))
            side[train[learned]], side[train[chosen]] = "train", "val"
            assert (side[test] == "test").all()
            divisions.append(side)
    return divisions


PROTOCOLS: Mapping[str, Protocol] = {
    p.name: p
    for p in (
        Protocol("patient_cv", "five folds of patients, spread by subtype", _patient_cv),
        Protocol("patient_5fold_7030", "five random divisions, 70 % and 30 % of patients", _patient_5fold_7030),
        Protocol("eva_40x_8c", "25 fixed patients at 40×", _fixed(EVA_8C, SUBTYPES), (40,)),
        Protocol(
            "eva_40x_4c",
            "14 fixed patients and four classes at 40×",
            _fixed(EVA_4C, EVA_4C_CLASSES),
            (40,),
            EVA_4C_CLASSES,
        ),
        Protocol("audit_holdout", "16 patients held out, five folds of the others", _audit_holdout, averaged=True),
        Protocol("image_random", "random images (leaks patients)", _image_random, leaks=True),
    )
}

"""Every operation against MedMNIST-C's own output, and its registry."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from medclip.errors import MedclipError
from medclip.imaging import corruption_operations
from medclip.imaging.corruptions import (
    OPERATIONS,
    REGISTRY,
    Corruption,
    corrupt,
    corruptions_of,
    draws,
)
from medclip.sample import Modality

SHARP = np.random.default_rng(0).integers(0, 256, (48, 64, 3)).astype(np.uint8)
_LEVELS = {"defocus_blur": 1, "motion_blur": 1, "saturate": 1, "gaussian_blur": 1}


@pytest.mark.golden
def test_operations_give_the_published_pixels(golden: Path):
    compared = set()
    registry = _published(golden)
    with np.load(golden / "medmnistc_corruptions.npz") as g:
        for key in (k for k in g.files if len(k.split("__")) == 3):
            dataset, name, level = key.split("__")
            grade = int(level[1:])
            image = g["image_gray3" if dataset == "chestmnist" else "image_rgb"]
            strength, seed = registry[dataset, name][grade - 1], 1233 + grade
            rng = np.random.default_rng(seed) if name == "impulse_noise" else np.random.RandomState(seed)
            if name == "motion_blur":
                assert isinstance(strength, tuple)
                made = corruption_operations.smeared(image, strength, float(g[f"{key}__angle"]))
            else:
                made = corrupt(image, Corruption(name, grade, strength), rng)
            apart = np.abs(made.astype(int) - g[key])
            limit = 8 if name == "jpeg_compression" else _LEVELS.get(name, 0)  # libjpeg differs between versions
            assert apart.max() <= limit, key
            assert apart.mean() < (2 if name == "jpeg_compression" else 0.05), key
            compared.add(name)
    assert compared == set(OPERATIONS)


@pytest.mark.golden
def test_strengths_are_those_of_the_registry(golden: Path):
    published = _published(golden)
    for dataset, registry in REGISTRY.items():
        assert set(registry) == {name for name in OPERATIONS if (dataset, name) in published}, dataset
        for name, strengths in registry.items():
            assert list(strengths) == published[dataset, name], (dataset, name)


def _published(golden: Path) -> dict[tuple[str, str], list[float | tuple[float, float]]]:
    """The registry: strengths of each grade, by data set and operation."""
    with (golden / "medmnistc_registry.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    return {
        (r["dataset"], r["corruption"]): [_strength(r[f"s{s}"]) for s in range(1, 6)]
        for r in rows
        if r["corruption"] in OPERATIONS
    }


def _strength(text: str) -> float | tuple[float, float]:
    """Read a number, a pair, or end and step of factors that begin at 1."""
    parts = [float(p) for p in text.removeprefix("arange").strip("()").replace(";", ",").split(",")]
    return parts[0] if len(parts) == 1 else (parts[-2], parts[-1])


@pytest.mark.parametrize("modality", [m for m in Modality if m.facts.corruptions])
def test_each_modality_has_five_corruptions_in_three_grades(modality: Modality):
    chosen = corruptions_of(modality)
    assert len({c.name for c in chosen}) == 5
    assert len({OPERATIONS[c.name].family for c in chosen}) >= 3
    assert [c.grade for c in chosen] == [1, 3, 5] * 5


@pytest.mark.parametrize(
    "modality", [Modality.XRAY, Modality.ULTRASOUND, Modality.OCT, Modality.FUNDUS, Modality.PATHOLOGY]
)
def test_a_higher_grade_is_never_nearer_to_the_clean_image(modality: Modality):
    rows, columns = np.mgrid[:96, :96]
    smooth = np.stack([128 + 90 * np.sin(rows / 9 + c) * np.cos(columns / 7) for c in range(3)], axis=2).astype(
        np.uint8
    )
    registry = REGISTRY[modality.facts.corruptions]
    for name in registry:
        errors = [
            np.square(corrupt(smooth, c, draws("file", c.name)).astype(float) - smooth).mean()
            for c in corruptions_of(modality, [name], range(1, 6))
        ]
        assert errors[0] <= 1.02 * errors[2] <= 1.05 * errors[4], name


def test_the_same_file_is_corrupted_alike_and_another_differently():
    (noise,) = corruptions_of(Modality.XRAY, ["shot_noise"], [3])
    one, again, other = (corrupt(SHARP, noise, draws(name, noise.name)) for name in ("a", "a", "b"))
    assert (one == again).all()
    assert (one != other).any()


def test_grey_images_stay_grey():
    grey = SHARP[:, :, :1]
    for corruption in corruptions_of(Modality.XRAY):
        corrupted = corrupt(grey, corruption, draws("a", corruption.name))
        assert corrupted.shape == grey.shape
        assert corrupted.dtype == np.uint8
        assert (corrupted != grey).any()


def test_what_there_is_none_of_is_refused():
    with pytest.raises(MedclipError, match="no corruptions of ECG"):
        corruptions_of(Modality.ECG)
    with pytest.raises(MedclipError, match="saturate"):
        corruptions_of(Modality.XRAY, ["saturate"])
    with pytest.raises(MedclipError, match="1 to 5"):
        corruptions_of(Modality.XRAY, grades=[0])

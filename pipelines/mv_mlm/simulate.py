"""Simulated screening mammograms with a known truth: no woman, no licence to ask for.

A breast is half an ellipsoid on the chest wall, with glandular tissue behind the nipple and, in some, masses and
calcifications at places in the body. Both views are projections of them, so a lesion lies equally deep in CC and MLO,
and a right breast is a left one's mirror image: the chest wall is at the left edge of left breasts. In each view by
itself, overlying tissue may hide a lesion, in dense breasts more often. So two views know more than one.

What is drawn of a woman: density and whether she has scattered calcifications, and from these two the hazard of a later
cancer (proportional hazards, constant in time). Some women have a malignant lesion already; it is diagnosed within six
months. Women at higher risk leave sooner, so whoever takes "left" for "healthy" learns the risk the wrong way round.

Usage: python simulate.py OUT [--num 60] [--seed 0] [--height 160] [--dicom]
Writes OUT/images/*.png (with --dicom, OUT/dicom/*.dcm, too), OUT/table.csv (one row an image, for medclip shards build)
and OUT/truth.csv (one row a woman: what was planted, and the true risk of each year).
"""

from __future__ import annotations

import argparse
import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter, zoom
from scipy.special import expit

Array = NDArray[np.float32]
SIDES, POSITIONS = ("R", "L"), ("CC", "MLO")
HANGING = (("R", "CC"), ("L", "CC"), ("R", "MLO"), ("L", "MLO"))
HEIGHT_MM, WIDTH_MM = 200.0, 120.0
COMPOSITIONS = ("almost_entirely_fatty", "scattered_fibroglandular", "heterogeneously_dense", "extremely_dense")
COMPOSITION_SHARES = (0.2, 0.35, 0.3, 0.15)
YEARS = 5
ADMINISTRATIVE_MONTHS = 84
"""When the study ends for everybody."""
BASE_HAZARD, LEAVING = 0.03, 0.04
"""Of cancer and of leaving, a year, at a risk score of 0."""
DENSITY_EFFECT, CALCIFICATION_EFFECT = 0.7, 1.2
"""Of one class of density and of scattered calcifications, on the log hazard."""
LEAVING_EFFECT = 2.0
"""Of the risk score on the log hazard of leaving: so strong that "left" taken as "healthy" orders women wrongly."""
SHARES = {"normal": 0.5, "benign": 0.25, "malignant": 0.25}
"""Of women, by their worst breast."""
SCATTERED = 0.35
"""Share of women with scattered calcifications in both breasts."""
TABLE = (
    "file",
    "patient",
    "study",
    "modality",
    "laterality",
    "view",
    "age",
    "density",
    "birads",
    "findings",
    "cancer",
    "label:breast_composition",
    "label:mammography_malignancy",
    "label:mammography_subtype",
    "label:breast_cancer_risk:event_months",
    "label:breast_cancer_risk:followup_months",
    "split",
    "source",
    "license",
)


@dataclass(frozen=True)
class Lesion:
    """A mass or a cluster of calcifications at a place in one breast."""

    kind: str
    """mass or calcification."""
    malignant: bool
    side: str
    depth: float
    """From the chest wall (0) to the nipple (1)."""
    outward: float
    """Towards the arm (1) or the breastbone (-1), of the breast's half height."""
    upward: float
    radius_mm: float

    def along(self, position: str) -> float:
        """Return the place along a view's long axis, up positive: towards the arm in CC, up and outward in MLO."""
        return self.outward if position == "CC" else (self.outward + self.upward) / math.sqrt(2)

    def finding(self) -> dict[str, Any]:
        """Describe it as a report's record does."""
        upper, outer = "upper" if self.upward > 0 else "lower", "outer" if self.outward > 0 else "inner"
        depth = ("posterior", "mid", "anterior")[min(int(self.depth * 3), 2)]
        common = {"type": self.kind, "side": self.side, "quadrant": f"{upper} {outer}", "depth": depth}
        if self.kind == "mass":
            shape, margin = ("irregular", "spiculated") if self.malignant else ("oval", "circumscribed")
            return common | {"shape": shape, "margin": margin, "size_mm": round(2 * self.radius_mm)}
        form = ("fine pleomorphic", "grouped") if self.malignant else ("coarse", "grouped")
        return common | {"morphology": form[0], "distribution": form[1]}


@dataclass(frozen=True)
class Woman:
    """What was planted in one woman, and what came of her."""

    number: int
    age: int
    density: int
    """Class of composition, 0 to 3."""
    scattered: bool
    lesions: tuple[Lesion, ...]
    depth_mm: float
    half_height_mm: float
    event_months: int | None
    followup_months: int

    @property
    def patient(self) -> str:
        """Her name in the table."""
        return f"simulated:{self.number:05}"

    @property
    def score(self) -> float:
        """Log hazard of a later cancer, less that of the base."""
        return risk_score(self.density, self.scattered)

    @property
    def malignant(self) -> bool:
        """Whether she has a cancer at the examination."""
        return any(lesion.malignant for lesion in self.lesions)

    def class_of(self, side: str) -> str:
        """Return normal, benign or malignant."""
        own = [lesion.malignant for lesion in self.lesions if lesion.side == side]
        return "malignant" if any(own) else "benign" if own or self.scattered else "normal"

    def subtype_of(self, side: str) -> str:
        """Return mass, calcification, both or none."""
        kinds = {lesion.kind for lesion in self.lesions if lesion.side == side}
        kinds |= {"calcification"} if self.scattered else set()
        return "both" if len(kinds) == 2 else next(iter(kinds), "none")

    def true_risks(self) -> list[float]:
        """Return the probability of a cancer by the end of year 1, 2, ... of a woman like her without one now."""
        return [1 - math.exp(-BASE_HAZARD * math.exp(self.score) * year) for year in range(1, YEARS + 1)]


def risk_score(density: int, scattered: bool) -> float:
    """Compute the planted log hazard ratio; 0 for density B-C and no calcifications."""
    return DENSITY_EFFECT * (density - 1.5) + CALCIFICATION_EFFECT * scattered


def draw_woman(number: int, seed: int) -> Woman:
    """Draw one woman; the same number and seed draw the same."""
    rng = np.random.default_rng((seed, number, 1))
    density = int(rng.choice(4, p=COMPOSITION_SHARES))
    scattered = bool(rng.random() < SCATTERED)
    worst = str(rng.choice(list(SHARES), p=list(SHARES.values())))
    lesions: list[Lesion] = []
    if worst != "normal":
        side, kinds = str(rng.choice(SIDES)), [["mass"], ["calcification"], ["mass", "calcification"]]
        for kind in kinds[int(rng.choice(3, p=(0.6, 0.25, 0.15)))]:
            outward, upward = rng.uniform(-0.55, 0.55, 2)
            place = side, float(rng.uniform(0.25, 0.75)), float(outward), float(upward)
            lesions.append(Lesion(kind, worst == "malignant", *place, radius_mm=float(rng.uniform(8, 14))))
    shape = float(rng.uniform(75, 105)), float(rng.uniform(68, 92))
    event, followup = _follow(rng, risk_score(density, scattered), worst == "malignant")
    return Woman(number, int(rng.integers(40, 75)), density, scattered, tuple(lesions), *shape, event, followup)


def _follow(rng: np.random.Generator, score: float, has_cancer: bool) -> tuple[int | None, int]:
    """Draw months to the event (None: not seen) and months of follow-up."""
    cancer = rng.exponential(12 / (BASE_HAZARD * math.exp(score)))
    leaves = rng.exponential(12 / (LEAVING * math.exp(LEAVING_EFFECT * score)))
    if has_cancer:
        month = int(rng.integers(0, 6))
        return month, month
    until = min(leaves, ADMINISTRATIVE_MONTHS)
    if cancer > until:
        return None, int(until)
    # A cancer of the first half year would have been seen: it is planted as a lesion or it is none.
    month = max(math.ceil(cancer), 7)
    return month, max(month, int(until))


def draw_view(woman: Woman, side: str, position: str, seed: int, height: int = 160) -> NDArray[np.uint8]:
    """Draw one mammogram, 5 high to 3 wide; the chest wall is at the left edge of left breasts."""
    view = HANGING.index((side, position))
    # What overlies what, noise and exposure belong to the view; lesions and the amount of gland to the breast.
    rng, hiding = (np.random.default_rng((seed, woman.number, stream, view)) for stream in (2, 4))
    width, mm = round(height * WIDTH_MM / HEIGHT_MM), HEIGHT_MM / height
    down, across = np.mgrid[:height, :width].astype(np.float32)
    up_mm, deep_mm = ((height - 1) / 2 - down) * mm, across * mm
    out = (up_mm / woman.half_height_mm) ** 2 + (deep_mm / woman.depth_mm) ** 2
    thickness = np.sqrt(np.clip(1 - out, 0, None))
    gland = _gland(rng, woman, up_mm, deep_mm)
    image = 0.22 * np.minimum(thickness * 2, 1) + (0.10 + 0.13 * woman.density) * gland * thickness
    for number, lesion in enumerate(woman.lesions):
        if lesion.side == side:
            hidden = hiding.random() < 0.25 + 0.08 * woman.density
            at = lesion.along(position) * woman.half_height_mm, lesion.depth * woman.depth_mm
            shape = np.random.default_rng((seed, woman.number, 3, number))
            contrast = hiding.uniform(0.0, 0.2) if hidden else hiding.uniform(0.8, 1.0)
            image += contrast * _lesion(shape, lesion, up_mm - at[0], deep_mm - at[1], mm)
    if woman.scattered:
        for _ in range(int(rng.integers(10, 18))):
            angle, far = rng.uniform(-math.pi / 2, math.pi / 2), math.sqrt(rng.uniform(0, 0.6))
            at = math.sin(angle) * far * woman.half_height_mm, math.cos(angle) * far * woman.depth_mm
            image += 0.6 * _dot(up_mm - at[0], deep_mm - at[1], max(mm, 1.8))
    if position == "MLO":  # the pectoral muscle, at the chest wall above
        muscle = deep_mm < 0.45 * (up_mm - rng.uniform(0, 15))
        image = np.where(muscle, np.maximum(image, 0.75), image)
        out = np.where(muscle, 0, out)
    image = image * rng.uniform(0.85, 1.15) + rng.normal(0, 0.02, image.shape)
    pixels = np.where(out < 1, np.clip(image, 0.02, 1), 0)
    eight_bit = np.round(255 * pixels).astype(np.uint8)
    return eight_bit if side == "L" else np.ascontiguousarray(eight_bit[:, ::-1])


def _gland(rng: np.random.Generator, woman: Woman, up_mm: Array, deep_mm: Array) -> Array:
    """Return glandular tissue behind the nipple, 0 to 1: more of it in denser breasts."""
    coarse = gaussian_filter(rng.normal(size=(50, 30)), 1.6)
    field = zoom(coarse / coarse.std(), [n / m for n, m in zip(up_mm.shape, coarse.shape, strict=True)], order=1)
    reach = 0.35 + 0.13 * woman.density
    behind = ((deep_mm / woman.depth_mm - 0.55) / (reach + 0.1)) ** 2 + (up_mm / woman.half_height_mm / reach) ** 2
    tissue = expit(2.5 * (field + 0.5 * woman.density - 0.6))
    return (tissue * np.clip(1.6 - behind, 0, 1)).astype(np.float32)


def _lesion(rng: np.random.Generator, lesion: Lesion, up_mm: Array, deep_mm: Array, mm: float) -> Array:
    far, angle = np.hypot(up_mm, deep_mm), np.arctan2(up_mm, deep_mm)
    if lesion.kind == "mass":
        if not lesion.malignant:
            return 0.30 * expit((lesion.radius_mm - far) / (0.4 * mm))
        arms, turn = int(rng.integers(7, 11)), rng.uniform(0, math.pi)
        edge = lesion.radius_mm * (0.75 + 0.75 * np.clip(np.cos(arms * angle + turn), 0, 1) ** 3)
        return 0.55 * expit((edge - far) / (0.6 * mm))
    drawn = np.zeros_like(far)
    for _ in range(int(rng.integers(9, 14) if lesion.malignant else rng.integers(3, 5))):
        at = rng.normal(0, 0.4 * lesion.radius_mm, 2)
        size = max(mm, 1.5) if lesion.malignant else max(2 * mm, 4.0)
        drawn += rng.uniform(0.5, 0.7) * _dot(up_mm - at[0], deep_mm - at[1], size)
    return drawn


def _dot(up_mm: Array, deep_mm: Array, mm: float) -> Array:
    return np.exp(-(up_mm**2 + deep_mm**2) / (2 * (0.6 * mm) ** 2))


def table_rows(woman: Woman, split: str) -> list[dict[str, Any]]:
    """Return her rows of the table, one for each image; labels are those of the breast, times those of the woman."""
    rows = []
    for side, position in HANGING:
        kind = woman.class_of(side)
        findings = [lesion.finding() for lesion in woman.lesions if lesion.side == side]
        if woman.scattered:
            findings.append({"type": "calcification", "side": side, "morphology": "round", "distribution": "diffuse"})
        rows.append(
            {
                "file": f"images/{woman.number:05}_{side}_{position}.png",
                "patient": woman.patient,
                "study": f"{woman.patient}:1",
                "modality": "mammography",
                "laterality": side,
                "view": position,
                "age": woman.age,
                "density": "ABCD"[woman.density],
                "birads": {"normal": 1, "benign": 2, "malignant": 5}[kind],
                "findings": json.dumps(findings),
                "cancer": int(kind == "malignant"),
                "label:breast_composition": COMPOSITIONS[woman.density],
                "label:mammography_malignancy": kind,
                "label:mammography_subtype": woman.subtype_of(side),
                "label:breast_cancer_risk:event_months": "" if woman.event_months is None else woman.event_months,
                "label:breast_cancer_risk:followup_months": woman.followup_months,
                "split": split,
                "source": "simulated",
                "license": "CC0-1.0",
            }
        )
    return rows


def truth_row(woman: Woman, split: str) -> dict[str, Any]:
    """Return her row of the truth."""
    risks = {f"true_risk_{year}": round(risk, 6) for year, risk in enumerate(woman.true_risks(), 1)}
    return {
        "patient": woman.patient,
        "density": woman.density,
        "scattered": int(woman.scattered),
        "malignant": int(woman.malignant),
        "score": round(woman.score, 6),
        "event_months": "" if woman.event_months is None else woman.event_months,
        "followup_months": woman.followup_months,
        "split": split,
    } | risks


def split_of(number: int, sizes: Sequence[int] = ()) -> str:
    """Return train, val or test: two of ten women are for validation, three for testing; or by numbers of women.

    Args:
        number: Of the woman.
        sizes: Women for training and for validation; all others are for testing.
    """
    if sizes:
        return "train" if number < sizes[0] else "val" if number < sum(sizes[:2]) else "test"
    return ("train", "train", "val", "train", "test", "train", "val", "test", "train", "test")[number % 10]


def write_cohort(
    out: Path, num: int, *, seed: int = 0, height: int = 160, dicom: bool = False, sizes: Sequence[int] = ()
) -> Path:
    """Write a cohort of `num` women; returns its table. The same arguments write the same bytes."""
    rows: list[dict[str, Any]] = []
    truth: list[dict[str, Any]] = []
    (out / "images").mkdir(parents=True, exist_ok=True)
    for number in range(num):
        woman = draw_woman(number, seed)
        split = split_of(number, sizes)
        rows += table_rows(woman, split)
        truth.append(truth_row(woman, split))
        for side, position in HANGING:
            pixels = draw_view(woman, side, position, seed, height)
            Image.fromarray(pixels).save(out / "images" / f"{number:05}_{side}_{position}.png")
            if dicom:
                write_dicom(out / "dicom" / f"{number:05}_{side}_{position}.dcm", pixels, woman, side, position)
    _write_csv(out / "truth.csv", truth)
    _write_csv(out / "table.csv", rows, TABLE)
    return out / "table.csv"


def write_dicom(path: Path, pixels: NDArray[np.uint8], woman: Woman, side: str, position: str) -> None:
    """Write one image as digital mammography for presentation."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import UID, DigitalMammographyXRayImageStorageForPresentation, ExplicitVRLittleEndian

    path.parent.mkdir(parents=True, exist_ok=True)
    root = f"1.2.826.0.1.3680043.10.1599.18.{woman.number + 1}"
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = UID(f"{root}.{HANGING.index((side, position)) + 1}")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    header.SOPClassUID, header.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    header.StudyInstanceUID, header.SeriesInstanceUID = f"{root}.100", f"{root}.200"
    header.PatientID, header.PatientName, header.PatientSex = woman.patient, "Simulated", "F"
    header.PatientAge, header.StudyDate, header.Modality = f"{woman.age:03}Y", "20260101", "MG"
    header.PresentationIntentType = "FOR PRESENTATION"
    header.BodyPartExamined, header.ImageLaterality, header.ViewPosition = "BREAST", side, position
    # Columns run away from the chest wall in left breasts and towards it in right ones; rows towards the breastbone.
    front, inwards = ("A", "R") if side == "L" else ("P", "L")
    header.PatientOrientation = [front, inwards if position == "CC" else f"F{inwards}"]
    header.InstanceNumber = HANGING.index((side, position)) + 1
    header.ImagerPixelSpacing = [HEIGHT_MM / pixels.shape[0]] * 2
    header.PhotometricInterpretation, header.SamplesPerPixel, header.PixelRepresentation = "MONOCHROME2", 1, 0
    header.Rows, header.Columns = pixels.shape
    header.BitsAllocated, header.BitsStored, header.HighBit = 16, 12, 11
    header.PixelData = (pixels.astype(np.uint16) << 4).astype("<u2").tobytes()
    header.save_as(path, enforce_file_format=True)


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns or list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    """Write the cohort that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--num", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--height", type=int, default=160)
    parser.add_argument("--dicom", action="store_true")
    arguments = parser.parse_args()
    write_cohort(arguments.out, arguments.num, seed=arguments.seed, height=arguments.height, dicom=arguments.dicom)
    print(f"{arguments.num} women, {4 * arguments.num} images: {arguments.out}")


if __name__ == "__main__":
    main()

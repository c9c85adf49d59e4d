"""Simulated CT volumes: no patient, no licence to ask for, and every way in which a volume can be stored.

A body with lungs, a spine, vessels and, in half of them, a nodule. The files differ in spacing, in the number of slices
and in how their axes run (feet or head first, left or right first, axes swapped), as files of different makers do. Read
by their headers they are all axial; read by the order of their arrays most of them stand on their heads.

Usage: python simulate.py OUT [--num 24] [--seed 0]
Writes OUT/*.nii.gz and OUT/table.csv (file, patient, modality, nodule, split, source, license).
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray

COLUMNS = ("file", "patient", "modality", "nodule", "split", "source", "license")
SIZE_MM = (300.0, 260.0, 320.0)
"""Of what is scanned: slices, rows, columns."""
STORED = ("RAS", "LPS", "LAS", "RPI", "SRA", "ASL")
"""Where the axes of an array point, in turn: right or left, front or back, head or feet."""
AIR, LUNG, TISSUE, VESSEL, BONE = -1000.0, -820.0, 40.0, 180.0, 650.0


def volume(seed: int) -> tuple[NDArray[np.int16], tuple[float, float, float], bool]:
    """Draw one body.

    Returns:
        HU [slice, row, column], axial slices from the feet up, front on top; spacing in mm; whether there is a nodule.
    """
    rng = np.random.default_rng(seed)
    between, within = float(rng.choice([3.0, 4.0, 5.0])), float(rng.uniform(3.0, 4.0))
    spacing = between, within, within
    shape = tuple(round(mm / step) for mm, step in zip(SIZE_MM, spacing, strict=True))
    z, y, x = ((np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(shape, spacing, strict=True))
    z, y, x = z[:, None, None], y[None, :, None], x[None, None, :]
    wide, deep = rng.uniform(120, 145), rng.uniform(85, 105)
    hu = np.full(shape, AIR, np.float32)
    hu[np.broadcast_to((x / wide) ** 2 + (y / deep) ** 2 < 1, shape)] = TISSUE
    top = rng.uniform(20, 60)  # the lungs lie above the diaphragm, which is a dome
    for side in (-1, 1):
        lung = ((x - side * 0.48 * wide) / (0.36 * wide)) ** 2 + (y / (0.68 * deep)) ** 2 < 1 - ((z - top) / 130) ** 2
        hu[lung & (z > -40 - 0.004 * (x - side * 0.48 * wide) ** 2)] = LUNG
    hu[np.broadcast_to(x**2 + (y - 0.68 * deep) ** 2 < 16**2, shape) & (np.cos(z / 5.5) > -0.6)] = BONE
    hu[(x - 12 - 6 * np.sin(z / 60)) ** 2 + (y - 0.35 * deep) ** 2 < 10**2] = VESSEL  # the aorta, left of the spine
    for _ in range(12):  # vessels of the lungs
        side, slope = rng.choice([-1, 1]), rng.uniform(-0.5, 0.5, 2)
        thread = (x - side * (0.3 * wide + slope[0] * z)) ** 2 + (y - slope[1] * z - rng.uniform(-20, 20)) ** 2 < 9
        hu[thread & (hu == LUNG)] = 0
    has_nodule = bool(rng.random() < 0.5)
    if has_nodule:
        at = rng.choice([-1, 1]) * 0.48 * wide, rng.uniform(-30, 30), top + rng.uniform(-30, 40)
        ball = (x - at[0]) ** 2 + (y - at[1]) ** 2 + (z - at[2]) ** 2 < rng.uniform(9, 16) ** 2
        hu[ball & (hu <= 0)] = 30
    return (hu + rng.normal(0, 18, shape)).astype(np.int16), spacing, has_nodule


def stored(voxels: NDArray[np.int16], spacing: tuple[float, float, float], codes: str) -> nibabel.Nifti1Image:
    """Write axial slices with axes that point where `codes` say; the header says so, too."""
    affine = np.eye(4)
    # Columns run to the patient's left, rows to the back, slices to the head.
    affine[:3, :3] = np.diag([-spacing[2], -spacing[1], spacing[0]])
    image = nibabel.Nifti1Image(voxels.transpose(2, 1, 0), affine)
    now = nibabel.orientations.io_orientation(affine)
    turn = nibabel.orientations.ornt_transform(now, nibabel.orientations.axcodes2ornt(codes))
    return image.as_reoriented(turn.astype(int).tolist())


def main() -> None:
    """Write the volumes and their table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--num", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for n in range(arguments.num):
        voxels, spacing, has_nodule = volume(arguments.seed * 100_003 + n)
        name = f"volume_{n:04}.nii.gz"
        nibabel.save(stored(voxels, spacing, STORED[n % len(STORED)]), arguments.out / name)
        split = "val" if n % 6 == 5 else "train"
        rows.append(
            {
                "file": name,
                "patient": f"simulated:{n}",
                "modality": "ct",
                "nodule": ("no", "yes")[has_nodule],
                "split": split,
                "source": "simulated",
                "license": "CC0-1.0",
            }
        )
    with (arguments.out / "table.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    print(f"{len(rows)} volumes, {sum(row['nodule'] == 'yes' for row in rows)} with a nodule: {arguments.out}")


if __name__ == "__main__":
    main()

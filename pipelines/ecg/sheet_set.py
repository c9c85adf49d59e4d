"""The printed ECG sheets of the set: where the grid's frame is, what a model is shown, and folds by printed number."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from sklearn.model_selection import StratifiedGroupKFold

sys.path.insert(0, str(Path(__file__).parents[1]))
from measuring import read_rows  # pyright: ignore[reportMissingImports]

CLASSES = ("normal", "abnormal", "mi", "post_mi")
INPUTS = ("grid", "border")
"""What towers are shown."""
SIDE_PX = 288
"""Of the images that are written: squares, as the image processors of the published models squash them."""
Row = Mapping[str, str]
_LINE = 240
"""The lines of the frame are darker, and most of the grid inside is lighter."""
_MARGIN_PX = 2
_FAINT, _PAPER = 190, 128
"""What is lighter than ink is paper, the grid's own lines, too; and paper is mid grey, which towers take for 0."""
_VAL_FOLDS = 8
"""Of a fold's training sheets one part in so many is for validation."""


def frame_of(sheet: NDArray[np.uint8]) -> tuple[slice, slice]:
    """Return rows and columns of the grid's frame: its outermost vertical lines, and the rows in which both stand.

    What the frame encloses is no guide: white gaps between the squares run through it from edge to edge.
    """
    dark = sheet < _LINE
    lines = np.flatnonzero(dark.mean(0) > 0.5)
    if len(lines):
        left, right = int(lines[0]), int(lines[-1])
        sides = dark[:, left : left + 3].any(1) & dark[:, max(0, right - 2) : right + 1].any(1)
        edges = np.flatnonzero(np.diff(np.concatenate([[0], sides.astype(int), [0]])))
        first, end = max(edges.reshape(-1, 2).tolist(), key=lambda run: run[1] - run[0])
        if right - left > sheet.shape[1] / 2 and end - first > sheet.shape[0] / 3:
            return slice(first, end), slice(left, right + 1)
    raise SystemExit("no frame of a grid was found on a sheet")


def shown(sheet: NDArray[np.uint8], kind: str) -> NDArray[np.uint8]:
    """Return what a model is shown of a sheet: `grid`, `border`, `footer` (what is below the frame) or `whole`."""
    rows, columns = frame_of(sheet)
    if kind == "grid":
        return sheet[rows, columns][_MARGIN_PX:-_MARGIN_PX, _MARGIN_PX:-_MARGIN_PX]
    if kind == "footer":
        return sheet[rows.stop + 1 :]
    if kind == "border":
        sheet = sheet.copy()
        sheet[rows, columns] = 255
    return sheet


def read_sheet(file: str | Path) -> NDArray[np.uint8]:
    """Read a sheet in grey, uint8 [H, W]."""
    return np.asarray(Image.open(file).convert("L"))


def drawn(image: NDArray[np.uint8], side_px: int = SIDE_PX) -> NDArray[np.uint8]:
    """Return the ink of an image on mid grey, strokes a little thicker, squashed to a square of `side_px`.

    On white paper, which is far from 0 in every patch, towers of random weights learn nothing: the loss of the first
    hundreds of steps stays at what the shares of the classes give. Thin strokes would fade where the square is small.
    """
    ink = Image.fromarray(np.where(image > _FAINT, 255, image).astype(np.uint8)).filter(ImageFilter.MinFilter(3))
    square = np.asarray(ink.resize((side_px, side_px), Image.Resampling.BOX), np.float32)
    return np.rint(square * (_PAPER / 255)).astype(np.uint8)


def write_images(sheets: Sequence[Row], out: Path) -> None:
    """Write both kinds of images as they are drawn, in folders of their own."""
    for kind in INPUTS:
        (out / kind).mkdir(parents=True, exist_ok=True)
        for row in sheets:
            target = out / kind / row["image"]
            if not target.is_file():
                Image.fromarray(drawn(shown(read_sheet(row["path"]), kind))).save(target)


def read_set(data: Path, num_folds: int) -> list[dict[str, str]]:
    """Read the table of the set, and divide the printed numbers into folds that are alike in their classes."""
    rows: list[dict[str, str]] = read_rows(data / "labels.csv")
    labels, groups = [row["label"] for row in rows], [row["group"] for row in rows]
    folds = StratifiedGroupKFold(num_folds, shuffle=True, random_state=0).split(rows, labels, groups)
    for fold, (_, tested) in enumerate(folds):
        for i in tested.tolist():
            file = rows[i]["file"]
            rows[i] |= {"fold": str(fold), "path": str((data / file).resolve()), "image": f"{Path(file).stem}.png"}
    return rows


def divided(sheets: Sequence[Row], fold: int) -> list[str]:
    """Return train, val or test of each sheet in one fold; all classes are on every side.

    Raises:
        SystemExit: Where that cannot be.
    """
    train = [i for i, row in enumerate(sheets) if row["fold"] != str(fold)]
    labels, groups = [sheets[i]["label"] for i in train], [sheets[i]["group"] for i in train]
    sides = ["test" if row["fold"] == str(fold) else "train" for row in sheets]
    parts = StratifiedGroupKFold(_VAL_FOLDS, shuffle=True, random_state=fold).split(train, labels, groups)
    for _, chosen in parts:
        if {labels[i] for i in chosen} == set(labels):
            for i in chosen:
                sides[train[i]] = "val"
            return sides
    raise SystemExit(f"fold {fold}: no part of the training sheets has all classes to validate with")


def shares_of(sheets: Sequence[Row], sides: Sequence[str]) -> NDArray[np.float64]:
    """Return the share of each class among the training sheets."""
    labels = [row["label"] for row, side in zip(sheets, sides, strict=True) if side == "train"]
    return np.array([labels.count(name) for name in CLASSES]) / len(labels)

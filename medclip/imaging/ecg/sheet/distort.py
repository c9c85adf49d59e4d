"""Spoil a sheet as printers, hands, scanners and cameras do, and keep the map of where its leads are."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from medclip.imaging.ecg.sheet.layouts import SheetMap

_INK_OF_HAND = (30, 40, 120)


@dataclass(frozen=True)
class Distortion:
    """What is done to a sheet, in plain values: the same values spoil it in the same way."""

    degrees: float = 0.0
    """Turned clockwise."""
    corners: tuple[tuple[float, float], ...] = ((0.0, 0.0),) * 4
    """By how much each corner (upper left, upper right, lower right, lower left) moves right and down, as shares of the
    sides: a camera that looks at an angle."""
    crop: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """Shares of the image cut off at the top, right, bottom and left."""
    warmth: float = 0.0
    """Light from -1 (blue) over 0 (white) to 1 (yellow)."""
    shadow: float = 0.0
    """How much darker the darkest side is, 0 to 1."""
    shadow_degrees: float = 0.0
    creases: tuple[float, ...] = ()
    """Where folds run across the sheet, as shares of its width; each is a blurred darker line."""
    wrinkle: float = 0.0
    """Depth of a slow unevenness of the light, 0 to 1."""
    handwriting: str = ""
    """Written with a pen at the upper edge of the leads."""
    blur_px: float = 0.0
    noise: float = 0.0
    """Standard deviation, in grey levels."""
    jpeg_quality: int | None = None
    background: int = 90
    """Grey level of the table that the sheet lies on."""
    seed: int = 0
    """Of the noise and the wrinkle."""


def draw_distortion(seed: int, *, strength: float = 1.0) -> Distortion:
    """Draw what a telephone's photograph does to a sheet that was pressed flat.

    Args:
        seed: Seed of all that is drawn.
        strength: Factor of what is done: 0 leaves the sheet as it is; 1 turns it by up to 8 degrees and moves corners
            by up to 5 %.
    """
    rng = np.random.default_rng(seed)
    corners = rng.uniform(-0.05, 0.05, (4, 2)) * strength
    return Distortion(
        degrees=float(rng.uniform(-8, 8) * strength),
        corners=tuple((float(x), float(y)) for x, y in corners),
        warmth=float(rng.uniform(-0.3, 0.6) * strength),
        shadow=float(rng.uniform(0, 0.35) * strength),
        shadow_degrees=float(rng.uniform(0, 360)),
        creases=tuple(float(x) for x in rng.uniform(0.1, 0.9, rng.integers(0, 3))) if strength else (),
        wrinkle=float(rng.uniform(0, 0.08) * strength),
        blur_px=float(rng.uniform(0, 0.8) * strength),
        noise=float(rng.uniform(0, 6) * strength),
        jpeg_quality=int(rng.integers(70, 96)) if strength else None,
        seed=seed,
    )


def distort(pixels: NDArray[np.uint8], places: SheetMap, distortion: Distortion) -> tuple[NDArray[np.uint8], SheetMap]:
    """Spoil a sheet.

    Args:
        pixels: uint8 [H, W, 3].
        places: Map of where the sheet's leads lie.
        distortion: Distortion that is applied, in the order of paper (writing, folds), camera (angle, light, blur) and
            file.

    Returns:
        The spoilt image, uint8 [H', W', 3], and where the leads lie in it.
    """
    rng = np.random.default_rng(distortion.seed)
    page = _creased(_written_on(pixels, places, distortion.handwriting), places, distortion.creases)
    to_image, size = _view(places, distortion)
    image = Image.fromarray(page)
    back = np.linalg.inv(to_image)
    table = (distortion.background,) * 3
    image = image.transform(
        size,
        Image.Transform.PERSPECTIVE,
        (back / back[2, 2]).ravel()[:8].tolist(),
        Image.Resampling.BICUBIC,
        fillcolor=table,
    )
    values = np.asarray(image, np.float32)
    values = values * _light(values.shape[:2], distortion, rng)[..., None]
    values *= 1 + distortion.warmth * np.array([0.04, 0.0, -0.22], np.float32)
    if distortion.blur_px:
        soft = Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
        values = np.asarray(soft.filter(ImageFilter.GaussianBlur(distortion.blur_px)), np.float32)
    if distortion.noise:
        values = values + rng.normal(0, distortion.noise, values.shape).astype(np.float32)
    spoilt = np.clip(np.round(values), 0, 255).astype(np.uint8)
    if distortion.jpeg_quality is not None:
        buffer = io.BytesIO()
        Image.fromarray(spoilt).save(buffer, "JPEG", quality=distortion.jpeg_quality)
        spoilt = np.asarray(Image.open(buffer).convert("RGB"))
    return spoilt, places.moved(to_image, size[0], size[1])


def _view(places: SheetMap, distortion: Distortion) -> tuple[NDArray[np.float64], tuple[int, int]]:
    """Return the homography from the page to the image, and the image's width and height."""
    width, height = places.width_px, places.height_px
    square = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)
    moved = square + np.array(distortion.corners) * (width, height)
    angle = np.radians(distortion.degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = moved @ turn.T
    low, high = moved.min(0), moved.max(0)
    top, right, bottom, left = distortion.crop
    span = high - low
    low, high = low + span * (left, top), high - span * (right, bottom)
    size = int(np.ceil(high[0] - low[0])), int(np.ceil(high[1] - low[1]))
    return _homography(square, moved - low), size


def _homography(source: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the homography that takes four points to four others."""
    rows = []
    for (x, y), (u, v) in zip(source, target, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
    return np.append(np.linalg.solve(np.array(rows), target.ravel()), 1.0).reshape(3, 3)


def _light(shape: tuple[int, int], distortion: Distortion, rng: np.random.Generator) -> NDArray[np.float32]:
    height, width = shape
    angle = np.radians(distortion.shadow_degrees)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    along = np.cos(angle) * (x / width - 0.5) + np.sin(angle) * (y / height - 0.5)
    light = 1 - distortion.shadow * np.clip(along + 0.5, 0, 1)
    if distortion.wrinkle:
        coarse = Image.fromarray(rng.normal(0, 1, (7, 9)).astype(np.float32))
        light = light * (1 - distortion.wrinkle * np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)))
    return light.astype(np.float32)


def _creased(page: NDArray[np.uint8], places: SheetMap, creases: tuple[float, ...]) -> NDArray[np.uint8]:
    if not creases:
        return page
    x = np.arange(page.shape[1], dtype=np.float32)
    thick = 0.6 * places.px_per_mm
    dark = sum(0.18 * np.exp(-(((x - at * page.shape[1]) / thick) ** 2)) for at in creases)
    return np.clip(page * (1 - np.minimum(dark, 0.5))[None, :, None], 0, 255).astype(np.uint8)


def _written_on(pixels: NDArray[np.uint8], places: SheetMap, text: str) -> NDArray[np.uint8]:
    if not text:
        return pixels
    page = Image.fromarray(pixels)
    box = places.boxes[0]
    font = ImageFont.load_default(round(7 * places.px_per_mm))
    ImageDraw.Draw(page).text((box.left_px + 0.4 * page.width, 8 * places.px_per_mm), text, _INK_OF_HAND, font)
    return np.asarray(page)

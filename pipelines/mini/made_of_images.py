"""Images that code makes of medical ones and that no longer are such: masks, film sheets, colour Doppler, overlays.

A mask, a sheet of twelve slices or a heat map looks like its modality to a model that knows nothing else. What is made
of an image is of its patient: made of training images it fits a guard, made of others it tests one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from not_medical import Pixels
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import binary_erosion, gaussian_filter

Make = Callable[[Sequence[Pixels], "NDArray[np.bool_] | None", np.random.Generator], Pixels]
"""From images of one set, the mask of the first and a random generator to what is made of them."""
PANELS = ((3, 4), (4, 3), (4, 5), (3, 3), (2, 3), (5, 4), (2, 2))
"""Rows and columns of a film sheet."""
MOST_PANELS = max(rows * columns for rows, columns in PANELS)


def binary_mask(images: Sequence[Pixels], mask: NDArray[np.bool_] | None, rng: np.random.Generator) -> Pixels:
    """Write a mask as it is kept: 0 and 255, or 255 and 0; jagged or, as saved for the web, a little soft."""
    on = _mask_of(images, mask)
    pixels = np.where(on != (rng.random() < 0.15), 255, 0).astype(np.uint8)
    return np.asarray(gaussian_filter(pixels, rng.uniform(0.5, 1.5)), np.uint8) if rng.random() < 0.4 else pixels


def flat_mask(images: Sequence[Pixels], mask: NDArray[np.bool_] | None, rng: np.random.Generator) -> Pixels:
    """Fill a mask, what lies around it and its rim with a few greys, as label maps and drawings are."""
    on = _mask_of(images, mask)
    greys = rng.permutation(np.linspace(rng.uniform(0, 30), rng.uniform(120, 255), 4))
    pixels = np.where(on, greys[0], greys[1])
    if rng.random() < 0.5:
        pixels = np.where(binary_erosion(on, iterations=max(2, on.shape[0] // 20)), greys[2], pixels)
    if rng.random() < 0.5:
        y, x = np.ogrid[-1 : 1 : on.shape[0] * 1j, -1 : 1 : on.shape[1] * 1j]
        pixels = np.where(np.hypot(x / rng.uniform(0.7, 1), y / rng.uniform(0.7, 1)) < 1, pixels, greys[3])
    return pixels.astype(np.uint8)


def film_sheet(images: Sequence[Pixels], mask: NDArray[np.bool_] | None, rng: np.random.Generator) -> Pixels:
    """Put images side by side in rows, as on a film sheet, with gaps and captions or without."""
    rows, columns = PANELS[int(rng.integers(len(PANELS)))]
    side, gap = int(rng.integers(80, 150)), int(rng.choice([0, 0, 2, 6, 14]))
    paper = int(rng.choice([0, 0, 0, 60, 255]))
    sheet = Image.new("L", (columns * (side + gap) + gap, rows * (side + gap) + gap), paper)
    for number in range(rows * columns):
        panel = Image.fromarray(_grey(images[number % len(images)])).resize((side, side))
        if rng.random() < 0.3:
            ImageDraw.Draw(panel).text((3, side - 13), f"{number + 1}", fill=255)
        row, column = divmod(number, columns)
        sheet.paste(panel, (gap + column * (side + gap), gap + row * (side + gap)))
    return np.asarray(sheet)


def colour_doppler(images: Sequence[Pixels], mask: NDArray[np.bool_] | None, rng: np.random.Generator) -> Pixels:
    """Lay red and blue flow over a sector of an ultrasound image, with its box and its bar of colours."""
    grey = _grey(images[0]).astype(float)
    height, width = grey.shape
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    left, top = rng.uniform(0.05, 0.4, 2)
    box = (x > left) & (x < left + rng.uniform(0.3, 0.55)) & (y > top) & (y < top + rng.uniform(0.3, 0.55))
    flow = gaussian_filter(rng.normal(0, 1, grey.shape), rng.uniform(4, 14))
    flow /= max(float(np.abs(flow).max()), 1e-9)
    on = box & (np.abs(flow) > rng.uniform(0.25, 0.5))
    towards, away = np.stack([flow, flow * 0.5, 0 * flow], 2), np.stack([0 * flow, -flow * 0.5, -flow], 2)
    colour = 255 * np.where(flow[:, :, None] > 0, towards, away).clip(0, 1) ** 0.5
    pixels = np.where(on[:, :, None], colour, grey[:, :, None])
    pixels[box & ~np.asarray(binary_erosion(box, iterations=2), bool)] = (230, 230, 80)
    bar = slice(int(0.05 * height), int(0.35 * height)), slice(int(0.94 * width), int(0.98 * width))
    shade = np.linspace(1, -1, bar[0].stop - bar[0].start)[:, None]
    pixels[bar] = 255 * np.stack([shade, np.abs(shade) / 2, -shade], 2).clip(0, 1)
    return pixels.clip(0, 255).astype(np.uint8)


def heat_map(images: Sequence[Pixels], mask: NDArray[np.bool_] | None, rng: np.random.Generator) -> Pixels:
    """Blend a smooth map in colours, or in greys, over an image."""
    import matplotlib as mpl

    grey = _grey(images[0])
    heat = np.zeros(grey.shape)
    for _ in range(int(rng.integers(1, 4))):
        y, x = (int(rng.integers(side // 5, side - side // 5)) for side in grey.shape)
        heat[y, x] = rng.uniform(0.4, 1)
    heat = gaussian_filter(heat, min(grey.shape) / rng.uniform(5, 12))
    colours = mpl.colormaps[str(rng.choice(["jet", "turbo", "inferno", "gray"]))](heat / heat.max())[:, :, :3]
    weight = rng.uniform(0.35, 0.8)
    return (weight * 255 * colours + (1 - weight) * grey[:, :, None]).clip(0, 255).astype(np.uint8)


def overlay(images: Sequence[Pixels], mask: NDArray[np.bool_] | None, rng: np.random.Generator) -> Pixels:
    """Draw the outline of a mask on its image, or fill it, in one colour or in white."""
    on = _mask_of(images, mask)
    if rng.random() < 0.5:
        on = on & ~np.asarray(binary_erosion(on, iterations=max(2, on.shape[0] // 60)), bool)
    colour = 255 * (np.ones(3) if rng.random() < 0.4 else rng.random(3))
    first = images[0] if images[0].ndim == 3 else np.repeat(images[0][:, :, None], 3, 2)
    weight = rng.uniform(0.5, 1) * on[:, :, None]
    return (weight * colour + (1 - weight) * first).astype(np.uint8)


MADE: Mapping[str, tuple[Make, tuple[str, ...]]] = {
    "binary mask": (binary_mask, ("bus_bra", "isic2017", "kvasir_seg")),
    "flat mask": (flat_mask, ("bus_bra", "isic2017", "kvasir_seg")),
    "film sheet": (film_sheet, ("brain_mri", "medpix2", "nih_cxr", "bus_bra", "mini_mias")),
    "colour Doppler": (colour_doppler, ("bus_bra", "breast_us")),
    "heat map": (heat_map, ("nih_cxr", "brain_mri", "bus_bra", "csdi_fundus")),
    "overlay": (overlay, ("bus_bra", "isic2017", "kvasir_seg")),
}
"""What is made, and of which sets."""


def _mask_of(images: Sequence[Pixels], mask: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    """Return the mask at the size of its image."""
    assert mask is not None
    height, width = images[0].shape[:2]
    return np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))


def _grey(pixels: Any) -> Pixels:
    return np.asarray(Image.fromarray(pixels).convert("L"))

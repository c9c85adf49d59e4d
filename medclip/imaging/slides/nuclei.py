"""Nuclei on a patch: how many, how large, of what shape, measured in µm on the haematoxylin of the stain.

The classical way: Otsu's threshold on smoothed haematoxylin, held between limits; small gaps filled and specks dropped,
in µm²; touching nuclei parted by a watershed of the distance to the edge. It counts what is dark blue and of a nucleus'
size: apoptotic bodies, pigment and ink count, too; pale vesicular nuclei are missed. No model, and no diagnosis.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.imaging.slides.stain import HED_SC, StainEstimate, absorbance

MOST_MPP_UM = 1.0
"""Coarser, a small nucleus has fewer than 40 pixels, and shapes mean nothing."""


@dataclass(frozen=True)
class NucleiOptions:
    """Constants; sizes in µm."""

    smooth_um: float = 0.5
    threshold: tuple[float, float] = (0.15, 0.6)
    """Bounds of the threshold on haematoxylin, in absorbance: without them Otsu splits stroma."""
    least_um2: float = 8.0
    """Smaller pieces are specks: a lymphocyte has 25."""
    most_um2: float = 400.0
    """Larger ones are no single nucleus; they count as area, not as nuclei."""
    hole_um2: float = 10.0
    apart_um: float = 3.0
    """Distance of the middles of two nuclei that touch."""
    tissue: float = 0.065
    """Absorbance of the darkest channel, from which a pixel is tissue."""


@dataclass(frozen=True)
class NucleiMeasurements:
    """What was measured of a patch."""

    num_nuclei: int
    per_mm2: float
    """Nuclei to a mm² of tissue; 0 without tissue."""
    area_share: float
    """Of the tissue, 0-1."""
    median_um2: float
    """Area of a nucleus; NaN for fewer than five that lie wholly on the patch, and so the next four."""
    size_variation: float
    """Median absolute deviation of the areas over their median: 0 where all are alike."""
    median_elongation: float
    """Longer over shorter axis of the ellipse: 1 for a circle."""
    median_solidity: float
    """Area over that of the convex hull: 1 for a smooth outline."""
    median_distance_um: float
    """From the middle of a nucleus to that of its neighbour."""
    tissue_share: float
    """Of the patch, 0-1."""
    haematoxylin: float
    """Mean absorbance on nuclei (on tissue where there are none)."""
    eosin: float
    """Mean absorbance on tissue beside nuclei."""


_MOST_FEW = 5


def measure_nuclei(
    rgb: NDArray[np.uint8],
    mpp_um: float,
    stain: StainEstimate | None = None,
    options: NucleiOptions | None = None,
) -> NucleiMeasurements:
    """Measure the nuclei of a patch.

    Args:
        rgb: RGB uint8 [H, W, 3], as scanned.
        mpp_um: Scale of the patch, at most 1 µm/px.
        stain: Estimate of the slide; the usual vectors of haematoxylin, eosin and the rest if None or of no use.
        options: Constants; the defaults if None.

    Returns:
        The measurements.

    Raises:
        MedclipError: WRONG_USE for a coarser scale; MISSING_CODEC without scikit-image.
    """
    if not 0 < mpp_um <= MOST_MPP_UM:
        raise MedclipError(
            Reason.WRONG_USE, f"nuclei are measured at up to {MOST_MPP_UM:g} µm/px, and not at {mpp_um:g}."
        )
    options = options or NucleiOptions()
    usable = stain is not None and not stain.problem and stain.method != "reinhard"
    absorbed = absorbance(rgb, stain.white) if stain is not None else absorbance(rgb)
    vectors_SC = stain.vectors_SC if usable and stain is not None else HED_SC
    amounts = absorbed @ np.linalg.pinv(vectors_SC).astype(np.float32)
    tissue = absorbed.max(axis=2) >= options.tissue
    haematoxylin, eosin = np.maximum(amounts[..., 0], 0), np.maximum(amounts[..., 1], 0)
    labels = _nuclei(haematoxylin, tissue, mpp_um, options)
    return _measured(labels, tissue, haematoxylin, eosin, mpp_um, options)


def _nuclei(
    haematoxylin: NDArray[np.float32], tissue: NDArray[np.bool_], mpp_um: float, options: NucleiOptions
) -> NDArray[np.int32]:
    """Number the nuclei."""
    from scipy import ndimage

    feature, filters, segmentation = _scikit_image()
    if not tissue.any():
        return np.zeros(tissue.shape, np.int32)
    smooth: Any = ndimage.gaussian_filter(haematoxylin, options.smooth_um / mpp_um)
    values = smooth[tissue]
    otsu = float(filters.threshold_otsu(values)) if np.ptp(values) > 0 else np.inf
    mask: Any = (smooth > float(np.clip(otsu, *options.threshold))) & tissue
    pixel_um2 = mpp_um**2
    mask = ndimage.binary_opening(mask, np.ones((3, 3), bool))
    mask = _without_small(mask, options.least_um2 / pixel_um2)
    mask = ~_without_small(~mask, options.hole_um2 / pixel_um2)
    distance: Any = ndimage.distance_transform_edt(mask)
    depth: Any = ndimage.gaussian_filter(distance.astype(np.float32), 0.5 / mpp_um)
    pieces: Any = ndimage.label(mask)
    peaks = feature.peak_local_max(
        depth, min_distance=max(1, round(options.apart_um / mpp_um)), labels=pieces[0], exclude_border=False
    )
    markers = np.zeros(mask.shape, np.int32)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    labels = segmentation.watershed(-depth, markers, mask=mask)
    areas = np.bincount(labels.ravel())
    small = areas < options.least_um2 / pixel_um2
    small[0] = False
    labels[small[labels]] = 0
    return np.asarray(labels, np.int32)


def _without_small(mask: NDArray[np.bool_], least_px: float) -> NDArray[np.bool_]:
    from scipy import ndimage

    labelled: Any = ndimage.label(mask)
    labels, _ = labelled
    keep = np.bincount(labels.ravel()) >= least_px
    keep[0] = False
    return keep[labels]


def _measured(
    labels: NDArray[np.int32],
    tissue: NDArray[np.bool_],
    haematoxylin: NDArray[np.float32],
    eosin: NDArray[np.float32],
    mpp_um: float,
    options: NucleiOptions,
) -> NucleiMeasurements:
    from skimage.measure import regionprops_table

    names = ("area", "centroid", "axis_major_length", "axis_minor_length", "solidity", "bbox")
    table: Any = regionprops_table(labels, properties=names)
    area = np.asarray(table["area"], float) * mpp_um**2
    single = area <= options.most_um2
    height, width = labels.shape
    inside = (table["bbox-0"] > 0) & (table["bbox-1"] > 0) & (table["bbox-2"] < height) & (table["bbox-3"] < width)
    sized = single & inside & (np.asarray(table["axis_minor_length"]) > 0)
    nuclei, plain = labels > 0, tissue & (labels == 0)
    tissue_mm2 = float(tissue.sum()) * mpp_um**2 / 1e6
    medians = dict.fromkeys(("um2", "variation", "elongation", "solidity", "distance"), float("nan"))
    if sized.sum() >= _MOST_FEW:
        middle = float(np.median(area[sized]))
        places = np.stack([table["centroid-0"], table["centroid-1"]], 1)[single] * mpp_um
        elongation = np.asarray(table["axis_major_length"])[sized] / np.asarray(table["axis_minor_length"])[sized]
        medians = {
            "um2": middle,
            "variation": float(np.median(np.abs(area[sized] - middle)) / middle),
            "elongation": float(np.median(elongation)),
            "solidity": float(np.median(np.asarray(table["solidity"])[sized])),
            "distance": _neighbour_distance(places),
        }
    on_nuclei = haematoxylin[nuclei] if nuclei.any() else haematoxylin[tissue]
    return NucleiMeasurements(
        num_nuclei=int(single.sum()),
        per_mm2=float(single.sum()) / tissue_mm2 if tissue_mm2 else 0.0,
        area_share=float(nuclei.sum() / max(1, tissue.sum())),
        median_um2=medians["um2"],
        size_variation=medians["variation"],
        median_elongation=medians["elongation"],
        median_solidity=medians["solidity"],
        median_distance_um=medians["distance"],
        tissue_share=float(tissue.mean()),
        haematoxylin=float(on_nuclei.mean()) if on_nuclei.size else 0.0,
        eosin=float(eosin[plain].mean()) if plain.any() else 0.0,
    )


def _neighbour_distance(places_N2: NDArray[np.floating[Any]]) -> float:
    from scipy.spatial import KDTree

    if len(places_N2) < 2:
        return float("nan")
    distances, _ = KDTree(places_N2).query(places_N2, k=2)
    return float(np.median(distances[:, 1]))


def _scikit_image() -> tuple[Any, Any, Any]:
    try:
        from skimage import feature, filters, segmentation
    except ImportError:
        raise MedclipError(
            Reason.MISSING_CODEC,
            "measuring nuclei needs scikit-image, which is not installed.",
            hint="Run: pip install 'medclip-imaging[wsi]'",
        ) from None
    return feature, filters, segmentation

"""Agreement with highdicom on every real file that it reads; where medclip differs, the reason is written here."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from medclip.dicom.pixels.decoded import Decoded
from medclip.dicom.pixels.render import Mode, read_dicom
from medclip.settings import PixelPolicy, ReadPolicy
from tests.field.conftest import SETTINGS, Field

pytestmark = [pytest.mark.shared, pytest.mark.field]

# highdicom knows no padding and leaves pixels as wide as they are stored.
ALIKE = replace(SETTINGS, policy=ReadPolicy(pixels=PixelPolicy(padding="keep", square_pixels=False)))
COMMON: dict[str, Any] = {"apply_real_world_transform": False, "apply_icc_profile": False}


def _images(field: Field):
    """Give name, header and highdicom's image of what both can open: it wants a complete header, medclip does not."""
    highdicom = pytest.importorskip("highdicom")
    for name, row in field.rows.items():
        header = field.facts[name].header
        if row["stored_sha1_12"] and header is not None:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    yield name, header, highdicom.imread(field.refs[name].path)
            except Exception:
                continue


def _theirs(image: Any, **options: Any) -> Any:
    """Give highdicom's first frame, None where it gives none (no window stated, a codec it lacks, float pixels)."""
    try:
        return image.get_frame(1, **COMMON, **options)
    except Exception:
        return None


def _ours(field: Field, name: str, mode: Mode = "display") -> Decoded:
    return read_dicom(field.refs[name].path, ALIKE, header=field.facts[name].header, mode=mode, frame=0)


@pytest.mark.slow
def test_modality_values_and_colours_are_those_of_highdicom(field: Field) -> None:
    compared = 0
    for name, header, image in _images(field):
        if header.photometric.startswith("MONOCHROME"):
            theirs = _theirs(image, apply_voi_transform=False, apply_presentation_lut=False, dtype=np.float64)
            ours = None if theirs is None else _ours(field, name, "modality").pixels[..., 0]
        else:
            theirs = _theirs(image)
            ours = None if theirs is None else _ours(field, name).pixels
            if ours is not None and ours.dtype != np.uint8:  # deep colour is 0 to 1 here
                ours = ours * np.float64(2 ** (16 if header.photometric == "PALETTE COLOR" else header.bits_stored) - 1)
        if theirs is None or ours is None:
            continue
        np.testing.assert_allclose(ours, np.asarray(theirs, np.float64), rtol=1e-5, atol=0.02, err_msg=name)
        compared += 1
    if not compared:
        pytest.skip("highdicom reads none of the files")


@pytest.mark.slow
def test_windowed_values_are_those_of_highdicom(field: Field) -> None:
    compared = 0
    for name, header, image in _images(field):
        if not header.photometric.startswith("MONOCHROME"):
            continue
        theirs = _theirs(image, apply_voi_transform=True, voi_output_range=(0, 1), dtype=np.float64)
        if theirs is None:
            continue
        found = _ours(field, name)
        # A window in which nothing shows is left aside here: all black or all white is not what anybody meant.
        if any("ignored" in step.detail for step in found.steps):
            assert theirs.min() == theirs.max(), name
            continue
        # highdicom brings a window to stored values before it takes 1 off the width, so for a slope other than 1 its
        # windows are too narrow; PS3.3 C.11.2.1.2.1 takes 1 off in modality units, as medclip does.
        rescale = next((step.detail for step in found.steps if step.name == "rescale"), "slope 1,")
        if not rescale.startswith("slope 1,"):
            continue
        ours = found.pixels[..., 0] / (255.0 if found.pixels.dtype == np.uint8 else 1.0)
        np.testing.assert_allclose(
            ours, theirs, atol=1.01 / 510 if found.pixels.dtype == np.uint8 else 1e-5, err_msg=name
        )
        compared += 1
    if not compared:
        pytest.skip("highdicom windows none of the files")

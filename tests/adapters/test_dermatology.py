from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medclip.adapters.dermatology import DermatologyAdapter
from medclip.errors import MedclipError, Reason
from tests.kits.files import ramp, write_dicom, write_image
from tests.kits.loops import read

ADAPTER = DermatologyAdapter()


@pytest.mark.parametrize("code", ["DMS", "XC", "OT", ""])
def test_photographs_in_dicom_are_as_they_are(tmp_path: Path, code: str) -> None:
    pixels = np.stack([ramp(64, 64), ramp(64, 64)[::-1], ramp(64, 64).T], axis=2)
    sample = read(ADAPTER, write_dicom(tmp_path / "a", pixels, Modality=code))
    image = read(ADAPTER, write_image(tmp_path / "a.png", pixels))
    np.testing.assert_array_equal(sample.views[0].pixels, pixels)
    np.testing.assert_array_equal(image.views[0].pixels, pixels)
    assert sample.provenance.preprocessing == image.provenance.preprocessing


@pytest.mark.parametrize("code", ["RG", "CR", "OP", "US"])
def test_what_is_no_photograph_of_skin_is_refused(tmp_path: Path, code: str) -> None:
    with pytest.raises(MedclipError) as caught:
        read(ADAPTER, write_dicom(tmp_path / "a", ramp(), Modality=code))
    assert caught.value.reason is Reason.NOT_SUPPORTED_YET

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medclip.adapters.base import Source
from medclip.adapters.generic import GenericAdapter
from medclip.errors import MedclipError, Reason
from medclip.files.recognise.inspect import FileFacts
from medclip.files.recognise.sniff import Format
from medclip.sample import Kind
from medclip.settings import Settings
from tests.kits.files import ramp, write_dicom, write_image
from tests.kits.loops import read, sector, write_cine

ADAPTER = GenericAdapter()


@pytest.mark.parametrize("code", ["NM", "PT", "XA", "RF", "CT", "MR", "US", "OP", "XC", "IO", "PX", "CR"])
def test_a_single_frame_of_any_modality_is_one_plain_view(tmp_path: Path, code: str) -> None:
    sample = read(ADAPTER, write_dicom(tmp_path / "a", ramp(dtype=np.uint16, top=4000), Modality=code))
    assert (sample.kind, sample.modality, len(sample.views)) == (Kind.IMAGE, None, 1)
    assert sample.views[0].pixels.dtype == np.uint8
    assert sample.views[0].pixels.shape == (32, 48, 1)
    assert sample.views[0].pixels.max() == 255
    assert sample.provenance.preprocessing == ADAPTER.preprocessing


@pytest.mark.parametrize("code", ["US", "XA", "MR"])
def test_frames_become_up_to_sixteen_views_and_nothing_is_cropped(tmp_path: Path, code: str) -> None:
    frames = sector(20)
    sample = read(ADAPTER, write_cine(tmp_path / "a", frames, Modality=code))
    assert sample.kind is Kind.CINE
    assert sample.frames is not None
    np.testing.assert_array_equal(sample.frames[..., 0], frames)
    assert len(sample.views) == 16
    assert sample.provenance.preprocessing == ADAPTER.preprocessing_of(Kind.CINE)


def test_a_video_keeps_its_colour(tmp_path: Path) -> None:
    pytest.importorskip("av")
    from tests.kits.video import scene, write_video

    sample = read(ADAPTER, write_video(tmp_path / "a.avi", scene()))
    assert sample.frames is not None
    assert sample.frames.shape == (12, 96, 128, 3)
    assert len(sample.views) == 12


@pytest.mark.parametrize(
    ("kind", "fmt"), [(Kind.VOLUME, Format.NIFTI), (Kind.SLIDE, Format.SLIDE), (Kind.SIGNAL, Format.EDF)]
)
def test_volumes_slides_and_signals_are_refused(tmp_path: Path, kind: Kind, fmt: Format) -> None:
    with pytest.raises(MedclipError) as caught:
        ADAPTER.read(Source(kind, (tmp_path / "a",), (FileFacts("0" * 64, fmt),)), Settings())
    assert caught.value.reason is Reason.NOT_SUPPORTED_YET


def test_images_are_as_they_were(tmp_path: Path) -> None:
    sample = read(ADAPTER, write_image(tmp_path / "a.png", ramp()))
    np.testing.assert_array_equal(sample.views[0].pixels[..., 0], ramp())
    assert sample.provenance.steps == ()


@pytest.mark.shared
def test_real_objects_of_other_modalities_are_shown(shared: Path) -> None:
    folder = shared / "data/field_dev"
    for name in ("dicom-nm/nm1/nema-nm1_jpll.dcm", "dicom-rf/karsten/KarstenHilbertRF.dcm", "dicom-xa/xa1/XA1_JLSL"):
        (view,) = read(ADAPTER, folder / name).views
        assert view.pixels.std() > 5
    enhanced = read(ADAPTER, folder / "dicom-mr/emri-small/emri_small.dcm")
    assert (enhanced.kind, len(enhanced.views)) == (Kind.CINE, 10)

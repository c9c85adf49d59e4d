from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medclip.errors import Reason, Status
from medclip.files.recognise.inspect import inspect_file
from medclip.files.recognise.sniff import Format
from medclip.imaging.slides.readers.openslide import knows
from medclip.settings import Settings

MIRAX_DATA = b"01.02" + bytes(range(200, 256)) * 20


def _said(path: Path) -> tuple[Format, Reason | None]:
    facts = inspect_file(path, Settings())
    return facts.format, facts.problem.reason if facts.problem else None


def _jpeg(path: Path, **options: object) -> Path:
    pixels = np.random.default_rng(0).integers(0, 255, (128, 256, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path, "JPEG", **options)
    return path


def _mirax(folder: Path) -> Path:
    data = folder / "a"
    data.mkdir()
    (data / "Slidedat.ini").write_text("[GENERAL]\nSLIDE_VERSION = 01.02\n")
    (data / "Index.dat").write_bytes(MIRAX_DATA)
    (data / "Data0000.dat").write_bytes(MIRAX_DATA)
    _jpeg(data / "Data0001.dat")
    return _jpeg(folder / "a.mrxs")


def _hamamatsu(folder: Path, title: str = "Virtual Microscope Specimen") -> Path:
    names = "ImageFile=s.jpg\nMapFile=s_map2.jpg\nMacroImage=s_macro.jpg\n"
    path = folder / "s.vms"
    path.write_text(
        f"[{title}]\nNoLayers=1\nNoJpegColumns=1\nNoJpegRows=1\n{names}"
        "PhysicalWidth=128000\nPhysicalHeight=64000\nSourceLens=20\n"
    )
    for name in ("s.jpg", "s_map2.jpg", "s_macro.jpg"):
        _jpeg(folder / name, restart_marker_blocks=4, subsampling=0)
    return path


def test_a_mirax_slide_is_known_by_the_folder_beside_it(tmp_path: Path) -> None:
    path = _mirax(tmp_path)
    assert _said(path) == (Format.SLIDE, None)
    assert knows(path)


@pytest.mark.parametrize("name", ["Slidedat.ini", "Index.dat", "Data0000.dat", "Data0001.dat"])
def test_the_data_of_a_mirax_slide_is_skipped(tmp_path: Path, name: str) -> None:
    _mirax(tmp_path)
    reason = _said(tmp_path / "a" / name)[1]
    assert reason is Reason.COMPANION
    assert reason.status is Status.SKIPPED


def test_the_overview_of_a_mirax_slide_is_never_taken_for_a_image(tmp_path: Path) -> None:
    assert _said(_jpeg(tmp_path / "a.mrxs")) == (Format.SLIDE, Reason.MISSING_FILE)
    (tmp_path / "a").mkdir()
    assert _said(tmp_path / "a.mrxs")[1] is Reason.MISSING_FILE


def test_data_without_its_overview_is_what_it_was(tmp_path: Path) -> None:
    _mirax(tmp_path).unlink()
    assert _said(tmp_path / "a" / "Data0000.dat") == (Format.UNKNOWN, Reason.UNKNOWN_FORMAT)
    assert _said(tmp_path / "a" / "Data0001.dat") == (Format.JPEG, None)


def test_a_hamamatsu_slide_is_known_by_its_text_and_takes_its_images(tmp_path: Path) -> None:
    path = _hamamatsu(tmp_path)
    assert _said(path) == (Format.SLIDE, None)
    for name in ("s.jpg", "s_map2.jpg", "s_macro.jpg"):
        assert _said(tmp_path / name)[1] is Reason.COMPANION
    assert _said(_jpeg(tmp_path / "other.jpg")) == (Format.JPEG, None)


def test_a_image_beside_any_other_text_stays_a_image(tmp_path: Path) -> None:
    _hamamatsu(tmp_path, "Settings")
    assert _said(tmp_path / "s.jpg") == (Format.JPEG, None)


def test_the_pixels_of_a_hamamatsu_slide_are_read(tmp_path: Path) -> None:
    from medclip.imaging.slides import open_slide

    path = _hamamatsu(tmp_path)
    with open_slide(path) as reader:
        assert reader.mpp_um == pytest.approx((0.5, 0.5))
        found = reader.read(0, 0, 128, 256, 0.5)
    expected = np.asarray(Image.open(tmp_path / "s.jpg"))
    np.testing.assert_array_equal(found, expected)

"""The image of what a model sees: never in the place of an input, complete or not there, grey where grey is meant."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from examples import make_phantoms as phantoms
from medclip import view
from medclip.errors import MedclipError, Reason
from medclip.inspecting import draw_view as room
from medclip.inspecting.draw_view import Viewed
from medclip.settings import PixelPolicy, ReadPolicy, Settings
from tests.kits.scoring import write_dicom, write_png

SETTINGS = Settings(workers=1)


def _refused(path: Path, out: Path, **options: object) -> Reason:
    with pytest.raises(MedclipError) as caught:
        view(path, out, settings=SETTINGS, **options)  # pyright: ignore[reportArgumentType]
    return caught.value.reason


@pytest.fixture
def undecoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where pixels would be decoded."""
    monkeypatch.setattr(room, "ReadingPool", None)


@pytest.mark.usefixtures("undecoded")
@pytest.mark.parametrize("way", ["itself", "a symbolic link", "a hard link", "another spelling", "through a folder"])
def test_the_input_is_never_replaced(tmp_path: Path, way: str) -> None:
    path = write_png(tmp_path / "in" / "pic.png", 1)
    before = path.read_bytes()
    out = path if way == "itself" else tmp_path / "out.png"
    if way == "a symbolic link":
        out.symlink_to(path)
    elif way == "a hard link":
        os.link(path, out)
    elif way == "another spelling":
        out = tmp_path / "in" / ".." / "in" / "pic.png"
    elif way == "through a folder":
        (tmp_path / "link").symlink_to(tmp_path / "in")
        out = tmp_path / "link" / "pic.png"
    assert _refused(path, out, modality="xray") is Reason.WRONG_USE
    assert path.read_bytes() == before


@pytest.mark.usefixtures("undecoded")
def test_no_other_file_of_the_folder_is_replaced_either(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", 1)
    other = write_png(tmp_path / "b.png", 2)
    assert _refused(tmp_path, other, modality="xray") is Reason.WRONG_USE


def test_an_image_that_was_made_before_is_replaced_only_where_that_is_asked(tmp_path: Path) -> None:
    path, out = write_png(tmp_path / "in.png", 1), tmp_path / "deep" / "out.png"
    view(path, out, modality="xray", settings=SETTINGS)
    out.write_bytes(b"old")
    with pytest.raises(MedclipError, match="--overwrite") as caught:
        view(path, out, modality="xray", settings=SETTINGS)
    assert caught.value.reason is Reason.OUTPUT_IN_USE
    assert out.read_bytes() == b"old"
    view(path, out, modality="xray", settings=SETTINGS, overwrite=True)
    assert out.read_bytes().startswith(b"\x89PNG")
    assert [p.name for p in out.parent.iterdir()] == ["out.png"]


def test_a_drawing_that_fails_leaves_the_old_image_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = write_png(tmp_path / "in" / "a.png", 1), tmp_path / "out.png"
    out.write_bytes(b"old")

    def breaks(*_: object, **__: object) -> None:
        raise OSError("no more of it")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", breaks)
    with pytest.raises(OSError, match="no more"):
        view(path, out, modality="xray", settings=SETTINGS, overwrite=True)
    assert out.read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out.png"]


@pytest.mark.usefixtures("undecoded")
def test_places_where_no_image_can_be_are_refused_before_anything_is_decoded(tmp_path: Path) -> None:
    path = write_png(tmp_path / "in.png", 1)
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    for name in ("folder.png", "pipe.png", "in.png/x.png", f"{'a' * 296}.png", f"{'a' * 300}/x.png", "x.jpg", "."):
        assert _refused(path, tmp_path / name, modality="xray") is Reason.WRONG_USE, name
    assert _refused(path, Path("/proc/x.png"), modality="xray") is Reason.WRONG_USE
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder.png", "in.png", "pipe.png"]


@pytest.mark.usefixtures("undecoded")
def test_a_window_for_a_file_without_windows_is_refused(tmp_path: Path) -> None:
    settings = Settings(workers=1, policy=ReadPolicy(PixelPolicy(window="foo")))
    for path in (write_png(tmp_path / "a.png", 1), phantoms.ecg_record(tmp_path / "ecg")):
        with pytest.raises(MedclipError) as caught:
            view(path, tmp_path / "x.png", modality="xray", settings=settings)
        assert caught.value.reason is Reason.WRONG_USE
        assert "window" in caught.value.message


def test_what_was_found_is_counted(tmp_path: Path) -> None:
    for number in range(3):
        write_dicom(tmp_path / "in" / f"{number}.dcm", number, study_uid=f"1.2.{number + 1}")
    drawn = view(tmp_path / "in", tmp_path / "x.png", number=2, settings=SETTINGS)
    assert (drawn.number, drawn.num_found, drawn.warning) == (2, 3, "")


def test_the_header_s_word_on_burned_in_text_is_passed_on_whatever_the_kind(tmp_path: Path) -> None:
    phantoms.ct_series(tmp_path / "ct", num_slices=3, size=48, BurnedInAnnotation="YES")
    phantoms.ultrasound_cine(tmp_path / "yes.dcm", num_frames=3, BurnedInAnnotation="YES")
    phantoms.ultrasound_cine(tmp_path / "silent.dcm", num_frames=3)
    phantoms.ultrasound_cine(tmp_path / "no.dcm", num_frames=3, BurnedInAnnotation="NO")
    said = "the header says that text is burned into the pixels: look before you share"
    assert _drawn(tmp_path / "ct", tmp_path).warning == said
    assert _drawn(tmp_path / "yes.dcm", tmp_path).warning == said
    assert "usual for ultrasound" in _drawn(tmp_path / "silent.dcm", tmp_path).warning
    assert _drawn(tmp_path / "no.dcm", tmp_path).warning == ""


def _drawn(path: Path, folder: Path) -> Viewed:
    return view(path, folder / "x.png", settings=SETTINGS, overwrite=True)


def test_the_windows_of_a_ct_are_grey_images_side_by_side(tmp_path: Path) -> None:
    phantoms.ct_series(tmp_path / "ct", num_slices=6, size=64)
    _drawn(tmp_path / "ct", tmp_path)
    with Image.open(tmp_path / "x.png") as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert np.ptp(pixels, axis=2).max() == 0

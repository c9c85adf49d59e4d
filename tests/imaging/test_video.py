from __future__ import annotations

import builtins
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("av")

from medclip.errors import MedclipError, Reason
from medclip.files.recognise.sniff import Format, sniff
from medclip.imaging.video import probe_video, read_video
from medclip.settings import Settings
from tests.kits.video import scene, turn, write_sound, write_video

SETTINGS = Settings()


def _reason(path: Path, limits: Settings = SETTINGS, **options: Any) -> Reason:
    with pytest.raises(MedclipError) as caught:
        read_video(path, limits, **options)
    assert caught.value.where is None
    assert path.name not in caught.value.message
    return caught.value.reason


def _block(frame: np.ndarray) -> int:
    """Column where the bright block starts."""
    return int(np.flatnonzero((frame[30:40].min(axis=0) > 150).all(axis=1))[0])


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "mpeg4"), ("a.mp4", "mjpeg"), ("a.avi", "mjpeg"), ("a.avi", "mpeg4")]
)
def test_every_frame_comes_out_in_order_with_its_time(tmp_path: Path, name: str, codec: str) -> None:
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    video = read_video(write_video(tmp_path / name, scene(), codec=codec, pix_fmt=pix_fmt), SETTINGS)
    assert video.frames.shape == (12, 96, 128, 3)
    assert [_block(frame) // 8 for frame in video.frames] == list(range(12))
    assert np.abs(video.frames.astype(int) - scene()).mean() < 4
    assert video.frame_time_ms == pytest.approx(40)
    np.testing.assert_allclose(video.times_ms, np.arange(12) * 40, atol=0.1)
    assert video.steps[0].detail == "12 frames, 25 Hz"
    assert (video.total, video.numbers) == (12, tuple(range(12)))


@pytest.mark.parametrize("name", ["a.mp4", "a.avi"])
def test_some_frames_are_those_of_the_whole(tmp_path: Path, name: str) -> None:
    path = write_video(tmp_path / name, scene())
    whole, some = read_video(path, SETTINGS), read_video(path, SETTINGS, max_frames=4)
    assert some.numbers == (1, 4, 7, 10)
    np.testing.assert_array_equal(some.frames, whole.frames[list(some.numbers)])
    assert some.times_ms == tuple(whole.times_ms[number] for number in some.numbers)
    assert read_video(path, SETTINGS, max_frames=99).numbers == tuple(range(12))


def test_uneven_frames_keep_their_times_and_are_named(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", scene(5), times=[0, 1, 2, 10, 11])
    video = read_video(path, SETTINGS)
    np.testing.assert_allclose(video.times_ms, [0, 40, 80, 400, 440], atol=0.1)
    assert "unevenly spaced" in video.steps[0].detail


@pytest.mark.parametrize("quarter", [1, 2, 3])
def test_a_rotated_video_stands_upright(tmp_path: Path, quarter: int) -> None:
    path = write_video(tmp_path / "a.mp4", scene(3))
    plain = read_video(path, SETTINGS).frames
    turned = read_video(turn(path, quarter), SETTINGS)
    np.testing.assert_array_equal(turned.frames, np.rot90(plain, -quarter, axes=(1, 2)))
    assert "orientation" in [step.name for step in turned.steps]


def test_pixels_are_made_square(tmp_path: Path) -> None:
    video = read_video(write_video(tmp_path / "a.mp4", scene(3), aspect=2), SETTINGS)
    assert video.frames.shape == (3, 96, 256, 3)
    assert [step.name for step in video.steps] == ["decode", "square pixels"]


def test_sound_alone_holds_no_pixels(tmp_path: Path) -> None:
    assert _reason(write_sound(tmp_path / "a.mp4")) is Reason.NO_PIXELS


def test_limits_are_checked_before_anything_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4", scene())
    size = 12 * 96 * 128 * 3
    assert probe_video(path, SETTINGS).nbytes == size
    assert read_video(path, Settings(max_volume_bytes=size)).total == 12
    monkeypatch.setattr("medclip.imaging.video._all", lambda *_: pytest.fail("decoded"))
    assert _reason(path, Settings(max_volume_bytes=size - 1)) is Reason.TOO_LARGE
    assert _reason(path, Settings(max_pixels=96 * 128 - 1)) is Reason.TOO_LARGE
    assert len(read_video(path, Settings(max_volume_bytes=size // 2), max_frames=6).frames) == 6


@pytest.mark.parametrize("name", ["a.mp4", "a.avi"])
def test_a_cut_video_is_truncated_wherever_it_ends(
    tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_video(tmp_path / name, scene())
    raw = path.read_bytes()
    fmt = sniff(path)
    for part in (0.1, 0.5, 0.9, 0.99):
        path.write_bytes(raw[: int(len(raw) * part)])
        assert _reason(path, fmt=fmt) is Reason.TRUNCATED
    assert capfd.readouterr() == ("", "")


@settings(max_examples=40)
@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8))
def test_a_damaged_video_gives_frames_or_one_reason(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[float, int]]
) -> None:
    folder = tmp_path_factory.mktemp("video")
    raw = bytearray(write_video(folder / "a.mp4", scene(4)).read_bytes())
    for place, value in changes:
        raw[12 + int(place * (len(raw) - 12))] = value
    (folder / "b.mp4").write_bytes(raw)
    try:
        video = read_video(folder / "b.mp4", Settings(max_volume_bytes=10**7), fmt=Format.MP4)
    except MedclipError as error:
        assert error.reason.status == "failed" or error.reason is Reason.NO_PIXELS  # noqa: PT017
    else:
        assert video.frames.shape[0] >= 1
        assert len(video.frames) == len(video.times_ms) == len(video.numbers)


def test_a_file_that_is_no_video_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(struct.pack(">I4s4s", 16, b"ftyp", b"isom") + b"\0" * 4)
    assert _reason(tmp_path / "a.mp4") is Reason.CORRUPT
    (tmp_path / "b.mp4").write_text("hello there")
    assert _reason(tmp_path / "b.mp4") is Reason.NOT_SUPPORTED_YET
    assert _reason(tmp_path / "c.mp4") is Reason.MISSING_FILE


def test_a_playlist_in_disguise_opens_no_other_file(tmp_path: Path) -> None:
    write_video(tmp_path / "real.mp4", scene(3))
    fake = tmp_path / "fake.mp4"
    fake.write_bytes(struct.pack(">I4s4s", 16, b"ftyp", b"isom") + b"\0" * 4 + b"#EXTM3U\nreal.mp4\n")
    assert _reason(fake, fmt=Format.MP4) in (Reason.CORRUPT, Reason.TRUNCATED)


def test_without_pyav_the_pip_line_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4", scene(3))
    real = builtins.__import__

    def missing(name: str, *rest: Any, **named: Any) -> Any:
        if name == "av":
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(MedclipError) as caught:
        read_video(path, SETTINGS)
    assert caught.value.reason is Reason.MISSING_CODEC
    assert "pip install 'medclip-imaging[video]'" in str(caught.value)


@pytest.mark.shared
def test_lung_ultrasound_loops_have_the_frames_that_their_table_says(shared: Path) -> None:
    import csv

    folder = shared / "data/covid_blues"
    with (folder / "labels.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows[::12]:
        video = read_video(folder / row["file"], SETTINGS)
        assert video.frames.shape == (float(row["frames"]), float(row["h"]), float(row["w"]), 3)
        assert video.frame_time_ms == pytest.approx(1000 / float(row["fps"]))

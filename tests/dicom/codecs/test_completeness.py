"""A compressed image that is not all there is never decoded, in any transfer syntax that is read."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from medclip.dicom.codecs import decoders as codecs
from medclip.dicom.codecs.completeness import NO_END, UNTERMINATED, lacks
from medclip.dicom.pixels.render import read_dicom, read_frames, read_stored
from medclip.errors import MedclipError, Reason
from medclip.sample import Step
from medclip.settings import ReadPolicy, Settings
from tests.kits.codestreams import (
    SYNTAXES,
    WITH_END,
    cut,
    cut_and_ended,
    ended_before_old_data,
    film,
    half_zeroed,
    stream,
    write_streams,
    zeroed_to_end,
)

SETTINGS = Settings()
ACCEPTING = Settings(policy=ReadPolicy(accept_unterminated=True))


def _whole(path: Path, uid: str) -> NDArray[Any]:
    return read_stored(write_streams(path, uid, [stream(uid).data]), SETTINGS)


def _refused(path: Path, settings: Settings = SETTINGS) -> MedclipError:
    with pytest.raises(MedclipError) as caught:
        read_stored(path, settings)
    assert caught.value.reason in (Reason.TRUNCATED, Reason.CORRUPT)
    return caught.value


@pytest.mark.parametrize("settings", [SETTINGS, ACCEPTING], ids=["strict", "accepting"])
@pytest.mark.parametrize("uid", SYNTAXES)
@pytest.mark.parametrize("percent", [10, 50, 90, 99])
def test_a_stream_cut_inside_its_fragment_is_refused(
    tmp_path: Path, uid: str, percent: int, settings: Settings
) -> None:
    error = _refused(write_streams(tmp_path / "a", uid, [cut(stream(uid).data, percent)]), settings)
    assert uid == codecs.RLE or error.reason is Reason.TRUNCATED


@pytest.mark.parametrize("settings", [SETTINGS, ACCEPTING], ids=["strict", "accepting"])
@pytest.mark.parametrize("uid", SYNTAXES)
def test_a_stream_whose_second_half_is_zeros_is_refused(tmp_path: Path, uid: str, settings: Settings) -> None:
    _refused(write_streams(tmp_path / "a", uid, [half_zeroed(stream(uid).data)]), settings)


@pytest.mark.parametrize("settings", [SETTINGS, ACCEPTING], ids=["strict", "accepting"])
@pytest.mark.parametrize("uid", WITH_END)
@pytest.mark.parametrize("damage", [cut_and_ended, zeroed_to_end], ids=["cut", "zeroed"])
@pytest.mark.parametrize("percent", [10, 50, 90])
def test_an_end_marker_does_not_make_up_for_missing_data(
    tmp_path: Path, uid: str, damage: Callable[[bytes, int], bytes], percent: int, settings: Settings
) -> None:
    error = _refused(write_streams(tmp_path / "a", uid, [damage(stream(uid).data, percent)]), settings)
    assert error.reason is Reason.TRUNCATED or uid in (codecs.JPEG_LS, codecs.JPEG_LS_NEAR)


@pytest.mark.parametrize("uid", [codecs.BASELINE, codecs.LOSSLESS, codecs.LOSSLESS_SV1])
@pytest.mark.parametrize("damage", [cut_and_ended, zeroed_to_end], ids=["cut", "zeroed"])
def test_the_last_codec_of_the_list_makes_nothing_up_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uid: str, damage: Callable[[bytes, int], bytes]
) -> None:
    monkeypatch.setattr(codecs, "in_order", lambda _: ("gdcm",))
    np.testing.assert_array_equal(
        read_stored(write_streams(tmp_path / "a", uid, [stream(uid).data]), SETTINGS), _whole(tmp_path / "b", uid)
    )
    error = _refused(write_streams(tmp_path / "a", uid, [damage(stream(uid).data, 50)]))
    assert error.reason is Reason.TRUNCATED


@pytest.mark.parametrize("uid", [codecs.BASELINE, codecs.EXTENDED, codecs.LOSSLESS, codecs.LOSSLESS_SV1])
@pytest.mark.parametrize("percent", [10, 50, 90])
def test_the_end_of_another_image_in_the_same_buffer_is_not_the_end(tmp_path: Path, uid: str, percent: int) -> None:
    data = ended_before_old_data(stream(uid).data, percent)
    assert _refused(write_streams(tmp_path / "a", uid, [data])).reason is Reason.TRUNCATED


@pytest.mark.parametrize("settings", [SETTINGS, ACCEPTING], ids=["strict", "accepting"])
@pytest.mark.parametrize("uid", [codecs.BASELINE, codecs.EXTENDED, codecs.LOSSLESS, codecs.LOSSLESS_SV1])
@pytest.mark.parametrize("end", [b"", b"\xff\xd9"], ids=["cut", "ended"])
def test_a_cut_between_a_byte_ff_and_its_zero_is_seen(tmp_path: Path, uid: str, end: bytes, settings: Settings) -> None:
    """The next byte must not make a marker of it: a decoder stops there, whatever else follows."""
    data = stream(uid).data
    cut_there = data[: data.index(b"\xff\x00", len(data) // 2) + 1] + end
    assert _refused(write_streams(tmp_path / "a", uid, [cut_there]), settings).reason is Reason.TRUNCATED


def test_what_one_decoder_found_cut_is_shown_to_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one may end otherwise, so that nothing tells."""
    looks = iter([True])
    monkeypatch.setattr(codecs, "may_be_made_up", lambda *_: next(looks, False))
    data = cut_and_ended(stream(codecs.LOSSLESS_SV1).data, 50)
    assert _refused(write_streams(tmp_path / "a", codecs.LOSSLESS_SV1, [data])).reason is Reason.TRUNCATED


@pytest.mark.parametrize("uid", [codecs.EXTENDED, codecs.LOSSLESS_SV1])
def test_a_film_that_ends_in_mid_grey_is_read(tmp_path: Path, uid: str) -> None:
    pixels = film(12)
    pixels[-40:] = 1 << 11
    options: dict[str, Any] = {"level": 95} if uid == codecs.EXTENDED else {"lossless": True, "predictor": 1}
    data = bytes(imagecodecs.jpeg8_encode(pixels, bitspersample=12, **options))
    stored = read_stored(write_streams(tmp_path / "a", uid, [data]), SETTINGS)
    np.testing.assert_array_equal(stored[-32:], 1 << 11)
    assert _refused(write_streams(tmp_path / "b", uid, [cut_and_ended(data, 50)])).reason is Reason.TRUNCATED


def test_empty_packets_at_the_end_of_jpeg_2000_are_no_missing_data(tmp_path: Path) -> None:
    """A black image is nothing but empty packets: OpenJPEG writes 80 for each, other encoders 00."""
    buffer = io.BytesIO()
    black = Image.fromarray(np.zeros((128, 128), np.uint8))
    black.save(buffer, "JPEG2000", no_jp2=True, quality_mode="rates", quality_layers=list(range(60, 0, -2)))
    data = buffer.getvalue()
    emptied = data.replace(b"\x80" * 120, bytes(120))
    assert emptied.count(bytes(120)) == 1
    assert lacks(emptied) == ""
    assert not read_stored(write_streams(tmp_path / "a", codecs.JPEG_2000[1], [emptied]), SETTINGS).any()


@pytest.mark.parametrize("uid", SYNTAXES)
def test_a_file_cut_inside_its_pixels_is_refused(tmp_path: Path, uid: str) -> None:
    body = write_streams(tmp_path / "a", uid, [stream(uid).data]).read_bytes()
    start = body.rindex(stream(uid).data[:64])
    for percent in (10, 50, 90):
        (tmp_path / "b").write_bytes(body[: start + (len(body) - start) * percent // 100])
        assert _refused(tmp_path / "b").reason is Reason.TRUNCATED


@pytest.mark.parametrize("uid", SYNTAXES)
def test_one_cut_frame_of_a_loop_is_refused_and_the_others_are_read(tmp_path: Path, uid: str) -> None:
    data = stream(uid).data
    path = write_streams(tmp_path / "a", uid, [data, cut(data, 50), data])
    _refused(path)
    frames = read_frames(path, SETTINGS, mode="raw", frames=[0, 2]).pixels[..., 0]
    np.testing.assert_array_equal(frames, [_whole(tmp_path / "b", uid)] * 2)


@pytest.mark.parametrize("uid", SYNTAXES)
@pytest.mark.parametrize("padding", [bytes(2), bytes(200), b"\xff" * 40, b"\0vendor\0"], ids=len)
def test_what_stands_behind_the_end_is_filling(tmp_path: Path, uid: str, padding: bytes) -> None:
    whole = _whole(tmp_path / "a", uid)
    padded = read_stored(write_streams(tmp_path / "b", uid, [stream(uid).data + padding]), SETTINGS)
    np.testing.assert_array_equal(padded, whole)


@pytest.mark.parametrize("uid", WITH_END)
@pytest.mark.parametrize("padding", [b"", bytes(2), bytes(100)], ids=len)
def test_a_stream_without_its_end_marker_is_read_only_where_that_is_accepted(
    tmp_path: Path, uid: str, padding: bytes
) -> None:
    unterminated = stream(uid).data.rstrip(b"\0")
    assert unterminated.endswith(b"\xff\xd9")
    path = write_streams(tmp_path / "a", uid, [unterminated[:-2] + padding])
    error = _refused(path)
    assert error.reason is Reason.TRUNCATED
    assert "--reading accept_unterminated=true" in error.hint
    np.testing.assert_array_equal(read_stored(path, ACCEPTING), _whole(tmp_path / "b", uid))
    assert Step("end", UNTERMINATED) in read_dicom(path, ACCEPTING).steps


def test_a_whole_stream_has_no_such_step_where_unterminated_ones_are_accepted(tmp_path: Path) -> None:
    path = write_streams(tmp_path / "a", codecs.BASELINE, [stream(codecs.BASELINE).data])
    assert "end" not in [step.name for step in read_dicom(path, ACCEPTING).steps]


def test_every_tile_must_be_there_although_the_end_marker_is(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(film(8)).save(buffer, "JPEG2000", tile_size=(64, 64), no_jp2=True)
    data = buffer.getvalue()
    assert lacks(data) == ""
    parts = data.split(b"\xff\x90\x00\x0a")
    assert len(parts) >= 5, "four tiles"
    without_third = b"\xff\x90\x00\x0a".join([*parts[:3], *parts[4:]])
    assert without_third.endswith(b"\xff\xd9")
    assert lacks(without_third) == "1 of its 4 tiles are missing"
    error = _refused(write_streams(tmp_path / "a", codecs.JPEG_2000[1], [without_third]))
    assert error.reason is Reason.TRUNCATED


def test_parts_of_tiles_are_counted() -> None:
    data = stream(codecs.JPEG_2000[0]).data
    at = data.index(b"\xff\x90\x00\x0a")
    assert lacks(data[: at + 11] + b"\x02" + data[at + 12 :]) == "parts of its tiles are missing"


def test_a_last_tile_part_of_open_length_goes_to_the_end_marker() -> None:
    data = stream(codecs.JPEG_2000[0]).data
    at = data.index(b"\xff\x90\x00\x0a")
    opened = data[: at + 6] + bytes(4) + data[at + 10 :]
    assert lacks(opened) == ""
    assert lacks(opened + bytes(100)) == ""
    assert lacks(opened[:-2]) not in ("", NO_END)


def test_the_end_marker_of_a_preview_in_the_header_does_not_count() -> None:
    preview = stream(codecs.BASELINE).data
    data = stream(codecs.EXTENDED).data
    size = (len(preview) + 2).to_bytes(2, "big")
    with_preview = data[:2] + b"\xff\xe1" + size + preview + data[2:]
    assert lacks(with_preview) == ""
    assert lacks(cut(with_preview, 95)) == NO_END


def test_scans_behind_the_first_are_walked_over() -> None:
    buffer = io.BytesIO()
    Image.fromarray(film(8)).save(buffer, "JPEG", progressive=True)
    progressive = buffer.getvalue()
    assert progressive.count(b"\xff\xda") > 2
    assert lacks(progressive + b"filling") == ""
    assert lacks(progressive[:-2] + b"filling") == NO_END
    last = progressive.rindex(b"\xff\xda")
    assert lacks(progressive[:last] + b"\xff\xd9") == "its last scans are missing"


def test_the_codestream_of_a_jp2_file_is_found_behind_boxes_of_any_size() -> None:
    """Profiles and notes of many kilobytes may stand before it."""
    buffer = io.BytesIO()
    Image.fromarray(film(8)).save(buffer, "JPEG2000")
    data = buffer.getvalue()
    box = data.index(b"jp2c") - 4
    for note in (
        (9008).to_bytes(4, "big") + b"xml " + bytes(9000),
        b"\0\0\0\1xml " + (9016).to_bytes(8, "big") + bytes(9000),
    ):
        whole = data[:box] + note + data[box:]
        assert lacks(whole) == ""
        assert lacks(zeroed_to_end(whole, 90)) == "a tile-part holds zeros where its compressed data goes on"


def test_what_is_no_such_codestream_is_left_to_its_decoder() -> None:
    for data in (b"", b"\0" * 64, stream(codecs.RLE).data, bytes(imagecodecs.jpegxl_encode(film(8), lossless=True))):
        assert lacks(data) == ""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import medclip
from medclip.errors import Reason
from medclip.files.recognise.inspect import inspect_file
from medclip.files.recognise.sniff import Format
from medclip.settings import Settings
from tests.kits.files import CR, nested_dicom, ramp, write_dicom, write_image
from tests.kits.size import sized
from tests.kits.slides import draw_section, make_pathology_pack, write_dicom_slide, write_pyramid

SETTINGS = Settings()


def _reason(path: Path) -> Reason | None:
    problem = inspect_file(path, SETTINGS).problem
    return problem.reason if problem else None


def test_a_image_has_its_hash_and_format_and_no_problem(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.png", ramp())
    facts = inspect_file(path, SETTINGS)
    assert facts.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (facts.format, facts.header, facts.problem) == (Format.PNG, None, None)


def test_a_large_file_is_hashed_in_pieces_to_the_same_facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_dicom(tmp_path / "a", ramp())
    whole = inspect_file(path, SETTINGS)
    monkeypatch.setattr("medclip.files.recognise.inspect._IN_MEMORY_BYTES", 10)
    assert inspect_file(path, SETTINGS) == whole


def test_a_dicom_header_becomes_plain_values(tmp_path: Path) -> None:
    path = write_dicom(
        tmp_path / "a",
        ramp(20, 30, np.uint16, 4095),
        SOPClassUID=CR,
        BitsStored=12,
        ViewPosition="PA",
        Laterality="L",
        PatientOrientation=["L", "F"],
        BurnedInAnnotation="YES",
        ImagerPixelSpacing=[0.2, 0.1],
        PixelSpacing=[0, 0],
    )
    header = inspect_file(path, SETTINGS).header
    assert header is not None
    assert (header.modality, header.rows, header.columns, header.bits_stored) == ("CR", 20, 30, 12)
    assert (header.view_position, header.laterality, header.patient_orientation) == ("PA", "L", ("L", "F"))
    assert (header.burned_in, header.spacing_mm, header.has_pixels) == (True, (0.2, 0.1), True)
    assert header.patient_id == "SECRET-1"


@pytest.mark.parametrize("modality", ["SR", "KO", "RTSTRUCT", "PR", "CR"])
def test_dicom_without_pixels_says_so(tmp_path: Path, modality: str) -> None:
    assert _reason(write_dicom(tmp_path / "a", Modality=modality)) is Reason.NO_PIXELS


@pytest.mark.parametrize(
    "modality", ["CT", "MR", "US", "NM", "PT", "XA", "RF", "OP", "OPT", "ES", "XC", "IO", "PX", "SM", "GM", "ZZ"]
)
@pytest.mark.parametrize("frames", [None, 2])
def test_images_of_every_modality_have_no_problem(tmp_path: Path, modality: str, frames: int | None) -> None:
    path = write_dicom(tmp_path / "a", ramp(), Modality=modality, NumberOfFrames=frames)
    assert _reason(path) is None


def test_a_waveform_needs_no_pixels(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a", SOPClassUID="1.2.840.10008.5.1.4.1.1.9.1.1", Modality="ECG")
    assert _reason(path) is None


def test_pixels_without_rows_are_corrupt(tmp_path: Path) -> None:
    assert _reason(write_dicom(tmp_path / "a", ramp(), Rows=None)) is Reason.CORRUPT


EXAMPLE = Path(__file__).parents[3] / "examples/studies/chest_pa.dcm"


@pytest.mark.parametrize("size", [133, 140, 200, 300, 350, 500, 700, 900])
def test_a_dicom_cut_inside_its_header_is_truncated(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a"
    path.write_bytes(EXAMPLE.read_bytes()[:size])
    assert _reason(path) is Reason.TRUNCATED


@pytest.mark.parametrize("size", [100, 131])
def test_a_cut_preamble_is_of_no_known_format(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a"
    path.write_bytes(EXAMPLE.read_bytes()[:size])
    assert _reason(path) is Reason.UNKNOWN_FORMAT


def test_a_header_that_ends_cleanly_without_pixels_is_not_truncated(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a", SOPClassUID=CR, Rows=10, Columns=10)
    assert _reason(path) is Reason.NO_PIXELS
    path.write_bytes(path.read_bytes()[:-1])
    assert _reason(path) is Reason.TRUNCATED


def test_a_document_cut_short_holds_no_image_either_way(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a", SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11", Modality="SR")
    path.write_bytes(path.read_bytes()[:-1])
    assert _reason(path) is Reason.NO_PIXELS


def test_a_segmentation_is_no_image(tmp_path: Path) -> None:
    assert _reason(write_dicom(tmp_path / "a", ramp(), Modality="SEG")) is Reason.NOT_AN_IMAGE


def test_sequences_without_end_are_corrupt(tmp_path: Path) -> None:
    assert _reason(nested_dicom(tmp_path / "a")) is Reason.CORRUPT


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", Reason.EMPTY_FILE),
        (b"a licence", Reason.NOT_AN_IMAGE),
        (b'{"a": 1}', Reason.NOT_AN_IMAGE),
        (b"\x01\x02\x03\x04" * 50, Reason.UNKNOWN_FORMAT),
        (b"NRRD0004\n", Reason.NOT_SUPPORTED_YET),
    ],
)
def test_other_files_say_what_they_are(tmp_path: Path, data: bytes, reason: Reason) -> None:
    path = tmp_path / "a"
    path.write_bytes(data)
    assert _reason(path) is reason


def test_a_file_over_the_limit_is_hashed_and_not_read(tmp_path: Path) -> None:
    facts = inspect_file(write_image(tmp_path / "a.png", ramp()), Settings(max_file_bytes=10))
    assert facts.sha256
    assert facts.problem is not None
    assert facts.problem.reason is Reason.TOO_LARGE


def test_a_slide_in_tiles_may_be_larger_than_the_limit_since_it_is_never_read_whole(tmp_path: Path) -> None:
    settings = Settings(max_file_bytes=10)
    facts = inspect_file(write_pyramid(tmp_path / "a.tiff", draw_section(600, 700)), settings)
    assert (facts.format, facts.problem) == (Format.SLIDE, None)
    image = draw_section(300, 300)
    slide = inspect_file(write_dicom_slide(tmp_path / "a.dcm", image, photometric="RGB"), settings)
    assert (slide.format, slide.problem) == (Format.DICOM, None)
    for path in (write_dicom(tmp_path / "b.dcm", ramp()), write_image(tmp_path / "b.tif", ramp())):
        problem = inspect_file(path, settings).problem
        assert problem is not None
        assert problem.reason is Reason.TOO_LARGE


@pytest.mark.slow
def test_a_slide_of_gigabytes_over_the_limit_of_a_file_is_scanned_and_embedded(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = write_pyramid(tmp_path / "in" / "a.tiff", draw_section(600, 700))
    limit = sized(5) * 1024**3 - 1024**2
    os.truncate(path, limit + 1024**2)  # a hole: it takes no room
    assert path.stat().st_blocks * 512 < 1 << 20
    settings = Settings(workers=1, max_file_bytes=limit)
    (scanned,) = medclip.scan(tmp_path / "in", settings=settings).files
    assert scanned.status == "readable"
    pack = make_pathology_pack(tmp_path / "pack")
    embedded = medclip.embed(tmp_path / "in", tmp_path / "o", model=pack, settings=settings)
    assert embedded.counts["embedded"] == 1


def test_a_file_that_is_gone_or_a_folder_is_one_row(tmp_path: Path) -> None:
    assert _reason(tmp_path / "gone") is Reason.MISSING_FILE
    assert _reason(tmp_path) is Reason.NOT_A_FILE


def test_no_permission_is_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "open", refuse)
    assert _reason(tmp_path / "a") is Reason.PERMISSION_DENIED


def test_a_worker_process_gives_the_same_facts(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a", ramp())
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(inspect_file, path, SETTINGS).result() == inspect_file(path, SETTINGS)


@given(cut=st.integers(0, 900), flips=st.lists(st.tuples(st.integers(132, 899), st.integers(0, 255)), max_size=6))
def test_no_damage_to_a_header_raises(
    tmp_path_factory: pytest.TempPathFactory, cut: int, flips: list[tuple[int, int]]
) -> None:
    path = write_dicom(tmp_path_factory.mktemp("damage") / "a", ramp(8, 8))
    data = bytearray(path.read_bytes())
    for at, value in flips:
        data[at % len(data)] = value
    path.write_bytes(bytes(data[:cut]) if cut < 800 else bytes(data))
    facts = inspect_file(path, SETTINGS)
    assert facts.problem is None or "SECRET" not in facts.problem.message

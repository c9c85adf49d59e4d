from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.errors import Reason
from medclip.files.group import group
from medclip.files.inspect import FileFacts
from medclip.files.sniff import Format
from medclip.files.units import kind_of, units_of
from medclip.sample import FileRef, Kind, Modality, Unit
from tests.files.series_kit import dicom, plain

SECONDARY = "1.2.840.10008.5.1.4.1.1.7"


def _names(units: tuple[Unit, ...]) -> list[list[str]]:
    return [[ref.name for ref in unit.files] for unit in units]


@given(st.permutations(range(9)))
def test_a_series_is_one_volume_however_its_files_come(order: list[int]) -> None:
    files = [dicom(f"s/{n}", -4.0 * n) for n in range(9)]
    (unit,) = units_of([files[index] for index in order])
    assert unit.kind is Kind.VOLUME
    assert [ref.name for ref in unit.files] == [f"s/{n}" for n in reversed(range(9))]


@given(st.permutations(range(8)))
def test_every_file_is_in_exactly_one_unit(order: list[int]) -> None:
    files = [
        dicom("a", 0),
        dicom("b", 5),
        dicom("c", 0, series_uid="9"),
        dicom("d", modality="US", sop_class="", frames=20),
        plain("r.hea", Format.WFDB, "r.dat"),
        plain("r.dat", Format.WFDB_SIGNAL),
        plain("lost.dat", Format.WFDB_SIGNAL),
        plain("p.png", Format.PNG),
    ]
    units = units_of([files[index] for index in order])
    assert sorted(name for names in _names(units) for name in names) == sorted(ref.name for ref, _ in files)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({}, Kind.VOLUME),
        ({"modality": "PT"}, Kind.VOLUME),
        ({"frames": 12}, Kind.VOLUME),
        ({"modality": "MR", "image_type": ("ORIGINAL", "PRIMARY", "M", "MOSAIC")}, Kind.VOLUME),
        ({"modality": "US", "frames": 12}, Kind.CINE),
        ({"modality": "XA", "frames": 12}, Kind.CINE),
        ({"modality": "US"}, Kind.IMAGE),
        ({"modality": "SM", "frames": 40}, Kind.SLIDE),
        ({"modality": "ECG", "sop_class": "1.2.840.10008.5.1.4.1.1.9.1.1"}, Kind.SIGNAL),
        ({"sop_class": SECONDARY}, Kind.IMAGE),
        ({"photometric": "RGB", "samples_per_pixel": 3}, Kind.IMAGE),
        ({"image_type": ("DERIVED", "SECONDARY", "SCREEN SAVE")}, Kind.IMAGE),
    ],
)
def test_the_header_says_what_one_object_is(values: dict[str, object], kind: Kind) -> None:
    ref, facts = dicom("a", 0, **values)
    assert kind_of(facts) is kind
    assert [unit.kind for unit in units_of([(ref, facts)])] == [kind]


def test_captures_of_a_series_are_apart_with_a_note() -> None:
    units = units_of([dicom("a", 0), dicom("b", 5), dicom("c", 10, sop_class=SECONDARY)])
    assert _names(units) == [["a", "b"], ["c"]]
    assert "secondary capture" in units[1].notes[0]


def test_multi_frame_and_mosaic_objects_are_each_a_volume() -> None:
    mosaic = ("ORIGINAL", "PRIMARY", "M", "MOSAIC")
    units = units_of([dicom("a", None, frames=9), dicom("b", None, frames=9), dicom("m", 0, image_type=mosaic)])
    assert _names(units) == [["a"], ["b"], ["m"]]
    assert "mosaic" in units[2].notes[0]


def test_the_levels_of_a_slide_are_one_unit_with_the_largest_first() -> None:
    files = [
        dicom("a", modality="SM", matrix_columns=100, matrix_rows=100, image_type=("DERIVED", "PRIMARY", "VOLUME")),
        dicom("b", modality="SM", matrix_columns=900, matrix_rows=900, image_type=("ORIGINAL", "PRIMARY", "VOLUME")),
        dicom("c", modality="SM", matrix_columns=999, matrix_rows=999, image_type=("ORIGINAL", "PRIMARY", "LABEL")),
    ]
    (unit,) = units_of(files)
    assert (unit.kind, [ref.name for ref in unit.files]) == (Kind.SLIDE, ["b", "a", "c"])


def test_slices_of_different_patients_or_series_are_not_mixed() -> None:
    units = units_of([dicom("a", 0), dicom("b", 5, patient_id="q"), dicom("c", 10, series_uid="9")])
    assert _names(units) == [["a"], ["b"], ["c"]]


def test_a_series_without_a_uid_is_told_by_its_folder() -> None:
    units = units_of([dicom(f"{folder}/{n}", n, series_uid="") for folder in "xy" for n in range(3)])
    assert _names(units) == [[f"{folder}/{n}" for n in range(3)] for folder in "xy"]


def test_a_record_takes_its_signals_whatever_their_case() -> None:
    (unit,) = units_of([plain("d/R.DAT", Format.WFDB_SIGNAL), plain("d/r.hea", Format.WFDB, "r.dat")])
    assert (unit.kind, [ref.name for ref in unit.files]) == (Kind.SIGNAL, ["d/r.hea", "d/R.DAT"])


def test_a_record_of_segments_takes_their_headers_and_signals() -> None:
    files = [
        plain("s1.hea", Format.WFDB, "s1.dat"),
        plain("s1.dat", Format.WFDB_SIGNAL),
        plain("s2.hea", Format.WFDB, "s2.dat"),
        plain("s2.dat", Format.WFDB_SIGNAL),
        plain("s.hea", Format.WFDB, "s1.hea", "s2.hea"),
    ]
    assert _names(units_of(files)) == [["s.hea", "s1.hea", "s1.dat", "s2.hea", "s2.dat"]]


def test_headers_that_name_each_other_end() -> None:
    units = units_of([plain("a.hea", Format.WFDB, "b.hea"), plain("b.hea", Format.WFDB, "a.hea")])
    assert sorted(name for names in _names(units) for name in names) == ["a.hea", "b.hea"]


def test_a_signal_of_two_headers_goes_to_its_namesake() -> None:
    units = units_of(
        [
            plain("r-short.hea", Format.WFDB, "r.dat"),
            plain("r.dat", Format.WFDB_SIGNAL),
            plain("r.hea", Format.WFDB, "r.dat"),
        ]
    )
    assert _names(units) == [["r-short.hea"], ["r.hea", "r.dat"]]
    assert "another record" in units[0].notes[0]


def test_a_pair_is_one_volume_and_its_voxels_alone_are_a_companion() -> None:
    pair, alone = units_of(
        [
            plain("a.img", Format.VOLUME_DATA),
            plain("a.hdr", Format.NIFTI, "a.img"),
            plain("b.img", Format.VOLUME_DATA),
        ]
    )
    assert (pair.kind, [ref.name for ref in pair.files]) == (Kind.VOLUME, ["a.hdr", "a.img"])
    assert alone.problem is not None
    assert alone.problem.reason is Reason.COMPANION


def _studies(files: list[tuple[FileRef, FileFacts]], **options: object) -> list[list[str]]:
    defaults: dict[str, object] = {"manifest": None, "modality": None, "key": b"k" * 32}
    return [[ref.name for ref in study.files] for study in group(files, **(defaults | options))]


def test_a_folder_counts_series_and_not_slices() -> None:
    files = [dicom(f"case/{n:03}", n, study_uid="", series_uid="") for n in range(200)]
    assert len(_studies(files)) == 1
    files += [dicom("case/x", modality="CR", study_uid="", sop_class="")]
    assert len(_studies(files)) == 2  # of another modality


def test_records_slides_and_volumes_are_each_a_study() -> None:
    files = [
        plain("f/a.hea", Format.WFDB, "a.dat"),
        plain("f/a.dat", Format.WFDB_SIGNAL),
        plain("f/b.hea", Format.WFDB, "b.dat"),
        plain("f/b.dat", Format.WFDB_SIGNAL),
        plain("f/s.svs", Format.SLIDE),
        plain("f/v.nii", Format.NIFTI),
        plain("f/w.nii", Format.NIFTI),
    ]
    assert _studies(files) == [["f/a.hea", "f/a.dat"], ["f/b.hea", "f/b.dat"], ["f/s.svs"], ["f/v.nii"], ["f/w.nii"]]


def test_a_table_speaks_for_a_record_by_its_header(tmp_path: Path) -> None:
    import pyarrow

    from medclip.files.tables import read_manifest

    table = read_manifest(pyarrow.table({"file": ["a.hea", "b.hea"], "study": ["1", "1"], "patient": ["p", "p"]}))
    files = [plain("a.hea", Format.WFDB, "a.dat"), plain("a.dat", Format.WFDB_SIGNAL), plain("b.hea", Format.WFDB)]
    assert _studies(files, manifest=table) == [["a.hea", "a.dat", "b.hea"]]


def test_studies_carry_their_units_and_the_modality_of_the_format() -> None:
    files = [dicom("a", 0), dicom("b", 5), plain("r.hea", Format.WFDB, "r.dat"), plain("r.dat", Format.WFDB_SIGNAL)]
    studies = group(files, manifest=None, modality=None, key=b"k" * 32)
    assert [(study.modality, [unit.kind for unit in study.units]) for study in studies] == [
        (Modality.CT, [Kind.VOLUME]),
        (Modality.ECG, [Kind.SIGNAL]),
    ]
    assert all(
        sorted(ref.name for unit in study.units for ref in unit.files) == sorted(ref.name for ref in study.files)
        for study in studies
    )


def test_gaps_are_a_problem_or_a_note_as_the_caller_says() -> None:
    files = [dicom(f"{n}", z) for n, z in enumerate((0, 5, 10, 30))]
    (study,) = group(files, manifest=None, modality=None, key=b"k" * 32)
    assert study.units[0].problem is not None
    (study,) = group(files, manifest=None, modality=None, key=b"k" * 32, uneven="resample")
    assert study.units[0].problem is None

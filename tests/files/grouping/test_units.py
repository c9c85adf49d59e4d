from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.errors import Reason
from medclip.files.grouping.studies import group
from medclip.files.grouping.units import kind_of, units_of
from medclip.files.recognise.inspect import FileFacts
from medclip.files.recognise.sniff import Format
from medclip.sample import FileRef, Kind, Modality, Unit
from tests.kits.series import dicom, plain

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

    from medclip.files.tables.manifest import read_manifest

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


@pytest.mark.parametrize("code", ["CT", "MR"])
def test_slices_exported_as_captures_are_a_volume_with_a_note(code: str) -> None:
    files = [dicom(f"{n}", 5.0 * n, modality=code, sop_class=SECONDARY, bits_stored=16) for n in range(4)]
    (unit,) = units_of([*reversed(files)])
    assert (unit.kind, [ref.name for ref in unit.files]) == (Kind.VOLUME, ["0", "1", "2", "3"])
    assert ("may not be HU" in unit.notes[0]) is (code == "CT")


@pytest.mark.parametrize(
    "values",
    [
        {"bits_stored": 8},
        {"bits_stored": 16, "image_orientation": None},
        {"bits_stored": 16, "photometric": "RGB", "samples_per_pixel": 3},
        {"bits_stored": 16, "image_type": ("DERIVED", "SECONDARY", "SCREEN SAVE")},
    ],
)
def test_captures_of_a_screen_stay_images(values: dict[str, object]) -> None:
    units = units_of([dicom(f"{n}", 5.0 * n, sop_class=SECONDARY, **values) for n in range(6)])
    assert [unit.kind for unit in units] == [Kind.IMAGE] * 6
    assert all("secondary capture" in unit.notes[0] for unit in units)


@pytest.mark.parametrize("heights", [(0, 5, 10), (0, 5, 10, 40), (7, 7, 7, 7)])
def test_captures_that_make_no_even_stack_stay_images(heights: tuple[float, ...]) -> None:
    units = units_of([dicom(f"{n}", z, sop_class=SECONDARY, bits_stored=16) for n, z in enumerate(heights)])
    assert [(unit.kind, unit.problem) for unit in units] == [(Kind.IMAGE, None)] * len(heights)


def test_captures_are_not_mixed_with_the_slices_they_were_made_of() -> None:
    real = [dicom(f"r{n}", 5.0 * n) for n in range(5)]
    made = [dicom(f"s{n}", 5.0 * n, sop_class=SECONDARY, bits_stored=16) for n in range(5)]
    assert _names(units_of([*made, *real])) == [[f"s{n}" for n in range(5)], [f"r{n}" for n in range(5)]]


def test_one_slice_of_another_size_is_apart_and_the_gap_it_leaves_is_said() -> None:
    ends = units_of([dicom(f"{n}", 5.0 * n, **({"rows": 32} if n == 4 else {})) for n in range(5)])
    assert _names(ends) == [["0", "1", "2", "3"], ["4"]]
    assert ends[0].problem is None
    assert "another size" in ends[1].notes[0]
    middle = units_of([dicom(f"{n}", 5.0 * n, **({"rows": 32} if n == 2 else {})) for n in range(5)])
    assert middle[0].problem is not None
    assert "missing between 5.0 and 15.0 mm" in middle[0].problem.message


def test_a_series_split_over_folders_is_one_volume() -> None:
    (unit,) = units_of([dicom(f"part{n // 3}/{n}", 5.0 * n) for n in range(9)])
    assert len(unit.files) == 9


def test_two_series_without_uids_in_one_folder_are_told_by_their_number_size_or_repetition() -> None:
    def of(**second: object) -> list[list[str]]:
        first = [dicom(f"f/a{n}", 5.0 * n, series_uid="", acquisition_number=1) for n in range(3)]
        other = {"series_uid": "", "acquisition_number": 2, **second}
        return _names(units_of([*first, *(dicom(f"f/b{n}", 5.0 * n, **other) for n in range(3))]))

    apart = [[f"f/{name}{n}" for n in range(3)] for name in "ab"]
    assert of(series_number=2) == apart
    assert of(rows=32) == apart
    assert of() == apart  # by acquisition


def test_times_of_a_series_are_each_a_volume() -> None:
    files = [dicom(f"{t}-{n}", 5.0 * n, modality="MR", temporal_position=t) for n in range(4) for t in (1, 2, 3)]
    units = units_of(files)
    assert _names(units) == [[f"{t}-{n}" for n in range(4)] for t in (1, 2, 3)]
    assert all(unit.problem is None and "told apart by time point" in unit.notes[0] for unit in units)


def test_a_signal_of_another_name_than_its_header_is_in_the_headers_unit() -> None:
    files = [plain("d/x1.dat", Format.WFDB_SIGNAL), plain("d/record.hea", Format.WFDB, "x1.dat")]
    (unit,) = units_of(files)
    assert [ref.name for ref in unit.files] == ["d/record.hea", "d/x1.dat"]
    assert unit.problem is None


def test_two_headers_of_the_same_data_say_so_in_the_words_of_their_kind() -> None:
    volumes = [plain("d/a.raw", Format.VOLUME_DATA)]
    volumes += [plain(f"d/{name}.mhd", Format.METAIMAGE, "a.raw") for name in "ab"]
    assert [unit.notes for unit in units_of(volumes)] == [(), ("its voxels are also those of another header",)]
    records = [plain("d/a.dat", Format.WFDB_SIGNAL)]
    records += [plain(f"d/{name}.hea", Format.WFDB, "a.dat") for name in "ab"]
    assert [unit.notes for unit in units_of(records)] == [(), ("its signals are also those of another record",)]


def _film(name: str, intent: str, view: str = "CC", **values: object) -> tuple[FileRef, FileFacts]:
    found = {"presentation_intent": intent, "view_position": view, "laterality": "L", **values}
    return dicom(name, None, modality="MG", sop_class="", **found)


@pytest.mark.parametrize(
    ("second", "left_out"),
    [
        ({}, True),
        ({"view": "MLO"}, False),
        ({"laterality": "R"}, False),
        ({"view": ""}, False),
        ({"view_modifiers": ("implant displaced",)}, False),
    ],
)
def test_a_view_for_processing_is_a_companion_of_the_same_view_for_presentation(
    second: dict[str, object], left_out: bool
) -> None:
    files = [_film("raw", "FOR PROCESSING"), _film("shown", "FOR PRESENTATION", **second)]  # pyright: ignore
    for order in (files, files[::-1]):
        (study,) = group(order, manifest=None, modality=None, key=b"k" * 32)
        problems = {unit.files[0].name: unit.problem for unit in study.units}
        assert problems["shown"] is None
        assert (problems["raw"] is not None) is left_out
        if problems["raw"] is not None:
            assert problems["raw"].reason is Reason.COMPANION


def test_a_view_for_processing_alone_or_of_another_study_is_read() -> None:
    files = [_film("f/raw", "FOR PROCESSING"), _film("f/shown", "FOR PRESENTATION", study_uid="9.9")]
    for group_by in ("auto", "folder", "file"):
        studies = group(files, manifest=None, modality=None, key=b"k" * 32, group_by=group_by)
        assert all(unit.problem is None for study in studies for unit in study.units)


def test_slices_of_two_frames_of_reference_are_not_mixed() -> None:
    frames = {"a": (0.0, "1.1"), "b": (5.0, "1.2"), "c": (10.0, "1.1"), "d": (15.0, "1.2")}
    units = units_of([dicom(name, at, frame_of_reference=frame) for name, (at, frame) in frames.items()])
    assert _names(units) == [["a", "c"], ["b", "d"]]

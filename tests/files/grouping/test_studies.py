from __future__ import annotations

import dataclasses
from pathlib import Path

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.dicom.header.read import DicomHeader
from medclip.errors import MedclipError, Problem, Reason
from medclip.files.grouping.studies import group, parse_modality
from medclip.files.recognise.inspect import FileFacts
from medclip.files.recognise.sniff import Format
from medclip.files.tables.manifest import read_manifest
from medclip.sample import UNKNOWN, FileRef, Modality, ModalitySource

KEY = b"k" * 32
Pair = tuple[FileRef, FileFacts]


def _png(name: str) -> Pair:
    return FileRef(Path("/data") / name, name), FileFacts(f"sha of {name}", Format.PNG)


def _dicom(name: str, study: str = "", **values: str) -> Pair:
    header = dataclasses.replace(DicomHeader(study_uid=study, modality="CR"), **values)
    return FileRef(Path("/data") / name, name), FileFacts(f"sha of {name}", Format.DICOM, header)


def _names(files: list[Pair], **options: object) -> list[list[str]]:
    defaults: dict[str, object] = {"manifest": None, "modality": None, "key": KEY}
    return [[ref.name for ref in study.files] for study in group(files, **(defaults | options))]


def test_dicom_is_tied_by_its_study_whatever_the_folder() -> None:
    files = [_dicom("a/1", "S"), _dicom("b/2", "T"), _dicom("c/3", "S")]
    studies = group(files, manifest=None, modality=None, key=KEY)
    assert [[ref.name for ref in study.files] for study in studies] == [["a/1", "c/3"], ["b/2"]]
    assert {study.grouping for study in studies} == {"uid"}
    assert {study.modality_source for study in studies} == {ModalitySource.HEADER}


def _one_patient(*names: str) -> object:
    return read_manifest(pyarrow.table({"file": list(names), "patient": ["P"] * len(names)}))


def test_strangers_in_a_folder_are_one_study_each_and_those_of_one_patient_one() -> None:
    names = ["x.png", "y.png", "case/1.png", "case/2.png"]
    files = [_png(name) for name in names]
    assert _names(files) == [[name] for name in names]
    assert _names(files, manifest=_one_patient(*names)) == [["x.png"], ["y.png"], ["case/1.png", "case/2.png"]]


def test_a_large_folder_of_one_patient_is_a_collection() -> None:
    for size, studies in ((16, 1), (17, 17)):
        names = [f"c/{i}.png" for i in range(size)]
        assert len(_names([_png(name) for name in names], manifest=_one_patient(*names))) == studies


def test_the_same_image_counts_once_in_a_study_the_first_by_name() -> None:
    same = FileFacts("same", Format.DICOM, DicomHeader(study_uid="S", modality="CR"))
    files = [(FileRef(Path("/data") / name, name), same) for name in ("b", "a", "c")]
    (study,) = group(files, manifest=None, modality=None, key=KEY)
    problems = {unit.files[0].name: (unit.problem, unit.copy_of) for unit in study.units}
    assert problems["a"] == (None, "")
    for name in ("b", "c"):
        problem, original = problems[name]
        assert problem is not None
        assert (problem.reason, original) == (Reason.DUPLICATE, "a")
    assert len(group(files, manifest=None, modality=None, key=KEY, group_by="file")) == 3


def test_one_instance_stored_in_another_syntax_is_a_copy_and_one_uid_for_many_images_is_none() -> None:
    one = _dicom("a", "S", instance_uid="1.2", instance_number="1", transfer_syntax="raw")
    again = _dicom("b", "S", instance_uid="1.2", instance_number="1", transfer_syntax="jpeg")
    other = _dicom("c", "S", instance_uid="1.2", instance_number="2", transfer_syntax="raw")
    (study,) = group([one, again, other], manifest=None, modality=None, key=KEY)
    assert {unit.files[0].name: unit.copy_of for unit in study.units} == {"a": "", "b": "a", "c": ""}


def test_of_one_instance_the_larger_file_counts_since_a_smaller_one_may_be_cut() -> None:
    header = DicomHeader(study_uid="S", modality="CR", instance_uid="1.2", transfer_syntax="1.2.840.10008.1.2.4.50")
    files = [
        (FileRef(Path("/data") / name, name, size), FileFacts(f"sha of {name}", Format.DICOM, header))
        for name, size in (("a_cut", 600), ("b_whole", 1000), ("c_again", 1000))
    ]
    (study,) = group(files, manifest=None, modality=None, key=KEY)
    assert {unit.files[0].name: unit.copy_of for unit in study.units} == {
        "a_cut": "b_whole",
        "b_whole": "",
        "c_again": "b_whole",
    }


def test_a_file_with_fewer_pixels_than_it_states_is_no_copy() -> None:
    values = {"instance_uid": "1.2", "rows": 10, "columns": 10, "samples_per_pixel": 1, "bits_allocated": 16}
    header = dataclasses.replace(
        DicomHeader(study_uid="S", modality="CR", transfer_syntax="1.2.840.10008.1.2.1"), **values
    )
    other = dataclasses.replace(header, transfer_syntax="1.2.840.10008.1.2.4.50")
    files = [
        (FileRef(Path("/data/a"), "a", 150), FileFacts("a", Format.DICOM, header)),
        (FileRef(Path("/data/b"), "b", 150), FileFacts("b", Format.DICOM, other)),
    ]
    (study,) = group(files, manifest=None, modality=None, key=KEY)
    assert {unit.copy_of for unit in study.units} == {""}


def test_a_table_ties_and_names_modality_and_patient() -> None:
    table = pyarrow.table(
        {"file": ["x.png", "y.png"], "study": ["1", "1"], "patient": ["p", "p"], "modality": ["mammography", "xray"]}
    )
    studies = group([_png("x.png"), _png("y.png")], manifest=read_manifest(table), modality=Modality.MRI, key=KEY)
    assert [(study.modality, study.modality_source, study.grouping) for study in studies] == [
        (Modality.MAMMOGRAPHY, ModalitySource.TABLE, "table"),
        (Modality.XRAY, ModalitySource.TABLE, "table"),
    ]
    assert studies[0].key != studies[1].key
    assert studies[0].patient == studies[1].patient


def test_the_same_study_name_of_two_patients_is_two_studies() -> None:
    table = pyarrow.table({"file": ["x.png", "y.png"], "study": ["1", "1"], "patient": ["p", "q"]})
    assert len(_names([_png("x.png"), _png("y.png")], manifest=read_manifest(table))) == 2


def test_the_option_names_only_what_neither_table_nor_header_names() -> None:
    table = pyarrow.table({"file": ["b"], "modality": ["mri"]})
    files = [_dicom("a", "S"), _dicom("b", "T"), _dicom("c", "U", modality="OT"), _png("d")]
    studies = group(files, manifest=read_manifest(table), modality=Modality.MAMMOGRAPHY, key=KEY)
    assert [(study.modality, study.modality_source) for study in studies] == [
        (Modality.XRAY, ModalitySource.HEADER),
        (Modality.MRI, ModalitySource.TABLE),
        (Modality.MAMMOGRAPHY, ModalitySource.OPTION),
        (Modality.MAMMOGRAPHY, ModalitySource.OPTION),
    ]


def test_each_file_of_a_study_keeps_who_named_its_modality() -> None:
    table = pyarrow.table({"file": ["b"], "modality": ["xray"]})
    files = [_dicom("a", "S"), _dicom("b", "S"), _dicom("c", "S", modality="")]
    (study,) = group(files, manifest=read_manifest(table), modality=Modality.XRAY, key=KEY)
    assert study.file_sources == (ModalitySource.HEADER, ModalitySource.TABLE, ModalitySource.OPTION)
    assert study.modality_source is ModalitySource.HEADER


@pytest.mark.parametrize("text", ["xray", "XRAY", " Xray "])
def test_a_modality_is_read_in_any_case(text: str) -> None:
    assert parse_modality(text) is Modality.XRAY


def test_an_unknown_modality_is_refused_with_the_known_ones() -> None:
    with pytest.raises(MedclipError, match="mammography") as caught:
        parse_modality("moon\x1b[31m")
    assert caught.value.reason is Reason.WRONG_USE
    assert "\x1b" not in str(caught.value)


def test_a_modality_that_nobody_knows_is_named_where_vectors_alone_are_computed() -> None:
    assert parse_modality(" Unknown", or_unknown=True) is UNKNOWN
    with pytest.raises(MedclipError, match="nothing but vectors"):
        parse_modality("unknown")


def test_an_unknown_modality_stays_open() -> None:
    (study,) = group([_png("a")], manifest=None, modality=None, key=KEY)
    assert (study.modality, study.modality_source) == (None, None)


def test_views_that_name_different_patients_name_none() -> None:
    (study,) = group(
        [_dicom("a", "S", patient_id="p_LEFT"), _dicom("b", "S", patient_id="p_RIGHT")],
        manifest=None,
        modality=None,
        key=KEY,
    )
    assert study.patient is None


def test_neither_key_nor_patient_shows_the_identifier() -> None:
    (study,) = group([_dicom("a", "1.2.3", patient_id="SECRET")], manifest=None, modality=None, key=KEY)
    assert "SECRET" not in str(study)
    assert "1.2.3" not in str(study)


def test_files_with_a_problem_are_left_out() -> None:
    ref, facts = _png("a.png")
    problem = Problem(Reason.CORRUPT, "Damaged.")
    assert _names([(ref, dataclasses.replace(facts, problem=problem))]) == []
    assert _names([(dataclasses.replace(ref, problem=problem), facts)]) == []
    assert _names([(ref, dataclasses.replace(facts, format=Format.NRRD))]) == []


def test_grouping_may_be_forced() -> None:
    files = [_dicom("a/1", "S"), _dicom("a/2", "S"), _dicom("b/3", "S")]
    assert _names(files, group_by="file") == [["a/1"], ["a/2"], ["b/3"]]
    assert _names(files, group_by="folder") == [["a/1", "a/2"], ["b/3"]]
    with pytest.raises(MedclipError) as caught:
        _names(files, group_by="moon")
    assert caught.value.reason is Reason.WRONG_USE


@given(st.lists(st.sampled_from([("S", "CR"), ("S", "MG"), ("T", "CR"), ("", "CR"), ("", "")]), max_size=30))
def test_every_file_is_in_exactly_one_study_of_one_modality(kinds: list[tuple[str, str]]) -> None:
    files = [_dicom(f"{i % 3}/{i}", study, modality=code) for i, (study, code) in enumerate(kinds)]
    studies = group(files, manifest=None, modality=None, key=KEY)
    assert sorted(ref.name for study in studies for ref in study.files) == sorted(ref.name for ref, _ in files)
    assert len({study.key for study in studies}) == len(studies)


def test_two_patients_of_one_folder_are_two_studies() -> None:
    names = ["case/1.png", "case/2.png", "case/3.png"]
    table = read_manifest(pyarrow.table({"file": names, "patient": ["P", "Q", "P"]}))
    assert _names([_png(name) for name in names], manifest=table) == [["case/1.png", "case/3.png"], ["case/2.png"]]


def test_a_study_carries_its_modality_in_the_key_only_where_it_was_split() -> None:
    (alone,) = group([_dicom("a", "S")], manifest=None, modality=None, key=KEY)
    split = group([_dicom("a", "S"), _dicom("b", "S", modality="MG")], manifest=None, modality=None, key=KEY)
    assert alone.key == alone.tie
    assert {study.tie for study in split} == {alone.key}
    assert len({study.key for study in split} | {alone.key}) == 3


def test_a_table_states_the_view_and_day_of_a_mammogram_and_of_nothing_else() -> None:
    table = pyarrow.table(
        {
            "file": ["m.png", "x.png"],
            "modality": ["mammography", "xray"],
            "laterality": ["L", "L"],
            "view": ["MLO", "MLO"],
            "exam_date": ["2020-03-01", "2020-03-01"],
        }
    )
    mammogram, radiograph = group([_png("m.png"), _png("x.png")], manifest=read_manifest(table), modality=None, key=KEY)
    assert mammogram.units[0].stated_view is not None
    assert str(mammogram.units[0].exam_date) == "2020-03-01"
    assert (radiograph.units[0].stated_view, radiograph.units[0].exam_date) == (None, None)


def test_a_file_as_large_as_its_pixels_may_have_a_copy_and_every_frame_and_colour_counts() -> None:
    for frames, samples, size, copies in (
        (1, 1, 200, True),
        (2, 1, 399, False),
        (1, 3, 599, False),
        (2, 3, 1200, True),
    ):
        header = DicomHeader(
            study_uid="S",
            modality="CR",
            instance_uid="1.2",
            transfer_syntax="1.2.840.10008.1.2.1",
            rows=10,
            columns=10,
            frames=frames,
            samples_per_pixel=samples,
            bits_allocated=16,
        )
        files = [
            (FileRef(Path("/data") / name, name, size), FileFacts(f"sha of {name}", Format.DICOM, header))
            for name in "ab"
        ]
        (study,) = group(files, manifest=None, modality=None, key=KEY)
        assert any(unit.copy_of for unit in study.units) is copies, (frames, samples)


def test_a_volume_in_one_file_is_an_examination_by_itself() -> None:
    names = ["c/1.nii", "c/2.nii"]
    files = [(FileRef(Path("/data") / name, name), FileFacts(f"sha of {name}", Format.NIFTI)) for name in names]
    assert _names(files, manifest=_one_patient(*names), modality=Modality.CT) == [[name] for name in names]

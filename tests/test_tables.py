"""Every command reads the same table the same way, in whatever disguise it comes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from medclip.adaptation.data.table import read_adapt_table
from medclip.auditing.checks.embeddings.vectors import read_embeddings
from medclip.auditing.checks.leakage.training_data import of_table
from medclip.auditing.input.options import ReadOptions
from medclip.auditing.input.read import read_cohort
from medclip.errors import MedclipError
from medclip.evaluation.zero_shot.labelled_set import find_set
from medclip.evaluation.zero_shot.suite import load_suite
from medclip.files.tables.manifest import read_manifest
from medclip.shards.writing.table import read_shard_table
from tests.kits.tables import DISGUISES, FILES, disguised

KEY = bytes(32)
LIBRARY = Path(__file__).parents[1] / "medclip"
COLUMNS = {
    "file": ["a.png", "b, c.png", "d;e.png", "f\u00e9.png"],
    "patient": ["007", "007", "MRN-1", "\u00fc"],
    "modality": ["xray", "xray", "xray", "xray"],
    "view": ["PA", "AP", "PA", "AP"],
    "age": [54.0, None, 7.0, 63.5],
    "sex": ["F", "M", "F", "M"],
    "flu": [1, 0, 1, 0],
    "flu_score": [0.9, 0.25, 1e-05, 0.99],
    "split": ["train", "val", "test", "train"],
    "caption": ['A "clear" film,\nof the chest.', None, "", "x"],
}
SUITE = """
name: one
title: One set
groups: [{id: chests, title: Chest}]
sets:
  - id: chests
    group: chests
    modality: xray
    table: {label: view}
    values: {PA: frontal, AP: portable}
    classes: [{name: frontal, prompts: [frontal film]}, {name: portable, prompts: [portable film]}]
"""


def manifest(source: Any, _: Path) -> Any:
    return read_manifest(source).rows


def shards(source: Any, folder: Path) -> Any:
    return read_shard_table(source, folder=folder).rows


def adapt(source: Any, folder: Path) -> Any:
    names = read_adapt_table(source, ["view"], folder=folder, key=KEY)
    return names.units, names.text, read_adapt_table(source, ["flu"], folder=folder, key=KEY).units


def training(source: Any, _: Path) -> Any:
    data = of_table(source)
    return data.patients, data.sha256


def audit(scores: Any, labels: Any) -> Any:
    cohort = read_cohort(scores, labels, by=["sex", "age"], options=ReadOptions(key="file"))
    (label,) = cohort.labels
    arrays = (cohort.patients_N, label.score_N, label.truth_N, *(a.codes_N for a in cohort.attributes))
    groups = [(a.name, a.groups) for a in cohort.attributes]
    return cohort.keys, cohort.identities, groups, [array.tolist() for array in arrays]


def audit_scores(source: Any, _: Path) -> Any:
    return audit(source, disguised(COLUMNS, "arrow", Path(), ""))


def audit_labels(source: Any, _: Path) -> Any:
    return audit(disguised({n: COLUMNS[n] for n in ("file", "flu_score")}, "arrow", Path(), ""), source)


def audit_of_one_table(source: Any, _: Path) -> Any:
    return audit(source, None)


def evaluate(source: Path, folder: Path) -> Any:
    (folder / "suite.yaml").write_text(SUITE)
    (part,) = load_suite(folder / "suite.yaml").sets
    (folder / part.place).mkdir(parents=True, exist_ok=True)
    source.rename(folder / part.place / "labels.csv")
    return find_set(folder, part, KEY).rows


def embeddings(source: Path, _: Path) -> Any:
    return read_embeddings(source, COLUMNS["file"], key="file").vectors_ND.tolist()


DOORS = (manifest, shards, adapt, training, audit_scores, audit_labels, audit_of_one_table)
DOORS_FOR_FILES = (evaluate, embeddings)


@pytest.mark.parametrize("disguise", DISGUISES)
@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_each_command_gets_equal_values_from_every_disguise(door: Any, disguise: str, tmp_path: Path):
    expected = door(disguised(COLUMNS, "comma", tmp_path, "t"), tmp_path)
    assert door(disguised(COLUMNS, disguise, tmp_path, "t"), tmp_path) == expected


@pytest.mark.parametrize("door", [*DOORS, evaluate], ids=lambda door: door.__name__)
def test_names_of_columns_are_known_in_any_case(door: Any, tmp_path: Path):
    expected = door(disguised(COLUMNS, "comma", tmp_path, "t"), tmp_path)
    loud = {name if name.startswith("flu") else name.upper(): cells for name, cells in COLUMNS.items()}
    assert door(disguised(loud, "comma", tmp_path, "t"), tmp_path) == expected


def test_a_column_that_is_not_there_is_asked_for_by_those_that_are_written_alike(tmp_path: Path):
    table = disguised(COLUMNS | {"flie": COLUMNS["file"]}, "comma", tmp_path, "t")
    with pytest.raises(MedclipError) as refused:
        read_adapt_table(table, ["flus"], folder=tmp_path, key=KEY)
    assert refused.value.hint == "Did you mean 'flu' or 'flu_score'?"
    without = {name: cells for name, cells in COLUMNS.items() if name != "file"} | {"flie": COLUMNS["file"]}
    for door in (manifest, shards, adapt):
        with pytest.raises(MedclipError) as refused:
            door(disguised(without, "comma", tmp_path, "t"), tmp_path)
        assert refused.value.hint.startswith("Did you mean 'flie'?")
    mistyped = {name.replace("view", "veiw"): cells for name, cells in COLUMNS.items()}
    with pytest.raises(MedclipError, match="Did you mean 'veiw'"):
        evaluate(disguised(mistyped, "comma", tmp_path, "t"), tmp_path)


@pytest.mark.parametrize("disguise", FILES)
@pytest.mark.parametrize("door", DOORS_FOR_FILES, ids=lambda door: door.__name__)
def test_commands_that_take_files_get_equal_values_from_every_file(door: Any, disguise: str, tmp_path: Path):
    columns = COLUMNS if door is evaluate else {n: COLUMNS[n] for n in ("file", "flu", "flu_score")}
    expected = door(disguised(columns, "comma", tmp_path, "t"), tmp_path)
    assert door(disguised(columns, disguise, tmp_path, "t"), tmp_path) == expected


@pytest.mark.parametrize("door", [*DOORS, *DOORS_FOR_FILES], ids=lambda door: door.__name__)
@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(99), "old Excel file"),
        (b"<html></html>", "web page"),
        (b"file,patient\na.png,7,7\n", "row 1 has more cells"),
        (b"file,patient,file\na.png,7,b.png\n", "more than once"),
        (b"7700123,Doe^John\n7700124,Roe^Jane\n", "column"),
    ],
)
def test_each_command_refuses_what_is_no_table_with_the_same_sentence(
    door: Any, body: bytes, says: str, tmp_path: Path
):
    (tmp_path / "t.csv").write_bytes(body)
    with pytest.raises(MedclipError, match=says) as e:
        door(tmp_path / "t.csv", tmp_path)
    assert not any(name in str(e.value) for name in ("77001", "Doe", "Roe"))


def test_no_other_file_reads_the_tables_of_a_user():
    reading = re.compile(r"csv\.(reader|DictReader)\(|from_native\(|read_csv\(|pacsv")
    readers = {p.relative_to(LIBRARY).as_posix() for p in LIBRARY.rglob("*.py") if reading.search(p.read_text("utf-8"))}
    assert readers == {
        "files/tables/read_table.py",
        "files/recognise/sniff.py",  # is it a table? looks at the first bytes of any file
        "auditing/checks/leakage/training_data.py",  # shots.csv of a pack, which medclip wrote
    }

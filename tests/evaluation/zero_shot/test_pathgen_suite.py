"""The suite "pathgen": nine tasks of patches, and the folder forms in which their sets are published."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from medclip.evaluation.zero_shot.labelled_set import find_set
from medclip.evaluation.zero_shot.suite import SetFile, load_suite
from tests.kits.stages import load_stage

KEY = bytes(32)
NUM_CLASSES = {
    "LC_lung": 3,
    "LC_colon": 2,
    "CRC100K": 9,
    "WSSS4LUAD": 2,
    "SkinCancer": 16,
    "PCam": 2,
    "BACH": 4,
    "Osteo": 3,
    "SICAPv2": 4,
}
FOLDERS = {
    "LC_lung": ["lung_aca", "lung_n", "lung_scc"],
    "LC_colon": ["colon_aca", "colon_n"],
    "CRC100K": ["ADI", "BACK", "DEB", "LYM", "MUC", "MUS", "NORM", "STR", "TUM"],
    "BACH": ["Benign", "InSitu", "Invasive", "Normal"],
    "Osteo": ["Non-Tumor", "Non-Viable-Tumor", "Viable"],
}


def set_of(name: str) -> SetFile:
    return next(part for part in load_suite("pathgen").sets if part.id == name)


def sets_script(repository: Path) -> ModuleType:
    return load_stage(repository / "pipelines" / "pathgen", "sets")


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_the_suite_has_the_nine_tasks_with_their_classes() -> None:
    assert {part.id: len(part.classes) for part in load_suite("pathgen").sets} == NUM_CLASSES


def test_tumour_is_the_positive_class_where_there_are_two() -> None:
    two = [part for part in load_suite("pathgen").sets if len(part.classes) == 2]
    assert {part.names[1] for part in two} == {"tumour", "adenocarcinoma"}
    assert {part.names[0] for part in two} == {"normal"}


def test_every_class_is_asked_in_several_sentences_and_none_is_upstreams() -> None:
    for part in load_suite("pathgen").sets:
        for sentences in part.prompts():
            assert len(sentences) >= 2
            assert not any(s.startswith(("An image of", "An H&E")) for s in sentences)


@pytest.mark.parametrize("name", FOLDERS)
def test_folders_of_the_published_names_are_the_classes(tmp_path: Path, name: str) -> None:
    part = set_of(name)
    touch(*(tmp_path / part.place / folder / "a.png" for folder in FOLDERS[name]))
    labelled = find_set(tmp_path, part, KEY)
    assert labelled is not None
    assert sorted(row.label for row in labelled.rows) == list(range(len(part.classes)))


def test_a_tile_with_living_and_dead_tumour_is_viable(tmp_path: Path) -> None:
    part = set_of("Osteo")
    touch(tmp_path / "Osteo" / "a.jpg")
    (tmp_path / "Osteo" / "labels.csv").write_text("file,label\na.jpg,viable: non-viable\n")
    labelled = find_set(tmp_path, part, KEY)
    assert labelled is not None
    assert part.names[labelled.rows[0].label] == "viable"


def test_flags_in_the_names_of_wsss4luad_become_labels(tmp_path: Path, repository: Path) -> None:
    folder = tmp_path / "WSSS4LUAD"
    touch(folder / "436403-19672-41936-[1, 1, 0].png", folder / "training" / "387709-1-2-[0, 0, 1].png")
    sets_script(repository).main(["wsss4luad", str(folder)])
    labelled = find_set(tmp_path, set_of("WSSS4LUAD"), KEY)
    assert labelled is not None
    assert {row.path.name[:6]: row.label for row in labelled.rows} == {"436403": 1, "387709": 0}
    assert labelled.has_patients
    touch(folder / "thumbnail.png")
    with pytest.raises(SystemExit, match="its name ends in no flags"):
        sets_script(repository).main(["wsss4luad", str(folder)])


def test_rows_of_sicapv2_with_one_grade_become_labels(tmp_path: Path, repository: Path) -> None:
    folder = tmp_path / "SICAPv2"
    names = [f"16B000{n}_Block_0_{n}.jpg" for n in range(4)]
    touch(*(folder / "images" / name for name in names))
    sheet = tmp_path / "Train.csv"
    values = ["1,0,0,0,0", "0,1,1,0,0", "0,0,0,0,1", "0,0,0,1,0"]
    rows = [f"{name},{value}" for name, value in zip(names, values, strict=True)]
    sheet.write_text("\n".join(["image_name,NC,G3,G4,G5,G4C", *rows]) + "\n")
    sets_script(repository).main(["sicapv2", str(folder), str(sheet)])
    labelled = find_set(tmp_path, set_of("SICAPv2"), KEY)
    assert labelled is not None
    assert [(row.path.name, row.label) for row in labelled.rows] == [(names[0], 0), (names[3], 3)]
    (folder / "images" / names[0]).unlink()
    with pytest.raises(SystemExit, match=r"its image 16B0000_Block_0_0\.jpg is not below"):
        sets_script(repository).main(["sicapv2", str(folder), str(sheet)])

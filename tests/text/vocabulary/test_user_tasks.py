"""Task files of one's own: found by an environment variable, short ones filled in, faulty ones named."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from medclip.errors import MedclipError, Reason
from medclip.pairs.sources.labels import distinct_sentences
from medclip.sample import Modality
from medclip.text.captions.draw import all_wordings, draw_caption
from medclip.text.captions.record import CaptionRecord
from medclip.text.checks.caption_check import check_caption
from medclip.text.mentions import mentioned
from medclip.text.vocabulary.load import load_task, task_names
from medclip.text.vocabulary.prompts import expand
from medclip.text.vocabulary.task import VARIABLE

SIGNS = """
kind: multilabel
modality: fundus
classes:
  - {name: drusen, prompts: [drusen, yellow deposits under the retina]}
  - {name: macular_hole, prompts: [a macular hole]}
"""
GRADES = """
task: dr_grade
kind: multiclass
modality: fundus
classes:
  - {name: none, prompts: [no diabetic retinopathy]}
  - {name: mild, prompts: [mild diabetic retinopathy, a few microaneurysms]}
"""
DENIALS = [
    {"drusen": 1, "macular_hole": 0},
    {"drusen": 0, "macular_hole": 0},
    {"drusen": 0},
    {"drusen": 1, "macular_hole": 1},
]


def folder_of(place: Path, monkeypatch: pytest.MonkeyPatch, **files: str) -> Path:
    place.mkdir(exist_ok=True)
    for name, text in files.items():
        (place / f"{name}.yaml").write_text(text, encoding="utf-8")
    monkeypatch.setenv(VARIABLE, str(place))
    return place


def test_tasks_of_ones_own_stand_beside_those_of_medclip(tmp_path, monkeypatch):
    packaged = task_names()
    folder_of(tmp_path / "a", monkeypatch, own_signs_a=SIGNS)
    folder_of(tmp_path / "b", monkeypatch, dr_grade=GRADES)
    monkeypatch.setenv(VARIABLE, os.pathsep.join([str(tmp_path / "a"), str(tmp_path / "b")]))
    assert task_names() == tuple(sorted([*packaged, "own_signs_a", "dr_grade"]))
    assert load_task("dr_grade").class_named("mild").prompts[1] == "a few microaneurysms"
    assert load_task("own_signs_a").modalities == (Modality.FUNDUS,)
    monkeypatch.delenv(VARIABLE)
    assert task_names() == packaged
    with pytest.raises(MedclipError, match=VARIABLE) as e:
        load_task("dr_grade")
    assert e.value.reason is Reason.NO_TASK


def test_the_cache_sees_that_the_variable_names_another_folder(tmp_path, monkeypatch):
    folder_of(tmp_path / "a", monkeypatch, own_signs_b=SIGNS)
    assert load_task("own_signs_b").classes[0].name == "drusen"
    folder_of(tmp_path / "b", monkeypatch, own_signs_b=SIGNS.replace("drusen", "scars"))
    assert load_task("own_signs_b").classes[0].name == "scars"
    with pytest.raises(MedclipError):
        load_task("own_later")
    folder_of(tmp_path / "b", monkeypatch, own_later=SIGNS)
    assert load_task("own_later").name == "own_later"
    assert "own_later" in task_names()


def test_a_short_file_is_filled_in(tmp_path, monkeypatch):
    folder_of(tmp_path / "t", monkeypatch, own_signs_c=SIGNS, dr_grade=GRADES)
    task = load_task("own_signs_c")
    assert (task.name, task.title, task.templates) == ("own_signs_c", "Own signs c", ("{}", "fundus image: {}"))
    hole = task.class_named("macular_hole")
    assert (hole.title, hole.nouns, hole.stems) == ("Macular hole", ("macular hole",), ("macular hole",))
    assert hole.negative_prompts == ("no macular hole", "without macular hole", "no evidence of macular hole")
    assert [c.negative_prompts for c in load_task("dr_grade").classes] == [(), ()]
    assert {p.name for p in expand(task)} == {"drusen", "macular_hole"}
    assert "no evidence of macular hole" in set(all_wordings())


def test_what_a_file_says_is_not_changed(tmp_path, monkeypatch):
    said = SIGNS.replace(
        "prompts: [a macular hole]}",
        "title: A hole, prompts: [a macular hole], negative_prompts: [the macula is whole],"
        " nouns: [hole], stems: [hol]}",
    )
    folder_of(tmp_path / "t", monkeypatch, own_signs_d=f"title: Signs\ntemplates: ['{{}}']\n{said}")
    task = load_task("own_signs_d")
    hole = task.class_named("macular_hole")
    assert (task.title, task.templates) == ("Signs", ("{}",))
    assert (hole.title, hole.negative_prompts, hole.nouns, hole.stems) == (
        "A hole",
        ("the macula is whole",),
        ("hole",),
        ("hol",),
    )


@pytest.mark.parametrize("label", DENIALS)
def test_captions_of_short_files_say_what_is_labelled_and_nothing_else(tmp_path, monkeypatch, label):
    folder_of(tmp_path / "t", monkeypatch, own_signs_e=SIGNS)
    record = CaptionRecord(Modality.FUNDUS, labels={"own_signs_e": label})
    rng = np.random.default_rng(0)
    sentences = distinct_sentences(record, 10, rng)
    assert len(sentences) == 10
    for said in [*sentences, *(draw_caption(record, rng) for _ in range(50))]:
        assert check_caption(said, record) == (), said


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"modality": SIGNS}, r"modality\.yaml: medclip ships a task of this name"),
        ({"own_bad": SIGNS.replace("multilabel", "several")}, r"own_bad\.yaml: .*kind"),
        ({"own_bad": SIGNS.replace("fundus", "eye")}, r"own_bad\.yaml: .*modalities\.0"),
        (
            {"own_bad": SIGNS.replace("prompts: [a macular hole]", "words: [x]")},
            r"own_bad\.yaml: .*classes\.1\.prompts",
        ),
        ({"own_bad": SIGNS.replace("name: drusen", "name: 0")}, r"own_bad\.yaml: .*classes\.0\.name"),
        ({"own_bad": SIGNS.replace("[a macular hole]", "5")}, r"own_bad\.yaml: .*classes\.1\.prompts"),
        ({"own_bad": GRADES}, r"own_bad\.yaml: the task is named 'dr_grade'"),
        ({"own_bad": "- 1"}, r"own_bad\.yaml: the task is not valid"),
        ({"own_bad": "kind: ["}, r"own_bad\.yaml: this is not YAML"),
    ],
)
def test_a_faulty_file_is_named_with_its_field(tmp_path, monkeypatch, files, said):
    folder_of(tmp_path / "t", monkeypatch, **files)
    with pytest.raises(MedclipError, match=said) as e:
        load_task("own_bad")
    assert e.value.reason is Reason.TABLE_INVALID


def test_a_folder_that_is_not_there_a_name_twice_and_binary_files_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "gone"))
    with pytest.raises(MedclipError, match="no such folder") as e:
        task_names()
    assert e.value.reason is Reason.MISSING_FILE
    assert load_task("modality").name == "modality"
    for name in "ab":
        folder_of(tmp_path / name, monkeypatch, own_twice=SIGNS)
    monkeypatch.setenv(VARIABLE, os.pathsep.join([str(tmp_path / "a"), str(tmp_path / "b")]))
    with pytest.raises(MedclipError, match="is a task of this name already"):
        task_names()
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "own_binary.yaml").write_bytes(b"\xff\xfe\x00")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "c"))
    with pytest.raises(MedclipError, match="not UTF-8"):
        load_task("own_binary")


def test_a_risk_of_ones_own_is_its_horizons(tmp_path, monkeypatch):
    folder_of(tmp_path, monkeypatch, own_relapse="kind: risk\nmodality: mammography\nhorizons_years: [1, 3]\n")
    relapse = load_task("own_relapse")
    assert (relapse.title, [c.title for c in relapse.classes]) == ("Own relapse", ["Within 1 year", "Within 3 years"])


def test_a_stem_that_lies_in_a_longer_one_is_not_spoken_of(tmp_path, monkeypatch):
    holes = "kind: multilabel\nmodality: fundus\nclasses:\n"
    holes += "  - {name: hole, prompts: [a hole]}\n  - {name: macular_hole, prompts: [a macular hole]}\n"
    folder_of(tmp_path, monkeypatch, own_holes=holes)
    assert mentioned("own_holes", "A macular hole.") == {"macular_hole"}
    assert mentioned("own_holes", "A hole beside a macular hole.") == {"hole", "macular_hole"}

"""Tasks: from the vocabulary, from files of one's own, and made of a table's labels."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.errors import MedclipError, Reason
from medclip.text.vocabulary.find_task import (
    class_said,
    find_task,
    key_of,
    made_of_columns,
    made_of_values,
    plain,
    to_yaml,
)
from medclip.text.vocabulary.load import load_task, parse_task, task_names
from medclip.text.vocabulary.prompts import expand


@pytest.mark.parametrize("name", task_names())
def test_a_task_written_as_a_file_reads_back_as_it_was(name: str):
    assert parse_task(to_yaml(load_task(name))) == load_task(name)


@given(st.lists(st.text(min_size=1, max_size=20).map(plain).filter(bool), min_size=2, max_size=6, unique=True))
def test_any_values_become_a_task_that_reads_back(values: list[str]):
    with suppress(MedclipError):  # words that are no wording, such as a control character
        _reads_back(values)


def _reads_back(values: list[str]):
    task, names = made_of_values("finding", values, ["xray"])
    assert sorted(names) == sorted(values)
    assert {c.name for c in task.classes} == set(names.values())
    assert parse_task(to_yaml(task)) == task


def test_values_become_classes_with_the_modality_in_a_template():
    task, names = made_of_values("Finding", ["no tumor", "glioma tumor"], ["mri"])
    assert (task.name, task.kind, task.modalities) == ("finding", "multiclass", ("mri",))
    assert names == {"no tumor": "no_tumor", "glioma tumor": "glioma_tumor"}
    assert expand(task)[0].positive == ("glioma tumor", "MRI image: glioma tumor")


def test_bare_numbers_are_called_by_their_column():
    task, names = made_of_values("KL_grade", ["0", "1"], ["xray"])
    assert names == {"0": "kl_grade_0", "1": "kl_grade_1"}
    assert task.classes[1].prompts == ("kl grade 1",)


def test_columns_of_0_and_1_become_findings_with_their_denial():
    task = made_of_columns(["Pleural_Thickening", "Mass"], ["xray"])
    assert [c.name for c in task.classes] == ["pleural_thickening", "mass"]
    assert task.classes[0].negative_prompts[0] == "no pleural thickening"


def test_a_made_task_never_takes_the_name_of_one_that_ships():
    assert made_of_columns(["fundus_cataract"], ["fundus"]).name == "own_fundus_cataract"


def test_a_task_is_found_by_name_and_by_file(tmp_path: Path):
    (tmp_path / "quality.yaml").write_text(
        "kind: multiclass\nmodality: xray\nclasses:\n"
        "- {name: good, prompts: [good film]}\n- {name: poor, prompts: [poor film]}\n"
    )
    assert find_task(tmp_path / "quality.yaml").name == "quality"
    assert find_task("breast_density") is load_task("breast_density")
    assert find_task(load_task("breast_density")).name == "breast_density"


def test_a_task_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path):
    with pytest.raises(MedclipError, match="breast_density") as refused:
        find_task("brest_density")
    assert refused.value.reason is Reason.NO_TASK
    with pytest.raises(MedclipError, match=r"other\.yaml"):
        find_task(tmp_path / "other.yaml")


def test_a_class_is_meant_by_its_name_its_title_or_a_wording():
    task = load_task("breast_density")
    assert class_said(task, "fatty-glandular").name == "fatty_glandular"
    assert class_said(task, "dense") is None
    assert class_said(task, "Fatty_Glandular").name == "fatty_glandular"
    assert class_said(load_task("brain_mri_tumour"), "Pituitary adenoma in the sella").name == "pituitary"


def test_keys_are_lower_case_and_begin_with_a_letter():
    assert [key_of(t) for t in ("3 + 4", "Ödem", "肺炎", " T2 ")] == ["n3_4", "dem", "", "t2"]

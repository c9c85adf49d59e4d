from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from medclip.errors import MedclipError, Reason
from medclip.evaluation.zero_shot.suite import load_suite, suite_names
from tests.kits.evaluation import SUITE

# The table of the protocol: classes, and prompts for each of them.
PROTOCOL = {
    "chexpert-5x200": ("xray", [10] * 5),
    "rsna_pneumonia": ("xray", [10] * 2),
    "CT_axial": ("ct", [10] * 11),
    "CT_coronal": ("ct", [10] * 11),
    "CT_sagittal": ("ct", [10] * 11),
    "acl_mri": ("mri", [10] * 2),
    "meniscal_mri": ("mri", [10] * 2),
    "breast_us": ("us", [10] * 2),
    "thyroid_us": ("us", [10] * 2),
    "dr_regular": ("fundus", [15] * 5),
    "refuge_retina": ("fundus", [10, 5]),
    "five_retina": ("fundus", [5] * 4),
    "odir_retina": ("fundus", [5] * 3),
    "LC25000_lung": ("pathology", [3] * 3),
    "LC25000_colon": ("pathology", [3] * 2),
    "PCAM": ("pathology", [2] * 2),
    "NCK_CRC": ("pathology", [4] * 8),
    "BACH": ("pathology", [4] * 4),
    "Osteo": ("pathology", [4] * 3),
    "skin_cancer": ("pathology", [4] * 16),
    "skin_tumor": ("pathology", [4] * 4),
}


def changed(tmp_path: Path, old: str, new: str) -> Path:
    assert old in SUITE
    path = tmp_path / "suite.yaml"
    path.write_text(SUITE.replace(old, new, 1))
    return path


def test_the_unimed_suite_has_the_sets_the_groups_and_the_numbers_of_prompts_of_the_protocol() -> None:
    suite = load_suite("unimed")
    found = {part.id: (part.group, [len(p) for p in part.prompts()]) for part in suite.sets}
    assert found == PROTOCOL


def test_the_published_average_is_that_of_the_group_means_weighted_by_their_sets() -> None:
    suite = load_suite("unimed")
    weights = [len(suite.members(group.id)) for group in suite.groups]
    assert weights == [2, 3, 2, 2, 4, 8]
    average = np.average([group.published for group in suite.groups], weights=weights)
    assert average == pytest.approx(suite.published.average, abs=0.005) == pytest.approx(61.63, abs=0.005)


def test_lc25000_is_two_tasks_and_the_traps_of_the_protocol_are_noted() -> None:
    notes = {part.id: part.note for part in load_suite("unimed").sets}
    assert "two tasks" in notes["LC25000_lung"]
    assert "two tasks" in notes["LC25000_colon"]
    assert "upstream" in notes["rsna_pneumonia"]
    assert all("pre-train" in notes[name] for name in ("chexpert-5x200", "odir_retina"))


def test_no_two_prompts_of_a_set_are_equal() -> None:
    for part in load_suite("unimed").sets:
        said = [p.lower() for prompts in part.prompts() for p in prompts]
        assert len(set(said)) == len(said), part.id


def test_a_pattern_is_filled_with_the_phrase_and_comes_after_the_sentences() -> None:
    part = load_suite("unimed").sets[-1]
    assert part.prompts()[0][0] == part.patterns[0].replace("{c}", part.classes[0].phrase)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("title: Two", "colour: red\ntitle: Two", "colour: is not a key of a suite"),
        ("group: eyes\n    mod", "group: ears\n    mod", "'ears'"),
        ("modality: fundus", "modality: smell", "modality"),
        ("hazy retina", "clear retina", "share the prompt 'clear retina'"),
        ("X: null", "X: nobody", "names a class that is not there: nobody"),
        ("chest X-ray, {c}", "chest X-ray", "exactly one {c}"),
        ("prompts: [hazy retina]", "title: x", "title: is not a key of a suite."),
        ("{name: hazy, prompts: [hazy retina]}", "{name: hazy}", "neither prompts nor a phrase"),
        ("phrase: pneumonia", "prompts: [ill]", ""),
        ("id: chests\n    group", "id: eyes\n    group", "same id"),
        ("split: test", "metric: auroc", "auroc needs two classes"),
    ],
)
def test_a_mistake_in_a_suite_is_named_with_its_place(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = changed(tmp_path, old, new)
    if not said:
        assert len(load_suite(path).sets) == 2
        return
    with pytest.raises(MedclipError) as error:
        load_suite(path)
    assert error.value.reason is Reason.TABLE_INVALID
    assert said in error.value.message
    assert str(path) in str(error.value)


def test_an_unknown_suite_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(MedclipError, match="unimed") as error:
        load_suite("unimedd")
    assert error.value.reason is Reason.MISSING_FILE
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(MedclipError, match="not YAML"):
        load_suite(tmp_path / "bad.yaml")
    assert "unimed" in suite_names()


def test_the_digest_changes_with_a_prompt_and_not_with_the_layout(tmp_path: Path) -> None:
    plain = load_suite(changed(tmp_path, "title", "title")).digest()
    assert load_suite(changed(tmp_path, "sharp vessels", "thin vessels")).digest() != plain
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump(yaml.safe_load(SUITE)))
    assert load_suite(other).digest() == plain

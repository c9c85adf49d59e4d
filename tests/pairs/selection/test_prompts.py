from __future__ import annotations

import pytest

from medclip.errors import MedclipError, Reason
from medclip.pairs.selection.patches import organ_of, own_attributes, prompts_for, read_attributes


def test_every_organ_has_several_attributes_each_with_what_it_looks_like():
    for organ, phrases in own_attributes().items():
        assert len(phrases) >= 4, organ
        assert all(" - " in phrase for phrase in phrases), organ


def test_projects_are_organs_with_hyphen_or_underscore():
    """The reference looks TCGA-BRCA up among keys of which that one has an underscore, and does not find it."""
    assert organ_of("TCGA_BRCA") == organ_of("TCGA-BRCA") == organ_of("tcga-brca") == "breast"
    assert organ_of("TCGA-ACC") == "any"


def test_findings_of_one_slide_are_not_asked_of_the_next():
    """The reference adds each slide's findings to the list of its project."""
    first = prompts_for("colon", ["perforation"])
    second = prompts_for("colon", ["an abscess"])
    assert first.findings == ("perforation",)
    assert second.findings == ("an abscess",)
    assert first.attributes == second.attributes == prompts_for("colon").attributes


def test_what_is_asked_of_any_organ_is_asked_of_each():
    assert set(own_attributes()["any"]) < set(prompts_for("liver").attributes)
    assert prompts_for(None).attributes == own_attributes()["any"]


def test_a_file_of_ones_own_adds_and_replaces_organs(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("adrenal:\n  - cortex - clear cells in cords\ncolon: [crypt abscess]\n")
    own = read_attributes(path)
    assert prompts_for("adrenal", attributes=own).attributes[0] == "cortex - clear cells in cords"
    assert prompts_for("colon", attributes=own).attributes[0] == "crypt abscess"
    assert "crypt abscess" not in prompts_for("colon").attributes


@pytest.mark.parametrize("text", ["- a\n- b\n", "colon: crypts\n", "colon: []\n", "colon: [1]\n", "{", ""])
def test_a_file_of_another_form_is_refused(tmp_path, text):
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(MedclipError) as error:
        read_attributes(path)
    assert error.value.reason is Reason.RECIPE_INVALID
    assert "own.yaml" in str(error.value)


def test_an_unknown_organ_is_refused_with_those_that_there_are():
    with pytest.raises(MedclipError, match="Did you mean 'breast'"):
        prompts_for("breats")

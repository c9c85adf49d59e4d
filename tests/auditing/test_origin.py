"""What was asked, in words that hold no path and no patient."""

from __future__ import annotations

import re

import pytest

from medclip.api.audit import AuditOptions
from medclip.auditing.provenance import HIDDEN, Origin, command_of, recipe_hash, written_recipe
from medclip.errors import MedclipError
from medclip.verbs import make_options, recipe_of


def asked_of(**named: object) -> dict[str, object]:
    """Return what is asked by name, as the verb does."""
    return recipe_of(make_options(AuditOptions, named), has_places=True)


def test_the_command_names_files_without_their_folders():
    asked = asked_of(
        scores="/home/jane/secret/net.csv",
        labels="/data/l.csv",
        compare={"b": "/data/x/b.csv"},
        by="sex",
        where={"split": "test"},
        out="/home/jane/out",
        overwrite=True,
        audited_on="2026-01-01",
    )
    command = command_of(written_recipe(asked))
    assert command == "medclip audit net.csv --labels l.csv --by sex --where split=test --compare b=b.csv"


def test_rows_that_are_selected_by_a_patient_are_not_named():
    asked = written_recipe(
        asked_of(
            scores="net.csv",
            patient="mrn~[0-9]+",
            key="path=image",
            where=["mrn=123", "split=test"],
            score_where=["PATH=jane_doe.png"],
            choose_where=["image=a.png"],
        )
    )
    assert asked["where"] == [f"mrn={HIDDEN}", "split=test"]
    assert (asked["score_where"], asked["choose_where"]) == ([f"PATH={HIDDEN}"], [f"image={HIDDEN}"])


def test_a_call_with_data_frames_says_so_and_has_no_recipe():
    about = Origin(None, auditor="J. Doe").written()
    assert (about["recipe"], about["inputs"], about["auditor"]) == (None, [], "J. Doe")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", about["date"])
    assert {"python", "medclip", "numpy"} <= set(about["software"])


@pytest.mark.parametrize("day", ["yesterday", "31.01.2026", "2026-02-30"])
def test_a_day_that_is_none_is_refused(day: str):
    with pytest.raises(MedclipError, match=f"`audited_on` is '{day}', which is no date. Write it as 2026-01-31."):
        Origin(None, audited_on=day)


def test_the_hash_of_what_was_asked_does_not_depend_on_the_order_of_keys():
    assert recipe_hash({"a": 1, "b": [2]}) == recipe_hash({"b": [2], "a": 1})
    assert recipe_hash({"a": 1}) != recipe_hash({"a": 2})

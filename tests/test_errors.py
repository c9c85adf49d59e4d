"""Names that are wrong, and what is asked in return."""

from __future__ import annotations

import pytest

from medclip.errors import did_you_mean


@pytest.mark.parametrize(
    ("given", "known", "question"),
    [
        ("scor", ["scan", "score", "doctor"], "Did you mean 'score' or 'doctor'?"),
        ("Linear_Probe", ["linear-probe", "svd"], "Did you mean 'linear-probe'?"),
        ("cataract", ["fundus_cataract", "modality"], "Did you mean 'fundus_cataract'?"),
        ("g", ["image_group", "image_grid"], ""),
        ("lr", ["train.lr", "train.layer_rate"], "Did you mean 'train.lr'?"),
        ("zebra", ["xray", "ct"], ""),
        ("", ["xray"], ""),
    ],
)
def test_a_wrong_name_is_asked_back_with_the_names_that_are_close(given: str, known: list[str], question: str):
    assert did_you_mean(given, known) == question


def test_the_list_of_names_follows_the_question_and_has_an_end():
    hint = did_you_mean("name7", (f"name{i}" for i in range(50)), "Names are")
    assert hint.startswith("Did you mean 'name7'")
    assert hint.endswith("name39 and 10 more.")
    assert did_you_mean("x", [], "Names are") == "Names are: none."

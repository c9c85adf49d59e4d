from __future__ import annotations

import pytest

from medclip.errors import MedclipError, Reason
from medclip.text.vocabulary.load import load_task, task_names
from medclip.text.vocabulary.prompts import ad_hoc_task, expand


@pytest.mark.parametrize("name", task_names())
def test_every_wording_meets_every_template_and_no_sentence_stands_twice(name):
    task = load_task(name)
    for c, prompts in zip(task.classes, expand(task), strict=True):
        assert prompts.name == c.name
        assert len(prompts.positive) == len(set(prompts.positive)) == len(c.prompts) * len(task.templates)
        assert len(prompts.negative) == len(set(prompts.negative)) == len(c.negative_prompts) * len(task.templates)
        assert not any("{" in s for s in prompts.positive + prompts.negative)
        assert not set(prompts.positive) & set(prompts.negative)


def test_chosen_classes_keep_the_order_they_were_named_in():
    prompts = expand(load_task("chest_xray_view"), ["lateral", "ap"])
    assert [p.name for p in prompts] == ["lateral", "ap"]


@pytest.mark.parametrize("classes", [["ap", "oblique"], ["ap", "ap"], []])
def test_unknown_repeated_or_no_classes_are_refused(classes):
    with pytest.raises(MedclipError):
        expand(load_task("chest_xray_view"), classes)


@pytest.mark.parametrize(
    ("prompt", "against", "negative"),
    [
        ("a pacemaker", None, "no pacemaker"),
        ("The heart is enlarged", None, "no heart is enlarged"),
        ("pacemaker", "a chest without devices", "a chest without devices"),
        ("  rib   fracture ", None, "no rib fracture"),
    ],
)
def test_a_sentence_becomes_a_task_against_its_opposite(prompt, against, negative):
    task = ad_hoc_task([prompt], [] if against is None else [against])
    (prompts,) = expand(task)
    assert task.kind == "multilabel"
    assert prompts.positive == (" ".join(prompt.split()),)
    assert prompts.negative == (negative,)
    assert prompts.name == " ".join(prompt.split())


@pytest.mark.parametrize(("prompt", "against"), [("  ", None), ("edema", "Edema")])
def test_an_empty_prompt_or_its_own_opposite_is_refused(prompt, against):
    with pytest.raises(MedclipError) as e:
        ad_hoc_task([prompt], [] if against is None else [against])
    assert e.value.reason is Reason.WRONG_USE

from __future__ import annotations

import pytest

from medclip.errors import MedclipError, Reason
from medclip.text.captions.quoted_words import betrayal_in
from medclip.text.vocabulary.load import load_task, spoken_names
from medclip.text.vocabulary.prompts import expand


@pytest.mark.parametrize("name", spoken_names())
def test_every_wording_meets_every_template_and_no_sentence_stands_twice(name):
    task = load_task(name)
    for c, prompts in zip(task.classes, expand(task), strict=True):
        assert prompts.name == c.name
        assert len(prompts.positive) == len(set(prompts.positive)) == len(c.prompts) * len(task.templates)
        assert len(prompts.negative) == len(set(prompts.negative)) == len(c.negative_prompts) * len(task.templates)
        assert not any("{" in s for s in prompts.positive + prompts.negative)
        assert not set(prompts.positive) & set(prompts.negative)
        assert tuple(s for plus, _ in prompts.by_template for s in plus) == prompts.positive
        assert tuple(s for _, minus in prompts.by_template for s in minus) == prompts.negative


@pytest.mark.parametrize("name", spoken_names())
def test_no_wording_holds_a_word_that_betrays_where_an_image_is_from(name):
    # Captions say these words of images of some sources, and a clinic or a maker would tell the source.
    task = load_task(name)
    worded = [*task.image_names, *(w for c in task.classes for w in (*c.prompts, *c.negative_prompts, *c.nouns))]
    assert not {text: word for text in worded if (word := betrayal_in(text))}


def test_a_risk_is_asked_of_a_head_and_not_of_words():
    with pytest.raises(MedclipError, match="of a head") as refused:
        expand(load_task("breast_cancer_risk"))
    assert refused.value.reason is Reason.NO_TASK
    assert "breast_cancer_risk" not in spoken_names()


def test_chosen_classes_keep_the_order_they_were_named_in():
    prompts = expand(load_task("chest_xray_view"), ["lateral", "ap"])
    assert [p.name for p in prompts] == ["lateral", "ap"]


@pytest.mark.parametrize("classes", [["ap", "oblique"], ["ap", "ap"], []])
def test_unknown_repeated_or_no_classes_are_refused(classes):
    with pytest.raises(MedclipError):
        expand(load_task("chest_xray_view"), classes)

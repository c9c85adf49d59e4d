from __future__ import annotations

import pytest

from medclip.errors import MedclipError, Reason
from medclip.sample import Modality
from medclip.text.vocabulary.load import load_task
from medclip.text.vocabulary.own_words import Prompt, ad_hoc_task, read_prompts, templates_of
from medclip.text.vocabulary.prompts import expand


@pytest.mark.parametrize(
    ("prompt", "against", "negative"),
    [
        ("a pacemaker", (), "no pacemaker"),
        ("The heart is enlarged", (), "no heart is enlarged"),
        ("pacemaker", "a chest without devices", "a chest without devices"),
        ("  rib   fracture ", (), "no rib fracture"),
    ],
)
def test_a_sentence_becomes_a_task_against_its_opposite(prompt, against, negative):
    task = ad_hoc_task(read_prompts(prompt, against))
    (prompts,) = expand(task)
    assert task.kind == "multilabel"
    assert prompts.positive == (" ".join(prompt.split()),)
    assert prompts.negative == (negative,)
    assert prompts.name == " ".join(prompt.split())


def test_bars_a_list_and_a_mapping_are_the_same_ways_to_say_one_thing():
    by_bar = read_prompts("pneumonia | a consolidation", "clear lungs | no pneumonia")
    by_list = read_prompts([["pneumonia", "a consolidation"]], [["clear lungs", "no pneumonia"]])
    by_name = read_prompts({"pneumonia": ["pneumonia", "a consolidation"]}, {"pneumonia": "clear lungs|no pneumonia"})
    assert by_bar == by_list == by_name
    assert by_bar[0].texts == ("pneumonia", "a consolidation")
    assert by_bar[0].against == ("clear lungs", "no pneumonia")
    assert Prompt.from_json(by_bar[0].to_json()) == by_bar[0]


def test_several_prompts_stay_classes_of_their_own_and_are_compared_in_their_order():
    first, second = read_prompts(["a pacemaker", "an effusion | fluid"], ["a chest without devices", "no fluid at all"])
    assert (first.name, first.against) == ("a pacemaker", ("a chest without devices",))
    assert (second.name, second.against) == ("an effusion", ("no fluid at all",))
    assert [c.name for c in ad_hoc_task([first, second]).classes] == ["a pacemaker", "an effusion"]


@pytest.mark.parametrize(
    ("prompts", "against", "message"),
    [
        ("  ", (), "empty"),
        ("edema | ", (), "empty"),
        ("edema", "Edema", "the same sentence"),
        ("edema | fluid", "no fluid | FLUID", "the same sentence"),
        (["edema", "edema"], (), "twice"),
        ("edema | Edema", (), "same words"),
        (["edema", "fluid"], ["clear"], "come in pairs: 2 and 1"),
        ("edema", "clear | ", "empty"),
        ({"edema": "edema"}, {"fluid": "clear"}, "is no prompt"),
        ((), "clear", "no prompt"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_a_sentence(prompts, against, message):
    with pytest.raises(MedclipError, match=message) as e:
        read_prompts(prompts, against)
    assert e.value.reason is Reason.WRONG_USE


@pytest.mark.parametrize("text", ["pneumonia", "an enlarged heart", "pleural effusion | pleural fluid"])
def test_a_bare_finding_is_put_into_the_sentences_of_the_modality(text):
    (prompt,) = read_prompts(text)
    said = prompt.sentences(templates_of(Modality.XRAY))
    assert f"an X-ray image with {prompt.texts[0]}" in said.positive
    assert f"X-ray image: {prompt.against[0]}" in said.negative
    assert len(said.by_template) == 3
    assert len(said.positive) == 3 * len(prompt.texts)


@pytest.mark.parametrize(
    ("text", "against"),
    [("a chest film with pneumonia", ()), ("chest X-ray: edema", ()), ("edema", "lungs that are quite clear of fluid")],
)
def test_a_sentence_is_asked_as_it_stands(text, against):
    (prompt,) = read_prompts(text, against)
    assert prompt.sentences(templates_of(Modality.XRAY)) == prompt.sentences()
    assert prompt.sentences().positive == (text,)


@pytest.mark.parametrize("modality", list(Modality))
def test_every_modality_has_sentences_of_its_own(modality):
    plain, *others = templates_of(modality)
    assert plain == "{}"
    assert len(others) == 2
    assert all(t.count("{}") == 1 and len(t) > 4 for t in others)


def test_others_are_the_findings_of_the_modality_that_are_not_asked_and_no_finding_is_denied():
    (prompt,) = read_prompts("pneumonia", "others")
    others = prompt.of_modality(Modality.XRAY).against
    assert {"pleural effusion", "atelectasis"} <= {*others}
    assert not any("pneumonia" in text or text.startswith("no ") for text in others)
    assert prompt.of_modality(Modality.FUNDUS).against != others
    assert prompt.of_modality(None).against == ("no pneumonia",)
    assert read_prompts("pneumonia", "clear lungs")[0].of_modality(Modality.XRAY).against == ("clear lungs",)
    assert prompt.of_modality(Modality.XRAY).is_bare, "others are put into the same sentences"


@pytest.mark.parametrize("name", ["breast_ultrasound_malignancy", "skin_lesion"])
def test_a_task_whose_classes_do_not_cover_its_modality_says_of_which_images_it_is_asked(name):
    assert "none of these is true" in load_task(name).none_in_words
    assert load_task("brain_mri_tumour").none_in_words == ""

"""Options of methods, checked against what each function takes."""

from __future__ import annotations

from importlib import import_module

import pytest

from medclip.adaptation.methods import FURTHER, METHODS, find_method, options_of
from medclip.errors import MedclipError, Reason
from tests.kits.adaptation import made_up, tiny_model, words


@pytest.mark.parametrize("name", METHODS)
def test_an_option_that_no_method_has_is_refused_with_those_there_are(name: str):
    with pytest.raises(MedclipError, match=f"{name.replace('+', '.')} has no such option as 'speed'") as refused:
        find_method(name).check({"speed": 3})
    assert refused.value.reason is Reason.WRONG_USE
    assert "fit_" not in str(refused.value)
    assert "argument" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("svd", {"lr": "abc"}),
        ("svd", {"steps": 2.5}),
        ("svd", {"layers": {"a": 1}}),
        ("svd", {"roles": ["x"]}),
        ("svd", {"dropout": 1}),
        ("svd", {"steps": True}),
        ("norm", {"slerp": [1]}),
        ("knn", {"k": "many"}),
        ("tip", {"views": "some"}),
        ("svd", {"batch_size": "4"}),
        ("ridge", {"alpha": [1]}),
    ],
)
def test_a_value_of_another_kind_is_refused_in_words(name: str, options: dict):
    (option,) = options
    with pytest.raises(MedclipError, match=f"the option {option} of {name} is .*; it takes [a-z\\[]") as refused:
        find_method(name).check(options)
    assert refused.value.reason is Reason.WRONG_USE


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("svd", {"lr": 1, "layers": 99, "roles": "q", "text_layers": None, "flip": 0.5, "compat": "upstream"}),
        ("svd", {"layers": "10,11"}),
        ("svd", {"layers": [1, 2], "lr": None}),
        ("norm", {"slerp": [0, 0.5]}),
        ("knn", {"k": 3}),
        ("lda", {"shrinkage": "auto"}),
        ("tip", {"views": "each"}),
        ("zero-shot", {}),
    ],
)
def test_what_a_method_takes_is_taken(name: str, options: dict):
    find_method(name).check(options)


def test_defaults_are_of_the_kind_that_their_annotation_says():
    from inspect import signature

    for method in METHODS.values():
        module, function = method.target.split(":")
        fit = getattr(import_module(module), function)
        known = signature(fit).parameters
        defaults = {
            n: known[n].default for n in options_of(fit) if n in known and known[n].default is not known[n].empty
        }
        method.check(defaults)


@pytest.mark.parametrize("place", [place for name, place in FURTHER.items() if name != "loop"])
def test_defaults_of_further_options_are_of_the_kind_that_their_annotation_says(place: str):
    module, name = place.split(":")
    defaults = vars(getattr(import_module(module), name)())
    takers = [m for m in METHODS.values() if set(defaults) <= set(options_of(m._function()))]
    assert len(takers) == 2
    for method in takers:
        method.check(defaults)


@pytest.mark.parametrize("name", METHODS)
def test_a_rehearsal_reads_no_example_and_changes_nothing(name: str):
    text = words(3, ordered=find_method(name).of_steps)
    find_method(name).rehearse(tiny_model(text, context_length=24), text, {})


WRONG = [
    ("linear-probe", {"c": 0.0}),
    ("lp++", {"epochs": 0}),
    ("ridge", {"alpha": -1.0}),
    ("knn", {"k": 0}),
    ("lda", {"shrinkage": 2.0}),
    ("tip", {"alpha": 1.0}),
    ("tip", {"steps": [0, 5]}),
    ("tip-f", {"epochs": 0}),
    ("tip-f", {"lr": -1.0}),
    ("clip-adapter", {"ratio": 2.0}),
    ("clip-adapter", {"batch_size": 0}),
    ("coop", {"epochs": 0}),
    ("coop", {"words": ""}),
    ("coop", {"words": None, "num_vectors": 99}),
    ("cocoop", {"batch_size": 0}),
    ("cocoop", {"num_vectors": 99, "words": None}),
    ("biomedcoop", {"lr": -0.1}),
    ("svd", {"layers": "uppermost"}),
    ("svd", {"rank_ratio": 2.0}),
    ("svd", {"steps": 0}),
    ("svd", {"compat": "up"}),
    ("lora", {"rank": 0}),
    ("lora", {"layers": 99}),
    ("norm", {"batch_size": 0}),
    ("full", {"lr": -1.0}),
]


@pytest.mark.parametrize(("name", "options"), WRONG)
def test_what_an_option_cannot_be_is_refused_before_an_example_is_looked_at(name: str, options: dict):
    text = words(3)
    with pytest.raises(MedclipError) as refused:
        find_method(name).rehearse(tiny_model(text), text, options)
    assert refused.value.reason is Reason.WRONG_USE
    with pytest.raises(MedclipError) as again:
        find_method(name).fit(tiny_model(text), text, made_up(6), None, seed=0, **options)
    assert str(again.value) == str(refused.value)

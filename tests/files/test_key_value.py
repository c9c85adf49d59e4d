"""KEY=VALUE."""

from __future__ import annotations

import pytest

from medclip.errors import MedclipError
from medclip.files.key_value import key_values, read_overrides, read_value


def test_a_text_is_split_once_and_trimmed():
    assert key_values(["a = b=c", "sex:0=M"], "--set") == {"a": "b=c", "sex:0": "M"}


@pytest.mark.parametrize("text", ["a", "=b", "a=", " = "])
def test_what_has_not_the_form_is_refused_with_the_option_and_the_form(text: str):
    with pytest.raises(MedclipError, match=r"^--where takes COLUMN=VALUE, which"):
        key_values([text], "--where", "COLUMN=VALUE")


def test_a_key_is_named_once():
    with pytest.raises(MedclipError, match=r"^--set names 'a' a second time"):
        key_values(["a=1", "a=2"], "--set")


def test_values_are_numbers_words_lists_true_and_null():
    texts = ["1e-3", "20", "top", "null", "[q, v]", "true", "'20'", "-x", "nan"]
    assert [read_value(text, "--set") for text in texts] == [
        1e-3,
        20,
        "top",
        None,
        ["q", "v"],
        True,
        "20",
        "-x",
        "nan",
    ]
    with pytest.raises(MedclipError, match="of --set is not YAML"):
        read_value("[1", "--set")


def test_overrides_are_texts_as_on_the_command_line_or_values_by_their_key():
    assert read_overrides(["lr=1e-3", "data.weights={ct: 2}"]) == {"lr": 1e-3, "data.weights": {"ct": 2}}
    assert read_overrides({"lr": "1e-3"}) == {"lr": "1e-3"}  # a text that was given as one stays one
    assert read_overrides("lr=2") == {"lr": 2}
    assert read_overrides(()) == {}

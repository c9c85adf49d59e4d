"""What a call asks of the machine."""

from __future__ import annotations

from typing import Any

import pytest

from medclip.api.groups.running import settings_of
from medclip.api.score import ScoringOptions
from medclip.errors import MedclipError, Reason
from medclip.settings import PixelPolicy, ReadPolicy, Settings, parse_memory, parse_size, read_choices
from medclip.verbs import make_options


@pytest.mark.parametrize(
    ("size", "num_bytes"),
    [
        ("12GB", 12 * 10**9),
        ("500 MB", 5 * 10**8),
        ("1.5g", 15 * 10**8),
        ("8GiB", 8 * 2**30),
        ("500MiB", 500 * 2**20),
        (10**9, 10**9),
    ],
)
def test_a_size_is_read_as_people_write_it(size: int | str, num_bytes: int) -> None:
    assert parse_memory(size) == num_bytes


def test_a_size_that_is_no_memory_may_be_small() -> None:
    assert parse_size("50MB") == 50 * 10**6
    with pytest.raises(MedclipError, match="at least 100 MB"):
        parse_memory("50MB")


@pytest.mark.parametrize("size", ["", "much", "-4GB", "12", "99 MB", "4 PB", "60%", "1e9", float("nan")])
def test_what_is_no_size_is_refused_with_an_example(size: str) -> None:
    with pytest.raises(MedclipError, match="such as 12GB") as caught:
        parse_memory(size)
    assert caught.value.reason is Reason.WRONG_USE


def test_what_a_call_does_not_ask_for_stays_as_it_is() -> None:
    settings = Settings(workers=3, memory_bytes=10**9)
    assert settings.on_machine(None, None) == settings
    assert settings.on_machine(1, "2GB") == Settings(workers=1, memory_bytes=2 * 10**9, home=settings.home)


def test_a_mistyped_policy_is_asked_back() -> None:
    with pytest.raises(MedclipError) as caught:
        read_choices({"uneven_slices": "resampel"})
    assert (caught.value.reason, caught.value.hint) == (
        Reason.WRONG_USE,
        "Did you mean 'resample'? Say one of: reject, resample.",
    )


@pytest.mark.parametrize(
    "named",
    [{"mpp_um": 5000}, {"mpp_um": "much"}, {"accept_unterminated": 1}, {"uneven": "resample"}, {"crop": "none"}],
)
def test_what_is_no_policy_of_a_call_is_refused(named: dict[str, Any]) -> None:
    with pytest.raises(MedclipError) as caught:
        read_choices(named)
    assert caught.value.reason is Reason.WRONG_USE


def test_choices_have_one_form_whatever_they_are_named_in() -> None:
    expected = {"accept_unterminated": True, "mpp_um": 1.0}
    forms = (["mpp_um=1", "accept_unterminated=true"], {"accept_unterminated": True, "mpp_um": 1.0})
    for form in forms:
        made = make_options(ScoringOptions, {"path": "x", "reading": form})
        assert list(made.reading.items()) == list(expected.items())
        assert isinstance(made.reading["mpp_um"], float)


def test_a_call_changes_what_it_names_of_a_policy_and_nothing_else() -> None:
    mine = Settings(policy=ReadPolicy(PixelPolicy(window="none"), uneven_slices="resample", mpp_um=0.25))
    named = {"uneven_slices": "reject", "accept_unterminated": True}
    made = make_options(ScoringOptions, {"path": "x", "settings": mine, "reading": named})
    assert settings_of(made).policy == ReadPolicy(PixelPolicy(window="none"), mpp_um=0.25, accept_unterminated=True)


@pytest.mark.parametrize("named", [3, [3], None, [("mpp_um", 0.25)], {"mpp_um": "0.25"}, "mpp_um", "mpp_um=0"])
def test_what_names_no_choices_is_refused(named: Any) -> None:
    with pytest.raises(MedclipError) as caught:
        make_options(ScoringOptions, {"path": "x", "reading": named})
    assert caught.value.reason is Reason.WRONG_USE

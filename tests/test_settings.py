"""What a call asks of the machine."""

from __future__ import annotations

import pytest

from medclip.errors import MedclipError, Reason
from medclip.settings import Settings, parse_memory, read_policy


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
        read_policy("resampel")
    assert (caught.value.reason, caught.value.hint) == (
        Reason.WRONG_USE,
        "Did you mean 'resample'? Say one of: reject, resample.",
    )

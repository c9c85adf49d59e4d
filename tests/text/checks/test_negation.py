"""Denied mentions in sentences as reports have them."""

from __future__ import annotations

import pytest

from medclip.text.checks.negation import denied_spans


def spans_of(text: str, word: str) -> list[tuple[int, int]]:
    starts = [i for i in range(len(text)) if text.startswith(word, i)]
    return [(i, i + len(word)) for i in starts]


@pytest.mark.parametrize(
    ("text", "answers"),
    [
        ("no effusion.", [True]),
        ("no displaced rib fractures, pneumothorax, or large pleural effusion identified.", [True]),
        ("no pneumothorax. effusion on the left.", [False]),
        ("effusion is not seen", [True]),
        ("no mass of 1.5 cm or effusion", [True]),
        ("no mass of 1 . 5 cm or effusion", [True]),
        ("no mass? effusion", [False]),
        ("no fracture of t12. effusion", [False]),
        ("no mass but an effusion", [False]),
        ("effusion cannot be excluded", [False]),
        ("no effusion; effusion", [True, False]),
        ("effusion", [False]),
    ],
)
def test_a_denial_reaches_to_the_end_of_its_sentence_and_no_further(text: str, answers: list[bool]) -> None:
    assert denied_spans(text, spans_of(text, "effusion")) == answers

"""Denied mentions in sentences as reports have them."""

from __future__ import annotations

import pytest

from medclip.text.checks.negation import asked, denied_spans


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


@pytest.mark.parametrize(
    "text",
    [
        "no change in the left effusion",
        "no significant interval change in nodule or effusion.",
        "no change right effusion and nodule",
        "unchanged without significant interval change of the effusion",
        "no increase in effusion",
        "not only effusion",
        "ct without contrast shows an effusion",
        "intubated without difficulty, effusion",
        "ct to exclude an effusion",
        "effusion is not entirely excluded",
        "effusion has not resolved",
        "effusion has nearly completely resolved",
        "follow until effusion has resolved",
        "effusion and a resolved nodule",
        "edema has resolved and effusion is small",
        "heart has not changed, small effusion",
        "no edema other than an effusion",
        "no edema, stable effusion",
        "no edema and there is an effusion",
    ],
)
def test_a_word_of_denial_that_denies_something_else_leaves_the_mention(text: str) -> None:
    assert denied_spans(text, spans_of(text, "effusion")) == [False]


@pytest.mark.parametrize(
    "text",
    [
        "the effusion has resolved",
        "the effusion has now completely resolved.",
        "left effusions have since cleared",
        "effusion resolved",
        "effusion is no longer seen",
        "effusion is not visualized",
        "resolved effusion",
        "essentially resolved left effusion",
        "no change or effusion",
        "no acute changes, edema or effusion",
        "no edema but no effusion",
        "edema, but without an effusion",
        "no edema with no effusion",
    ],
)
def test_what_has_gone_and_what_a_second_word_denies_is_denied(text: str) -> None:
    assert denied_spans(text, spans_of(text, "effusion")) == [True]


@pytest.mark.parametrize(
    "text",
    [
        "effusion: none",
        "effusion: no. edema: mild",
        "effusion: absent.",
        "effusion: negative",
        "effusion: (-)",
        "effusion (-), edema",
        "effusion = 0.",
        "effusion - no",
        "effusion no.",
        "effusion none.",
        "effusion negative.",
        "effusion: not seen.",
        "is an effusion present? no.",
        "effusion cannot be seen",
    ],
)
def test_an_answer_of_no_denies_what_was_named_before_it(text: str) -> None:
    assert denied_spans(text, spans_of(text, "effusion")) == [True]


@pytest.mark.parametrize(
    "text",
    [
        "effusion: normal heart",
        "effusion: nodular",
        "effusion: no edema",
        "effusion: no change",
        "effusion: 0.5 cm",
        "effusion (10 mm)",
        "effusion: small. edema: none",
        "is an effusion present? yes. edema: none",
        "effusion? edema: none.",
    ],
)
def test_an_answer_to_something_else_denies_nothing(text: str) -> None:
    assert denied_spans(text, spans_of(text, "effusion")) == [False]


@pytest.mark.parametrize(
    ("sentence", "is_asked"),
    [
        ("is there an effusion", True),
        ("effusion?", True),
        ("edema, ? effusion", True),
        ("history of effusion", True),
        ("cough, h/o effusion", True),
        ("evaluate for effusion", True),
        ("ct to rule out effusion", True),
        ("rule out effusion", True),
        ("history of cough with effusion", False),
        ("edema. the effusion is small", False),
        ("effusion cannot be excluded", False),
        ("edema concerning for effusion", False),
        ("effusion (www.example.org/a?b=1)", False),
    ],
)
def test_what_is_asked_or_was_once_is_no_statement(sentence: str, is_asked: bool) -> None:
    ((start, end),) = spans_of(sentence, "effusion")
    assert asked(sentence[:start], sentence[end:]) is is_asked

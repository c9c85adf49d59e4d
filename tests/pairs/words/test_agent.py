from __future__ import annotations

import pytest

from medclip.pairs.words.agent import (
    AgentRefused,
    Answer,
    Edit,
    Revision,
    Usage,
    apply_edits,
    caption_patch,
    sentences_of,
)
from medclip.pairs.words.asking_agents import edits_of, revise_request
from medclip.pairs.words.patch_caption_check import Room

ROOM = Room(77, lambda text: len(text.split()))


class Scripted:
    def __init__(self, draft: str, edits: tuple[Edit, ...] = (), summary: str = "A caption.") -> None:
        self.draft, self.edits, self.summary, self.asked = draft, edits, summary, []

    def describe(self, patch):
        self.asked.append("describe")
        return Answer(self.draft, Usage(1, 10, 5, 0.5))

    def revise(self, patch, text):
        self.asked.append(("revise", text))
        return Revision(self.edits, Usage(1, 20, 5, 0.5))

    def summarise(self, text, room):
        self.asked.append(("summarise", text))
        return Answer(self.summary, Usage(1, 30, 5, 0.5))


def test_a_patch_is_described_revised_and_summarised_in_that_order():
    agent = Scripted("One.  Two.\nThree.", (Edit("delete", 1),), " A  caption. ")
    written = caption_patch(agent, None, ROOM)  # pyright: ignore
    assert agent.asked == ["describe", ("revise", "One. Two. Three."), ("summarise", "One. Three.")]
    assert (written.draft, written.revised, written.caption) == ("One. Two. Three.", "One. Three.", "A caption.")
    assert written.usage == Usage(3, 60, 15, 1.5)


def test_an_agent_that_says_nothing_or_takes_all_back_costs_its_patch():
    with pytest.raises(AgentRefused, match="described nothing"):
        caption_patch(Scripted("  "), None, ROOM)  # pyright: ignore
    with pytest.raises(AgentRefused, match="took back all"):
        caption_patch(Scripted("One.", (Edit("delete", 0),)), None, ROOM)  # pyright: ignore


def test_sentences_end_at_points_and_not_in_numbers():
    assert sentences_of("Nuclei of 5.5 µm, i.e. small. 33 of them.") == ["Nuclei of 5.5 µm, i.e. small.", "33 of them."]
    assert sentences_of("") == []


def test_sentences_are_deleted_changed_and_added_by_number():
    text = "One. Two. Three."
    assert apply_edits(text, [Edit("modify", 1, "2."), Edit("add", -1, "Zero."), Edit("add", 2, "Four.")]) == (
        "Zero. One. 2. Three. Four."
    )
    assert apply_edits(text, [Edit("delete", 0), Edit("add", 0, "First.")]) == "First. Two. Three."


def test_edits_of_sentences_that_do_not_exist_change_nothing():
    assert apply_edits("One.", [Edit("delete", 5), Edit("modify", -1, "x"), Edit("add", 7, "y")]) == "One."


def test_edits_are_understood_in_fences_and_prose_and_nonsense_is_none():
    assert edits_of('Sure!\n```json\n[{"kind":"delete","sentence":0}]\n```') == (Edit("delete", 0),)
    assert edits_of('[{"kind":"modify","sentence":1,"text":" Oval. "},{"kind":"move","sentence":1}]') == (
        Edit("modify", 1, "Oval."),
    )
    for nonsense in ("", "no", "[1, 2", '[{"kind":"add","sentence":"0"}]', '[{"kind":"add","sentence":0}]', "{}"):
        assert edits_of(nonsense) == ()


def test_the_request_for_edits_numbers_the_sentences():
    assert "0. One.\n1. Two." in revise_request("One. Two.")

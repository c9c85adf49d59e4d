"""Agents that rewrite a report as a caption: an endpoint or a model of this machine, asked in the way of pathgen's.

The words of the report leave this process for the address that was named, and for no other. An answer is a candidate
like others: what affirms a finding that the report denies, or one that it does not speak of, is refused with its
reason, and costs its own row alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medclip.pairs.words.agent import Answer
from medclip.pairs.words.asking_agents import AskingAgent, EndpointAgent, LocalAgent
from medclip.pairs.words.reports.caption_weights import polarity_fault
from medclip.pairs.words.reports.report_cleaning import entities
from medclip.text.free_text import aside, sentences

VERSION = 1
"""Raised when the request is worded otherwise."""


def rewrite_request(report: str, max_words: int) -> str:
    """Return the request for a caption of a report."""
    return (
        f"Rewrite this report of one medical image as a caption of at most {max_words} words, in plain sentences. "
        "State each finding as the report does: what it denies stays denied, and nothing is added. Keep sides, sizes "
        "and severities. Leave out earlier studies, dates, names, technique and advice. Answer with "
        "the caption alone.\n"
        f"{report}"
    )


@dataclass(frozen=True)
class ReportAgent:
    """Rewrites reports by asking."""

    asking: AskingAgent
    max_words: int = 60

    @property
    def identity(self) -> Mapping[str, Any]:
        """All that changes its texts; nothing secret."""
        assert isinstance(self.asking, EndpointAgent | LocalAgent)
        return {**self.asking.identity, "rewriting": VERSION, "max_words": self.max_words}

    def rewrite(self, report: str) -> Answer:
        """Ask for the caption of one report.

        Raises:
            AgentRefused: There will be no text for this report.
            MedclipError: The agent is not there any more.
        """
        answer = self.asking.ask(rewrite_request(report, self.max_words))
        return Answer(" ".join(answer.text.split()), answer.usage)


def fault_of_answer(text: str, report: str, modality: str = "", labels: Mapping[str, bool] | None = None) -> str:
    """Return why an agent's caption is refused; "" where it may stand.

    The reasons: `empty`, `polarity_conflict`, `invented_entity` for a finding that neither report nor labels speak of,
    and `prior_study` for words that no single image supports.
    """
    if not text.strip():
        return "empty"
    if fault := polarity_fault(text, report, modality, labels):
        return fault
    spoken_of = {*entities(report, modality), *(labels or {})}
    if set(entities(text, modality)) - spoken_of:
        return "invented_entity"
    if any(aside(sentence) in ("comparison", "placeholder", "talk", "date") for sentence in sentences(text, 1)):
        return "prior_study"
    return ""

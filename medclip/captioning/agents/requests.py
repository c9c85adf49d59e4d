"""What is asked of a vision-language model, and how its answers are understood, be it at an endpoint or here.

The image alone is described: a model that is told the findings repeats them, whatever the patch shows.
"""

from __future__ import annotations

import json
import re
from typing import Any

from medclip.captioning.agents.agent import Answer, CaptionedPatch, Edit, Revision, sentences_of
from medclip.captioning.checks.claims import AllowedClaims
from medclip.captioning.selection.prompts import ANY

VERSION = 1
"""Raised when a request is worded otherwise."""
SEEN = frozenset({"structure", "cell", "nucleus", "process"})
"""What a model that sees the image may claim; a diagnosis only where the slide's report has it."""
_KINDS = {"add", "delete", "modify"}
_FENCE = re.compile(r"```(?:json)?\s*(.*?)```", re.DOTALL)


def describe_request(patch: CaptionedPatch) -> str:
    """Return the request for a description."""
    width_um = patch.pixels.shape[1] * patch.mpp_um
    organ = "tissue" if patch.prompts.organ == ANY else f"{patch.prompts.organ} tissue"
    return (
        f"This is a histology patch of {organ}, {width_um:.0f} µm wide. Describe what it shows, in English and in "
        "plain sentences: cells, nuclei, architecture, stroma. State only what can be seen. Name no diagnosis, no "
        "patient, no stain other than haematoxylin and eosin, and do not speak of this request."
    )


def revise_request(text: str) -> str:
    """Return the request for edits of a description."""
    numbered = "\n".join(f"{number}. {sentence}" for number, sentence in enumerate(sentences_of(text)))
    return (
        "Compare these sentences with the image. Correct what the image does not show. Answer with a JSON list and "
        'nothing else; each entry is {"kind": "delete" | "modify" | "add", "sentence": NUMBER, "text": TEXT}. An empty '
        f"list changes nothing.\n{numbered}"
    )


def summarise_request(text: str, most_tokens: int) -> str:
    """Return the request for a caption."""
    return (
        f"Write one caption of at most {max(6, round(most_tokens * 0.55))} words from this description. Keep what "
        f"tells tissues apart. Answer with the caption alone.\n{text}"
    )


def edits_of(answer: str) -> tuple[Edit, ...]:
    """Understand an answer to `revise_request`; what is no edit is left out.

    Example:
        >>> edits_of('Here: [{"kind": "delete", "sentence": 1}]')
        (Edit(kind='delete', sentence=1, text=''),)
    """
    match = _FENCE.search(answer)
    content = match[1] if match else answer
    start, end = content.find("["), content.rfind("]")
    try:
        values: Any = json.loads(content[start : end + 1]) if 0 <= start < end else []
    except ValueError:
        return ()
    return tuple(edit for value in values if (edit := _edit(value)) is not None)


def _edit(value: Any) -> Edit | None:
    if not isinstance(value, dict) or value.get("kind") not in _KINDS or not isinstance(value.get("sentence"), int):
        return None
    text = value.get("text") or ""
    if not isinstance(text, str) or (value["kind"] != "delete" and not text.strip()):
        return None
    return Edit(value["kind"], value["sentence"], text.strip())


class AskingAgent:
    """Base of the agents that ask a model which sees the image; a subclass sends the requests."""

    measures: bool = False

    @property
    def allowed(self) -> AllowedClaims:
        """What can be seen."""
        return AllowedClaims(SEEN)

    def describe(self, patch: CaptionedPatch) -> Answer:
        """Ask for a description of the image."""
        return self._ask(describe_request(patch), patch)

    def revise(self, patch: CaptionedPatch, text: str) -> Revision:
        """Ask for edits; an answer that is no list of edits changes nothing."""
        answer = self._ask(revise_request(text), patch)
        return Revision(edits_of(answer.text), answer.usage)

    def _ask(self, request: str, patch: CaptionedPatch | None = None) -> Answer:
        raise NotImplementedError

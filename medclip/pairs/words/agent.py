"""The protocol of agents: describe a patch, revise the draft, summarise it for a text tower.

Each step is a call of its own, as in PathGen: what a describing model makes up, the revising one takes out again, and
the last makes it short enough. All that is paid for (calls, tokens, seconds) is counted in `Usage`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from medclip.imaging.slides.nuclei import NucleiMeasurements
from medclip.pairs.selection.patches import SelectionPrompts
from medclip.pairs.words.patch_caption_check import AllowedClaims, Room

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z0-9])")


@dataclass(frozen=True)
class Usage:
    """What was spent."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.calls + other.calls,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.seconds + other.seconds,
        )


@dataclass(frozen=True, eq=False)
class CaptionedPatch:
    """What an agent is shown."""

    pixels: NDArray[np.uint8]
    """RGB uint8 [H, W, 3], as scanned."""
    mpp_um: float
    prompts: SelectionPrompts
    """Organ, and what was asked of the slide; no agent is told the findings."""
    measured: NucleiMeasurements | None = None
    """With the stain vectors of the slide; of agents that ask for it."""
    measured_again: NucleiMeasurements | None = None
    """With the usual stain vectors."""


@dataclass(frozen=True)
class Edit:
    """One change of a draft."""

    kind: Literal["add", "delete", "modify"]
    sentence: int
    """Number of the sentence from 0; `add` puts the text behind it, and -1 puts it in front of all."""
    text: str = ""


@dataclass(frozen=True)
class Answer:
    """A text, and what it took."""

    text: str
    usage: Usage = field(default_factory=Usage)


@dataclass(frozen=True)
class Revision:
    """Changes, and what they took."""

    edits: tuple[Edit, ...]
    usage: Usage = field(default_factory=Usage)


class CaptionAgent(Protocol):
    """Who writes captions."""

    @property
    def name(self) -> str:
        """Short name, as in `--agent`."""
        ...

    @property
    def identity(self) -> Mapping[str, Any]:
        """All that changes its texts; no keys, and nothing secret."""
        ...

    @property
    def allowed(self) -> AllowedClaims:
        """What its captions may claim."""
        ...

    @property
    def at_once(self) -> int:
        """Patches that it works on at the same time."""
        ...

    @property
    def measures(self) -> bool:
        """Whether it is to be given measurements."""
        ...

    def describe(self, patch: CaptionedPatch) -> Answer:
        """Describe a patch.

        Raises:
            AgentRefused: There will be no text for this patch.
            MedclipError: The agent is not there any more: nothing else can be asked of it either.
        """
        ...

    def revise(self, patch: CaptionedPatch, text: str) -> Revision:
        """List what is to be changed in a description. Raises as `describe`."""
        ...

    def summarise(self, text: str, room: Room) -> Answer:
        """Make a description short enough. Raises as `describe`."""
        ...


class AgentRefused(Exception):
    """An agent has no usable answer for one patch; others may go well."""


@dataclass(frozen=True)
class WrittenCaption:
    """What became of one patch in the hands of an agent."""

    draft: str
    edits: tuple[Edit, ...]
    revised: str
    caption: str
    usage: Usage


def caption_patch(agent: CaptionAgent, patch: CaptionedPatch, room: Room) -> WrittenCaption:
    """Have one patch described, revised and summarised.

    Raises:
        AgentRefused: As `CaptionAgent.describe`; also for an empty description.
        MedclipError: As `CaptionAgent.describe`.
    """
    draft = agent.describe(patch)
    text = " ".join(draft.text.split())
    if not text:
        raise AgentRefused("the agent described nothing")
    revision = agent.revise(patch, text)
    revised = apply_edits(text, revision.edits)
    if not revised:
        raise AgentRefused("the agent took back all that it had described")
    summary = agent.summarise(revised, room)
    caption = " ".join(summary.text.split())
    return WrittenCaption(text, revision.edits, revised, caption, draft.usage + revision.usage + summary.usage)


def sentences_of(text: str) -> list[str]:
    """Cut a text at the ends of sentences.

    Example:
        >>> sentences_of("Nuclei of 5.5 µm. They are round.")
        ['Nuclei of 5.5 µm.', 'They are round.']
    """
    return [part for part in _SENTENCE_END.split(text.strip()) if part]


def apply_edits(text: str, edits: Sequence[Edit]) -> str:
    """Change a text sentence by sentence; edits of sentences that it has not are left out.

    Example:
        >>> apply_edits("One. Two.", [Edit("delete", 0), Edit("add", 1, "Three.")])
        'Two. Three.'
    """
    sentences = sentences_of(text)
    parts: dict[int, list[str]] = {-1: []} | {number: [sentence] for number, sentence in enumerate(sentences)}
    for edit in edits:
        if edit.sentence not in parts or (edit.kind != "add" and edit.sentence < 0):
            continue
        if edit.kind == "add":
            parts[edit.sentence].append(edit.text.strip())
        else:
            parts[edit.sentence][:1] = [edit.text.strip()] if edit.kind == "modify" else [""]
    return " ".join(part for number in sorted(parts) for part in parts[number] if part)

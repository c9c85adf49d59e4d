"""What a pack was never taught, in a reason that stands beside its answer: tasks, modalities, prompts about others."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from medclip.models.packs.manifest import read_config
from medclip.models.packs.words import unmeasured
from medclip.sample import spoken
from medclip.scoring.tasks import AskedTask
from medclip.text.checks.fact_words import MODALITIES
from medclip.text.checks.prompt_words import prompt_notes
from medclip.text.tokenizers.tokenizer import load_tokenizer
from medclip.text.vocabulary.own_words import Prompt
from medclip.wording import list_of


def modality_unlearned(modality: str, trained: Collection[str]) -> str:
    """Return why answers about a modality are worth little; blank where the card has it or names no modality.

    Example:
        >>> modality_unlearned("ct", ["mri", "xray"])
        'the model was trained on MRI and X-ray images, not on CT'
    """
    if not trained or modality in trained:
        return ""
    return f"the model was trained on {_listed(trained)} images, not on {spoken(modality)}"


def prompt_unlearned(prompt: Prompt, trained: Collection[str]) -> str:
    """Return why a prompt is beyond the model: it speaks of modalities that the card does not have.

    Example:
        >>> from medclip.text.vocabulary.own_words import read_prompts
        >>> prompt_unlearned(read_prompts("a CT with a lung nodule")[0], ["xray"])
        'the prompt speaks of CT, and the model was trained on X-ray images'
    """
    text = " | ".join(prompt.texts).lower()
    spoken_of = [str(name) for name, pattern in MODALITIES.items() if pattern.search(text)]
    if not trained or not spoken_of or set(spoken_of) & set(trained):
        return ""
    return f"the prompt speaks of {_listed(spoken_of)}, and the model was trained on {_listed(trained)} images"


def question_notes(card: Any, tasks: Sequence[AskedTask], pack: Path) -> tuple[str, ...]:
    """Write what a person should know of their questions before anything is read.

    Args:
        card: The pack's.
        tasks: Those of the run.
        pack: The pack's folder, for its tokenizer; read where there are prompts.

    Returns:
        Sentences: what the pack was never taught, words that may be misspelt, and prompts that are cut.
    """
    prompts = [prompt for asked in tasks for prompt in asked.prompts]
    text_cfg = read_config(pack)["model_cfg"].get("text_cfg") if prompts else None
    notes = [f"“{p.name}”: {reason}." for p in prompts if (reason := prompt_unlearned(p, card.modalities))]
    unlisted = [asked.task.title for asked in tasks if not asked.listed and not asked.prompts]
    if unlisted:
        notes.append(unmeasured(unlisted))
    if text_cfg is not None:
        notes += prompt_notes(prompts, load_tokenizer(pack, text_cfg))
    return tuple(notes)


def _listed(modalities: Collection[str]) -> str:
    return list_of([spoken(name) for name in modalities])

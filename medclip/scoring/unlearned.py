"""What a pack was never taught, in a reason that stands beside its answer: tasks, modalities, prompts about others."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from medclip.models.packs.card_sources import source_sentences
from medclip.models.packs.manifest import read_config
from medclip.models.packs.prompt_cautions import (
    card_cautions,
    card_classes,
    prompt_cautions,
    title_of,
    vocabulary_classes,
)
from medclip.models.packs.words import unmeasured
from medclip.runs.outputs.score_run import Unlearned
from medclip.sample import Modality, spoken
from medclip.scoring.tasks import AskedTask
from medclip.text.checks.fact_words import MODALITIES
from medclip.text.checks.prompt_words import prompt_notes, strange_words
from medclip.text.tokenizers.tokenizer import Tokenizer, load_tokenizer
from medclip.text.vocabulary.load import MODALITY_TASK
from medclip.text.vocabulary.own_words import Prompt
from medclip.wording import list_of

NO_TASK_OF_CARD = "this is no task of the model’s card"


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


def unlearned_answers(
    card: Any, tasks: Sequence[AskedTask], modalities: Collection[str], pack: Path
) -> tuple[Unlearned, ...]:
    """Return the answers of a run that are worth little, each with the reason.

    Args:
        card: The pack's.
        tasks: Those of the run.
        modalities: Of the studies that were scored.
        pack: The pack's folder, for its tokenizer; read where there are prompts.
    """
    prompts = [prompt for asked in tasks for prompt in asked.prompts]
    text_cfg = read_config(pack)["model_cfg"].get("text_cfg") if prompts else None
    tokenizer = None if text_cfg is None else load_tokenizer(pack, text_cfg)
    reasons = {p.name: _prompt_reason(p, card, tokenizer) for p in prompts}
    answers = []
    for modality in sorted(modalities):
        beyond = modality_unlearned(modality, card.modalities)
        for asked in tasks:
            name = asked.task.name
            if reason := beyond or _task_reason(card, asked, modality):
                answers.append(Unlearned(modality, name, None, reason))
                continue
            answers += [Unlearned(modality, name, p.name, reasons[p.name]) for p in asked.prompts if reasons[p.name]]
    return tuple(answers)


def _task_reason(card: Any, asked: AskedTask, modality: str) -> str:
    """Return why answers to a task that was named are worth little for a modality; blank for prompts."""
    if asked.prompts:
        return ""
    return measured_elsewhere(modality, card.tasks[asked.task.name].modalities) if asked.listed else NO_TASK_OF_CARD


def measured_elsewhere(modality: str, measured: Collection[str]) -> str:
    """Return why nobody knows how good a task is for a modality: its figures are of others; blank where they are not.

    Args:
        modality: Of the images.
        measured: As `TaskCard.modalities`.

    Example:
        >>> measured_elsewhere("xray", ["ct", "mri"])
        'the model’s card has figures of this for CT and MRI images, not for X-ray'
    """
    if not measured or modality in measured:
        return ""
    return f"the model’s card has figures of this for {_listed(measured)} images, not for {spoken(modality)}"


def _prompt_reason(prompt: Prompt, card: Any, tokenizer: Tokenizer | None) -> str:
    if reason := prompt_unlearned(prompt, card.modalities):
        return reason
    strange = strange_words(prompt, tokenizer) if tokenizer is not None else ()
    if strange:
        return f"the model does not know {list_of([f'“{word}”' for word in strange])}"
    return prompt_unlisted(prompt, {name: entry.classes for name, entry in card.tasks.items()})


def prompt_unlisted(prompt: Prompt, listed: Mapping[str, Collection[str]]) -> str:
    """Return why nobody knows how good the answer to a prompt is: it names no class that the card has a figure of.

    Args:
        prompt: As asked; what it is compared with is not looked at.
        listed: Classes of the card's tasks. Blank where there is none but the modality: of an imported pack nobody
            knows anything.

    Example:
        >>> from medclip.text.vocabulary.own_words import read_prompts
        >>> prompt_unlisted(read_prompts("an enlarged heart")[0], {"chest_xray_findings": ["pneumonia"]})
        'the model’s card has no figure for cardiomegaly'
    """
    if not any(names for task, names in listed.items() if task != MODALITY_TASK):
        return ""
    if card_classes(prompt.texts, listed):
        return ""
    if named := vocabulary_classes(prompt.texts):
        lacking = sorted({title_of(*pair).lower() for pair in named})
        return f"the model’s card has no figure for {list_of(lacking)}"
    return "it names nothing that the model’s card has a figure for"


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


def place_notes(card: Any, tasks: Sequence[AskedTask], modalities: Collection[str]) -> tuple[str, ...]:
    """Write which answers of a run may tell the place instead of the patient.

    Args:
        card: The pack's.
        tasks: Those of the run.
        modalities: Of the studies that were scored: of a task that none of them was asked nothing is said.

    Returns:
        A sentence for each task whose figures hold within their source only, and for each prompt that names a class of
        one.
    """
    scored = [Modality(name) for name in modalities]
    notes: list[str] = []
    for asked in tasks:
        if asked.listed and asked.task.name in card.tasks and any(map(asked.fits_modality, scored)):
            titles = {c.name: c.title for c in asked.task.classes}
            notes += source_sentences(asked.task.title, card.tasks[asked.task.name].sources, asked.names, titles)
    prompts = [prompt for asked in tasks for prompt in asked.prompts]
    for name, caution in prompt_cautions(prompts, card_cautions(card)).items():
        notes.append(
            f"“{name}”: the figure of what it names holds {caution}; elsewhere it may tell the place, not the patient."
        )
    return tuple(notes)


def _listed(modalities: Collection[str]) -> str:
    return list_of([spoken(name) for name in modalities])

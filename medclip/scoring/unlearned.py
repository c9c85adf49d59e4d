"""What a pack was never taught, in a reason that stands beside its answer: tasks, modalities, prompts about others."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from medclip.models.packs.card_sources import (
    ALL,
    WithinFigure,
    measured_of,
    measured_within,
    source_sentences,
    within_figures,
)
from medclip.models.packs.manifest import read_config
from medclip.models.packs.words import (
    NO_TASK_OF_CARD,
    card_cautions,
    card_classes,
    prompt_cautions,
    title_of,
    tried,
    tried_of_words,
    unanswered,
    unmeasured,
    vocabulary_classes,
)
from medclip.runs.outputs.score_run import Unlearned
from medclip.sample import Kind, Modality, spoken
from medclip.scoring.tasks import AskedTask
from medclip.text.checks.fact_words import MODALITIES
from medclip.text.checks.prompt_words import prompt_notes, strange_words
from medclip.text.tokenizers.tokenizer import Tokenizer, load_tokenizer
from medclip.text.vocabulary.load import MODALITY_TASK, load_task, task_names
from medclip.text.vocabulary.own_words import Prompt
from medclip.wording import list_of

UNKNOWN_KINDS: Mapping[str, Collection[Kind]] = MappingProxyType({})


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
    named = list_of(["another modality" if name == "other" else spoken(name) for name in spoken_of])
    return f"the prompt speaks of {named}, and the model was trained on {_listed(trained)} images"


def unlearned_answers(
    card: Any,
    tasks: Sequence[AskedTask],
    modalities: Collection[str],
    pack: Path,
    kinds: Mapping[str, Collection[Kind]] = UNKNOWN_KINDS,
    reasons: Mapping[str, str] | None = None,
) -> tuple[Unlearned, ...]:
    """Return the answers of a run that are worth little, each with the reason.

    Args:
        card: Card of the pack.
        tasks: Tasks of the run.
        modalities: Modalities of the studies that were scored.
        pack: The pack's folder, for its tokenizer; read where there are prompts.
        kinds: Kinds of the units that were scored, images or signals, by modality; not looked at where not known. An
            answer is worth little where none of them was measured.
        reasons: Reasons from `prompt_reasons`, where they are known; the pack's folder is not read then.
    """
    reasons = prompt_reasons(card, tasks, pack) if reasons is None else reasons
    answers = []
    for modality in sorted(modalities):
        beyond = modality_unlearned(modality, card.modalities)
        for asked in tasks:
            name = asked.task.name
            of = kinds.get(modality, ())
            if not any(asked.fits_kind(Modality(modality), kind) for kind in of or Kind):
                continue  # such units are not asked it
            if reason := beyond or _task_reason(card, asked, modality, of):
                of_class = {} if beyond or asked.listed else {c: tried(card, name, c) for c in asked.names}
                answers += [Unlearned(modality, name, c, t) for c, t in of_class.items() if t and t != reason]
                answers.append(Unlearned(modality, name, None, reason))
                continue
            for p in asked.prompts:
                reason = reasons[p.name]
                if not reason and (reason := elsewhere(card, prompt_tasks(p, card), modality, of)):
                    reason = "; ".join(filter(None, (reason, tried_of_words(card, p.texts))))
                if reason:
                    answers.append(Unlearned(modality, name, p.name, reason))
    return tuple(answers)


def prompt_reasons(
    card: Any, tasks: Sequence[AskedTask], pack: Path, tokenizer: Tokenizer | None = None
) -> dict[str, str]:
    """Return why the answers to prompts are worth little, by their names, whatever the image; blank for the others.

    Args:
        card: Card of the pack.
        tasks: Tasks of the run.
        pack: The pack's folder, for its tokenizer; read where there are prompts.
        tokenizer: Tokenizer of the pack, where it is loaded: loading a large one takes a tenth of a second and more.
    """
    prompts = [prompt for asked in tasks for prompt in asked.prompts]
    if prompts and tokenizer is None:
        text_cfg = read_config(pack)["model_cfg"].get("text_cfg")
        tokenizer = None if text_cfg is None else load_tokenizer(pack, text_cfg)
    return {prompt.name: _prompt_reason(prompt, card, tokenizer) for prompt in prompts}


def _task_reason(card: Any, asked: AskedTask, modality: str, kinds: Collection[Kind]) -> str:
    """Return why answers to a task are worth little for a modality; blank for prompts."""
    if asked.prompts:
        return ""
    if asked.listed:
        return elsewhere(card, [asked.task.name], modality, kinds)
    of = getattr(card, "not_claimed", {}).get(asked.task.name, {})
    return tried(card, asked.task.name) if ALL in of else NO_TASK_OF_CARD


def prompt_tasks(prompt: Prompt, card: Any) -> tuple[str, ...]:
    """Return the tasks of a card of which a prompt names a class."""
    listed = {name: entry.classes for name, entry in card.tasks.items()}
    return tuple(dict.fromkeys(task for task, _ in card_classes(prompt.texts, listed)))


def measured_on(card: Any, task: str) -> tuple[Modality, ...]:
    """Return the modalities that a card's figures of a task are of; none for a task of all of them.

    Where the card does not say, those that the question makes sense for.
    """
    stated = card.tasks[task].modalities
    return stated if stated or task not in task_names() else load_task(task).modalities


def elsewhere(card: Any, tasks: Sequence[str], modality: str, kinds: Collection[Kind] = ()) -> str:
    """Return why nobody knows how good an answer is for some units: what the card measured of it are others.

    Args:
        card: Card of the pack.
        tasks: Tasks of the card that the question is of; one that was measured on such units is enough.
        modality: Modality of the units.
        kinds: Kinds of the units, images or signals; empty where that is not known.

    Returns:
        Half a sentence, blank where such units were measured, and where there is no task.
    """
    here = [task for task in tasks if not (of := measured_on(card, task)) or modality in of]
    if not here:
        return measured_elsewhere(modality, sorted({name for task in tasks for name in measured_on(card, task)}))
    known = {kind for task in here for kind in card.tasks[task].kinds or Kind}
    if not kinds or known & {*kinds}:
        return ""
    of, others = (list_of([f"{kind}s" for kind in sorted(some)]) for some in (known, kinds))
    return f"the model’s card has figures of this for {spoken(modality)} {of}, not for {others}"


def measured_elsewhere(modality: str, measured: Collection[str]) -> str:
    """Return why nobody knows how good a task is for a modality: its figures are of others; blank where they are not.

    Args:
        modality: Modality of the images.
        measured: Modalities that the task was measured on, as in `TaskCard.modalities`.

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
    reason = prompt_unlisted(prompt, {name: entry.classes for name, entry in card.tasks.items()})
    return (tried_of_words(card, prompt.texts) if reason else "") or reason


def prompt_unlisted(prompt: Prompt, listed: Mapping[str, Collection[str]]) -> str:
    """Return why nobody knows how good the answer to a prompt is: it names no class that the card has a figure of.

    Args:
        prompt: Prompt as asked; what it is compared with is not looked at.
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
        card: Card of the pack.
        tasks: Tasks of the run.
        pack: The pack's folder, for its tokenizer; read where there are prompts.

    Returns:
        Sentences: what the pack was never taught, words that may be misspelt, and prompts that are cut.
    """
    prompts = [prompt for asked in tasks for prompt in asked.prompts]
    text_cfg = read_config(pack)["model_cfg"].get("text_cfg") if prompts else None
    notes = [f"“{p.name}”: {reason}." for p in prompts if (reason := prompt_unlearned(p, card.modalities))]
    notes += unmeasured(card, [asked.task for asked in tasks if not asked.listed and not asked.prompts])
    if text_cfg is not None:
        notes += prompt_notes(prompts, load_tokenizer(pack, text_cfg))
    return tuple(notes)


def kind_notes(card: Any, tasks: Sequence[AskedTask], kinds: Mapping[str, Collection[Kind]]) -> tuple[str, ...]:
    """Write which answers are of some kinds of units that were measured and of others that were not.

    Args:
        card: Card of the pack.
        tasks: Tasks of the run; of what it asks by itself there is nothing to say.
        kinds: Kinds of the units that were scored, by modality, as `unlearned_answers` takes them.

    Returns:
        A sentence for each such question, modality and kind.
    """
    questions = [(f"“{p.name}”", prompt_tasks(p, card)) for asked in tasks for p in asked.prompts]
    named = [one for one in tasks if one.listed and not one.kinds and one.task.name in card.tasks]
    questions += [(one.task.title, (one.task.name,)) for one in named]
    notes = []
    for modality, of in sorted(kinds.items()):
        for title, names in questions:
            reasons = [elsewhere(card, names, modality, [kind]) for kind in sorted(of)]
            if not all(reasons):
                notes += [f"{title}: {reason}." for reason in reasons if reason]
    return tuple(notes)


def unanswered_notes(tasks: Sequence[AskedTask], modalities: Collection[str]) -> tuple[str, ...]:
    """Write which classes of the tasks of a run its card does not list: nobody should take silence for a "no".

    Args:
        tasks: Tasks of the run.
        modalities: Modalities of the studies that were scored: of a task that none of them was asked nothing is said.

    Returns:
        A sentence for each task of the card that has fewer classes than the vocabulary.
    """
    asked_of = [one for one in tasks if one.listed and any(one.fits_modality(Modality(name)) for name in modalities)]
    named = [(one, unanswered(one.task.name, one.names)) for one in asked_of]
    return tuple(f"{one.task.title}: {lacking}." for one, lacking in named if lacking)


def place_notes(card: Any, tasks: Sequence[AskedTask], modalities: Collection[str]) -> tuple[str, ...]:
    """Write which answers of a run may tell the place instead of the patient.

    Args:
        card: Card of the pack.
        tasks: Tasks of the run.
        modalities: Modalities of the studies that were scored: of a task that none of them was asked nothing is said.

    Returns:
        A note for each task whose figures hold within their source only, and for each prompt that names a class of
        one, with the figure within that source; none where a task was measured on other modalities alone.
    """

    def is_of(name: str) -> bool:
        of = measured_on(card, name)
        return not of or any(modality in of for modality in scored)

    scored = [Modality(name) for name in modalities]
    notes: list[str] = []
    for asked in tasks:
        name = asked.task.name
        if asked.listed and name in card.tasks and is_of(name):
            titles, sources = {c.name: c.title for c in asked.task.classes}, card.tasks[name].sources
            notes += source_sentences(asked.task.title, sources, asked.names, titles, measured_of(card, name))
    prompts = [prompt for asked in tasks for prompt in asked.prompts]
    cautions = {task: of for task, of in card_cautions(card).items() if is_of(task)}
    for prompt in prompts:
        for caution in prompt_cautions([prompt], cautions).values():
            within = dict(_measured_within(card, *pair) for pair in card_classes(prompt.texts, cautions))
            of = within.items() if len(within) > 1 else [("", figures) for figures in within.values()]
            notes.append(
                f"“{prompt.name}”: the figure of what it names holds {caution}{measured_within(of)}. Elsewhere it may "
                "tell the place, not the patient. The figure is of the task’s own wording, not of these words, whose "
                "probability is another."
            )
    return tuple(notes)


def _measured_within(card: Any, task: str, name: str) -> tuple[str, tuple[WithinFigure, ...]]:
    """Return what the figures within the sources of a class are of, it or its whole task, and these figures."""
    sources = card.tasks[task].sources
    what = title_of(task, name) if name in sources else load_task(task).title if task in task_names() else task
    return what, within_figures(measured_of(card, task), sources, name)


def _listed(modalities: Collection[str]) -> str:
    return list_of([spoken(name) for name in modalities])

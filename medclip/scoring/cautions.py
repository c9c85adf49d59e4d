"""Answers that are grey and why, in the words of the report: never learned, of one source alone, or not measured.

A run as a whole is told where many of its images lie far from those that the pack learned from. The test is Wilson's
interval of the share of images that lie beyond a distance of 1, at the number of studies: of images like those at home
one in twenty does. A sentence is written where the share is at least `LEAST_SHARE` and the interval lies above twice of
what is expected, so that a folder of the pack's own source has one about never.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Any

from medclip.models.packs.card_sources import (
    ALL,
    WithinFigure,
    measured_of,
    measured_within,
    source_sentences,
    why_unmeasured,
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
from medclip.models.prototypes.home_images import WITHIN, load_homes
from medclip.runs.ledger.ledger import Ledger
from medclip.runs.outputs.score_run import NOT_LEARNED, Unlearned, not_learned
from medclip.sample import Kind, Modality, every_modality, spoken
from medclip.scoring.tasks import AskedTask
from medclip.text.checks.closed_words import modality_words
from medclip.text.checks.prompt_words import prompt_notes, strange_words
from medclip.text.tokenizers.tokenizer import Tokenizer, load_tokenizer
from medclip.text.vocabulary.load import MODALITY_TASK, load_task, task_names
from medclip.text.vocabulary.own_words import AD_HOC, Prompt, ad_hoc_task
from medclip.wording import count, list_of, number, percent_of

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
    spoken_of = [str(name) for name, pattern in modality_words().items() if pattern.search(text)]
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
        for question in tasks:
            name = question.task.name
            of = kinds.get(modality, ())
            if not any(question.fits_kind(Modality(modality), kind) for kind in of or Kind):
                continue  # such units are not asked it
            if reason := beyond or _task_reason(card, question, modality, of):
                of_class = {} if beyond or question.listed else {c: tried(card, name, c) for c in question.names}
                answers += [Unlearned(modality, name, c, t) for c, t in of_class.items() if t and t != reason]
                answers.append(Unlearned(modality, name, None, reason))
                continue
            for p in question.prompts:
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
    prompts = [prompt for question in tasks for prompt in question.prompts]
    if prompts and tokenizer is None:
        text_cfg = read_config(pack)["model_cfg"].get("text_cfg")
        tokenizer = None if text_cfg is None else load_tokenizer(pack, text_cfg)
    return {prompt.name: _prompt_reason(prompt, card, tokenizer) for prompt in prompts}


def _task_reason(card: Any, question: AskedTask, modality: str, kinds: Collection[Kind]) -> str:
    """Return why answers to a task are worth little for a modality; blank for prompts."""
    if question.prompts:
        return ""
    if question.listed:
        return elsewhere(card, [question.task.name], modality, kinds)
    of = getattr(card, "not_claimed", {}).get(question.task.name, {})
    return tried(card, question.task.name) if ALL in of else NO_TASK_OF_CARD


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
    measured_kinds = {kind for task in here for kind in card.tasks[task].kinds or Kind}
    if not kinds or measured_kinds & {*kinds}:
        return ""
    of, others = (list_of([f"{kind}s" for kind in sorted(some)]) for some in (measured_kinds, kinds))
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
    prompts = [prompt for question in tasks for prompt in question.prompts]
    text_cfg = read_config(pack)["model_cfg"].get("text_cfg") if prompts else None
    notes = [f"“{p.name}”: {reason}." for p in prompts if (reason := prompt_unlearned(p, card.modalities))]
    notes += unmeasured(card, [question.task for question in tasks if not question.listed and not question.prompts])
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
    questions = [(f"“{p.name}”", prompt_tasks(p, card)) for question in tasks for p in question.prompts]
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


def none_notes(tasks: Sequence[AskedTask], modalities: Collection[str]) -> tuple[str, ...]:
    """Write which questions of a run have no answer for an image that shows none of their classes.

    Args:
        tasks: Tasks of the run.
        modalities: Modalities of the studies that were scored: of a task that none of them was asked nothing is said.
    """
    asked = [one.task for one in tasks if any(one.fits_modality(Modality(name)) for name in modalities)]
    return tuple(f"{task.title}: {task.none_in_words}, and one is answered." for task in asked if task.none_in_words)


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
    for question in tasks:
        name = question.task.name
        if question.listed and name in card.tasks and is_of(name):
            titles, sources = {c.name: c.title for c in question.task.classes}, card.tasks[name].sources
            notes += source_sentences(question.task.title, sources, question.names, titles, measured_of(card, name))
    prompts = [prompt for question in tasks for prompt in question.prompts]
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


def word_notes(card: Any, tasks: Sequence[AskedTask], modalities: Collection[str]) -> tuple[str, ...]:
    """Write which answers of a run words would give that are not the question's own, by the card's word control.

    Args:
        card: Card of the pack.
        tasks: Tasks of the run.
        modalities: Modalities of the studies that were scored: of a task that was measured on none of them nothing is
            said.

    Returns:
        A sentence for each task, finding or prompt whose images on the card other words rank as well.
    """
    asked: dict[tuple[str, str], str] = {}
    listed = {name: entry.classes for name, entry in card.tasks.items()}
    for question in tasks:
        if question.listed and question.task.name in card.tasks:
            controls = card.tasks[question.task.name].word_control
            title = question.task.title
            titles = {ALL: title} | {c.name: f"{title}, {c.title}" for c in question.task.classes}
            asked |= {(question.task.name, name): titles[name] for name in (ALL, *question.names) if name in controls}
        for prompt in question.prompts:
            for task, name in card_classes(prompt.texts, listed):
                asked[task, name if name in card.tasks[task].word_control else ALL] = f"“{prompt.name}”"
    notes = []
    for (task, name), title in asked.items():
        control, of = card.tasks[task].word_control.get(name), measured_on(card, task)
        if control is not None and control.on_card and (not of or {*of} & {*modalities}):
            listed_as = control.listed_as(name)
            notes.append(
                f"{title}: {control.on_card}; so it is listed as “{listed_as}”."
                if listed_as
                else f"{title}: {control.on_card}."
            )
    return tuple(notes)


def _measured_within(card: Any, task: str, name: str) -> tuple[str, tuple[WithinFigure, ...]]:
    """Return what the figures within the sources of a class are of, it or its whole task, and these figures."""
    sources = card.tasks[task].sources
    what = title_of(task, name) if name in sources else load_task(task).title if task in task_names() else task
    return what, within_figures(measured_of(card, task), sources, name)


def _listed(modalities: Collection[str]) -> str:
    return list_of([spoken(name) for name in modalities])


Cautions = Mapping[tuple[str, str, str, str], str]
"""By modality of the study, kind of its first unit, task and class; none of an answer like any other."""


def answer_cautions(card: Any, tasks: Sequence[AskedTask], pack: Path, tokenizer: Tokenizer | None = None) -> Cautions:
    """Return why answers of a run are grey: it depends on the question and on what a unit is, and on no other unit.

    What was never learned comes first, then what holds within its source only, then what nobody has measured.

    Args:
        card: Card of the pack.
        tasks: Tasks of the run.
        pack: The pack's folder, for its tokenizer; read where there are prompts.
        tokenizer: Tokenizer of the pack, where it is loaded.
    """
    of_prompts, modalities = prompt_reasons(card, tasks, pack, tokenizer), every_modality()
    unlearned = {
        kind: unlearned_answers(card, tasks, modalities, pack, dict.fromkeys(modalities, (kind,)), of_prompts)
        for kind in Kind
    }
    of_card = card_cautions(card)
    cautions: dict[tuple[str, str, str, str], str] = {}
    for question in tasks:
        task, entry = question.task.name, card.tasks.get(question.task.name)
        if task == AD_HOC:
            beside = prompt_cautions(question.prompts, of_card)
        else:
            beside = dict(of_card.get(task, {}))
            if entry is not None and not measured_of(card, task):
                beside |= {name: why_unmeasured(entry.note) for name in question.names if name not in beside}
        for modality, kind, name in product(Modality, Kind, question.names):
            reasons = (one.reason for one in unlearned[kind] if one.is_about(modality, task, name))
            reason = next((f"{NOT_LEARNED}{reason}" for reason in reasons), beside.get(name, ""))
            if reason:
                cautions[modality, kind, task, name] = reason
    return cautions


def beside_stranger(caution: str | None, modality: str) -> str:
    """Return what stands beside the answer to words about an image of no stated body part that looks like no other.

    Args:
        caution: Caution beside such answers to images that the model knows; one that says that it was never learned
            stays.
        modality: Modality of the image.
    """
    if caution and not_learned(caution):
        return caution
    return (
        f"{NOT_LEARNED}nothing states the body part, and the image does not look like the {spoken(modality)} images "
        "that the model has seen"
    )


def beside_other_scale(caution: str | None) -> str:
    """Return what stands beside an answer about an ECG record whose amplitudes are no millivolts.

    Args:
        caution: Caution beside such answers to other records; one that says that it was never learned stays.
    """
    if caution and not_learned(caution):
        return caution
    return f"{NOT_LEARNED}the amplitudes of the record are not those of an ECG in mV, whatever its file says"


def asked_words(words: Sequence[str], without: Sequence[str] = ()) -> AskedTask:
    """Return words that images are ranked by as the prompt that a run would ask, for `answer_cautions` and notes.

    Args:
        words: Ways to say what is looked for.
        without: Words for what is not looked for; where nothing else is in words, these are the prompt.
    """
    texts = tuple(words or without)
    prompt = Prompt(texts[0], texts, tuple(without))
    return AskedTask(ad_hoc_task([prompt]), None, None, listed=False, prompts=(prompt,))


KEY = "far_notes"
"""What the ledger remembers the sentences under."""
FEWEST_STUDIES = 10
LEAST_SHARE = 0.2
_MAKERS_SHOWN = 5
_NOUNS = {
    "xray": "radiograph",
    "mri": "MR image",
    "ct": "CT image",
    "fundus": "fundus photograph",
    "mammography": "mammogram",
    "ultrasound": "ultrasound image",
    "ecg": "ECG",
}


def far_notes(ledger: Ledger, pack: Path) -> tuple[str, ...]:
    """Write what is to be known of a run whose images come from elsewhere, or look so.

    Returns:
        A sentence for each modality that it is true of; where it is not true of all its images, for each maker of
        devices whose images it is true of: one new scanner among many is seen, too.
    """
    homes = load_homes(pack)
    counts: dict[str, dict[str, tuple[int, int, int]]] = {}
    for modality, maker, *numbers in ledger.far_counts() if homes else ():
        if modality in homes:
            counts.setdefault(modality, {})[maker] = (numbers[0], numbers[1], numbers[2])
    notes = []
    for modality, by_maker in counts.items():
        num_images, num_far, num_studies = (sum(column) for column in zip(*by_maker.values(), strict=True))
        source = homes[modality].source
        if is_far(num_images, num_far, num_studies):
            notes.append(_note(modality, source, "", num_images, num_far, _shares(by_maker)))
            continue
        for maker, numbers in by_maker.items():
            if maker and is_far(*numbers):
                notes.append(_note(modality, source, f" by {maker}", *numbers[:2], ""))
    return tuple(notes)


def is_far(num_images: int, num_far: int, num_studies: int) -> bool:
    """Return whether so many images lie far from home that it is no chance.

    Args:
        num_images: Images with a distance.
        num_far: Images whose distance is above 1.
        num_studies: Studies, or patients, that the images are of.
    """
    if num_studies < FEWEST_STUDIES or num_far < LEAST_SHARE * num_images:
        return False
    from scipy.special import ndtri  # a run whose images are near shall not pay for it

    from medclip.statistics.estimate import LEVEL
    from medclip.statistics.resampling.intervals import wilson

    low, _ = wilson(num_far / num_images, float(num_studies), float(ndtri((1 + LEVEL) / 2)))
    return float(low) > 2 * (1 - WITHIN)


def _note(modality: str, source: str, by: str, num_images: int, num_far: int, shares: str) -> str:
    noun = _NOUNS.get(modality, f"image ({modality})")
    return (
        f"{number(num_far)} of {count(num_images, noun)}{by} ({percent_of(num_far, num_images)}) are unlike those that "
        f"this model's figures were measured on ({source}), of which one in twenty is as far from the rest: they come "
        f"from elsewhere, or look so.{shares} The figures on the card do not speak for them; measure it on studies of "
        "your own whose truth is known."
    )


def _shares(by_maker: Mapping[str, tuple[int, int, int]]) -> str:
    """Write how many it are by maker, where headers name several."""
    named = {maker: numbers for maker, numbers in by_maker.items() if maker}
    if len(named) < 2:
        return ""
    ordered = sorted(named.items(), key=lambda item: (-item[1][1] / item[1][0], item[0]))
    shares = [f"{maker} {number(num_far)} of {number(num_images)}" for maker, (num_images, num_far, _) in ordered]
    return f" By maker: {list_of(shares, most=_MAKERS_SHOWN)}."

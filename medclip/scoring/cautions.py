"""What stands beside an answer in a table of results: why it is grey, in the words of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from medclip.models.packs.card_sources import measured_of, why_unmeasured
from medclip.models.packs.words import card_cautions, prompt_cautions
from medclip.runs.outputs.score_run import NOT_LEARNED, not_learned
from medclip.sample import Kind, Modality, spoken
from medclip.scoring.tasks import AskedTask
from medclip.scoring.unlearned import prompt_reasons, unlearned_answers
from medclip.text.tokenizers.tokenizer import Tokenizer
from medclip.text.vocabulary.own_words import AD_HOC, Prompt, ad_hoc_task

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
    of_prompts, modalities = prompt_reasons(card, tasks, pack, tokenizer), list(Modality)
    unlearned = {
        kind: unlearned_answers(card, tasks, modalities, pack, dict.fromkeys(modalities, (kind,)), of_prompts)
        for kind in Kind
    }
    of_card = card_cautions(card)
    cautions: dict[tuple[str, str, str, str], str] = {}
    for asked in tasks:
        task, entry = asked.task.name, card.tasks.get(asked.task.name)
        if task == AD_HOC:
            beside = prompt_cautions(asked.prompts, of_card)
        else:
            beside = dict(of_card.get(task, {}))
            if entry is not None and not measured_of(card, task):
                beside |= {name: why_unmeasured(entry.note) for name in asked.names if name not in beside}
        for modality, kind, name in product(Modality, Kind, asked.names):
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


def asked_words(words: Sequence[str], without: Sequence[str] = ()) -> AskedTask:
    """Return words that images are ranked by as the prompt that a run would ask, for `answer_cautions` and notes.

    Args:
        words: Ways to say what is looked for.
        without: Words for what is not looked for; where nothing else is in words, these are the prompt.
    """
    texts = tuple(words or without)
    prompt = Prompt(texts[0], texts, tuple(without))
    return AskedTask(ad_hoc_task([prompt]), None, None, listed=False, prompts=(prompt,))

"""The heads that a run learned, put into its pack: `score`, `evaluate` and `audit` then answer with them."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.adaptation.data.class_text import ClassText, class_text
from medclip.adaptation.data.heads import HazardHead, LinearHead, load_head
from medclip.adaptation.pack.adapted_model import label_of
from medclip.adaptation.pack.pack_head import (
    HEAD_FILE,
    HEADS_FILE,
    HEADS_TABLE,
    SHOTS_FILE,
    TASK_FILE,
    arrays_of,
    heads_table,
    read_arrays,
)
from medclip.errors import MedclipError
from medclip.files.tables.write import defused_text
from medclip.models.packs.card import Adaptation, Card, TaskCard, read_card, training_hashes
from medclip.models.packs.manifest import pack_digest
from medclip.models.packs.pack import find_pack, pack_card, update_pack
from medclip.text.vocabulary.find_task import to_yaml
from medclip.text.vocabulary.task import outcome_word
from medclip.training.recipe.schema import Recipe
from medclip.wording import count, list_of

METHOD, TITLE = "finetune", "fine-tuning"
DEVIATIONS = (
    "Weights are chosen on validation patients and tested once; upstream takes the best of its test figures.",
    "What RandAugment moves in from outside is black, where timm fills in the mean.",
    "The warm-up counts the step that is taken: its first rate is not 0.",
)
"""Where fine-tuning differs from the published code of medical MAE."""


def add_heads(pack: Path, recipe: Recipe, weights: Path) -> Card:
    """Write the heads of a run that its pack answers with into the pack, and seal it again.

    Of one head its task and the list of files lie beside it.

    Args:
        pack: Pack that the trainer exported.
        recipe: Recipe of the run.
        weights: The arrays of the heads, as TASK/ARRAY.

    Returns:
        The pack's new card.
    """
    answering = recipe.objective.answering
    texts = {head.asked.name: class_text(head.asked, head.names) for head in answering}
    every, kinds = read_arrays(weights), {name: _kind(text) for name, text in texts.items()}
    heads = {name: load_head(kinds[name], arrays_of(every, name)).arrays() for name in texts}
    card, base = read_card(pack), _base(recipe)
    learned = {
        name: list(_learned_from(recipe, text, head.sources))
        for head, (name, text) in zip(answering, texts.items(), strict=True)
    }
    changes: dict[str, Any] = {
        "tasks": {**card.tasks, **{name: _entry(text) for name, text in texts.items()}},
        "summary": card.summary or _summary(base[0], list(texts.values()), list(learned.values())),
        "limits": (*card.limits, *(_limit(text, learned[name]) for name, text in texts.items())),
    }
    if len(texts) == 1:
        ((name, text),) = texts.items()
        changes["adapted"] = _adaptation(recipe, text, learned[name], card, base)
        files = {
            HEAD_FILE: _bytes(heads[name]),
            TASK_FILE: to_yaml(text.task).encode(),
            SHOTS_FILE: _csv(learned[name]).encode(),
        }
    else:
        of_task = {f"{task}/{name}": value for task, arrays in heads.items() for name, value in arrays.items()}
        files = {HEADS_FILE: _bytes(of_task), HEADS_TABLE: heads_table(texts, kinds).encode()}
    card = card.model_copy(update=changes)
    update_pack(pack, card=card, extra_files=files)
    return card


def _kind(text: ClassText) -> str:
    return HazardHead.kind if text.rules.timed else LinearHead.kind


def _entry(text: ClassText) -> TaskCard:
    titles = {name: text.task.class_named(name).title for name in text.names}
    return TaskCard.model_validate({"classes": text.names, "title": text.task.title, "class_titles": titles})


def _bytes(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    from safetensors.numpy import save

    return save({name: np.ascontiguousarray(value) for name, value in arrays.items()})


def _learned_from(recipe: Recipe, text: ClassText, sources: Sequence[str]) -> Iterator[tuple[str, str, str, str]]:
    """Yield sha256, patient, role and label of each image with a label that was learned from or chosen with.

    Args:
        recipe: Recipe of the run.
        text: Classes that the head answers.
        sources: Sources that it learned from; all where empty.
    """
    d = recipe.data
    for role, split in (("train", d.train_split), ("val", d.val_split)):
        if split is None:
            continue
        with d.open_split(split, verify="none") as reader:
            for i, row in enumerate(reader.provenance()):
                if sources and row["source"] not in sources:
                    continue
                try:
                    labels = reader.record(i)[0].labels.get(text.task.name)
                except MedclipError:  # damaged, as the log of the run says
                    continue
                if label := _label(labels, text):
                    yield from ((sha256, row["patient"] or "", role, label) for sha256 in row["files"])


def _label(answer: str | Mapping[str, int] | None, text: ClassText) -> str:
    if isinstance(answer, str):
        return answer if answer in text.names else ""
    if text.rules.timed:
        return outcome_word(answer) if answer else ""
    values = tuple((answer or {}).get(name) for name in text.names)
    return label_of(text, values)


def _adaptation(
    recipe: Recipe, text: ClassText, rows: list[tuple[str, str, str, str]], card: Card, base: tuple[str, str, str]
) -> Adaptation:
    train = [label for _, _, role, label in rows if role == "train"]
    answers = (label.split(";") if text.rules.independent else [label] for label in train)
    return Adaptation(
        task=text.task.name,
        method=METHOD,
        title=TITLE,
        head=_kind(text),
        changed_towers=True,
        base=base[0],
        base_version=base[1],
        base_digest=base[2],
        shots=None,
        seed=recipe.seed,
        init_seed=recipe.seed,
        num_train=len(train),
        num_val=len(rows) - len(train),
        num_in_training=_num_in_training(recipe, rows),
        num_train_by_class=dict(sorted(Counter(part for of_row in answers for part in of_row).items())),
        num_trainable=None,
        settings={"recipe": card.created_from["recipe"]},
        deviations=DEVIATIONS,
        shots_file=SHOTS_FILE,
    )


def _base(recipe: Recipe) -> tuple[str, str, str]:
    """Return name, version and digest of what the run began with; a tower's name alone for one of timm."""
    m = recipe.model
    start = m.start or m.image_weights
    try:
        place = find_pack(start or "")
    except MedclipError:
        return (m.image_tower if m.start is None else Path(m.start).name), "", ""
    card = pack_card(place)
    return card.name, card.version, pack_digest(place)


def _num_in_training(recipe: Recipe, rows: list[tuple[str, str, str, str]]) -> int | None:
    """Count the images that the start was trained on, without these labels; None where it does not list its files."""
    m = recipe.model
    if m.start is None and m.image_weights is None:  # random weights
        return 0
    try:
        place = find_pack(m.start or m.image_weights or "")
    except MedclipError:
        return None
    hashes = training_hashes(place, pack_card(place))
    return None if hashes is None else sum(sha256 in hashes for sha256, _, _, _ in rows)


def _summary(base: str, texts: list[ClassText], learned: list[list[tuple[str, str, str, str]]]) -> str:
    patients = len({patient for rows in learned for _, patient, role, _ in rows if role == "train"})
    titles = list_of([f"“{text.task.title}”" for text in texts])
    return f"{base} fine-tuned for {titles} on images of {count(patients, 'patient')}."


def _limit(text: ClassText, rows: list[tuple[str, str, str, str]]) -> str:
    patients = len({patient for _, patient, role, _ in rows if role == "train"})
    return (
        f"“{text.task.title}” was learned from {count(patients, 'patient')} of one table. Its figures are over other "
        "patients of the same table; elsewhere they may be worse."
    )


def _csv(rows: list[tuple[str, str, str, str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("sha256", "patient", "role", "label"))
    writer.writerows((*facts, defused_text(label)) for *facts, label in rows)
    return text.getvalue()

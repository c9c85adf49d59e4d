"""Merge packs into one: which method, what it needs, the pack that is written, and its unmeasured card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.files.output import claim_folder, in_use
from medclip.lazy import import_name
from medclip.models.merging.ingredients import (
    STATISTICS,
    Figure,
    Ingredient,
    Lessons,
    MergedWeights,
    Plan,
    check_line,
    read_ingredient,
    refuse_different,
    towers_of,
)
from medclip.models.merging.merges import MERGES
from medclip.models.packs.card import (
    ANCESTORS,
    MERGED_FROM,
    Card,
    Source,
    SplitFigures,
    TaskCard,
    licence_files,
    training_hashes,
    training_patients,
)
from medclip.models.packs.card_citations import united
from medclip.models.packs.manifest import FILE_NAME as MANIFEST
from medclip.models.packs.manifest import pack_digest
from medclip.models.packs.pack import read_preprocess, save_pack
from medclip.models.packs.words import has_text_tower
from medclip.version import __version__
from medclip.wording import list_of

if TYPE_CHECKING:
    from medclip.models.merging.ingredients import Ingredient


def plan_merge(
    packs: Sequence[str | Path],
    *,
    method: str = "soup",
    base: str | Path | None = None,
    alpha: float | None = None,
    min_gain: float = 0.0,
) -> Plan:
    """Read packs and refuse what cannot be merged.

    Args:
        packs: Names or folders, for OPCM in the order in which they came; the first may be what an earlier OPCM made.
        method: Method, one of `MERGES`.
        base: The pack that all of them began with, for methods that need it.
        alpha: Share, of what the method has it of; 0.5 where None.
        min_gain: Gain by which a greedy soup must become better with a pack.

    Raises:
        MedclipError: WRONG_USE for what does not go together; PACK_INVALID naming the first tensor that differs; what
            reading a pack raises.
    """
    if method not in MERGES:
        hint = did_you_mean(method, MERGES, "Methods are")
        raise MedclipError(Reason.WRONG_USE, f"there is no method {method!r} of merging.", hint=hint)
    row = MERGES[method]
    if row.needs_base != (base is not None):
        raise MedclipError(
            Reason.WRONG_USE,
            f"{method} {'needs' if row.needs_base else 'takes no'} --base, the pack that the others began with.",
            hint="Name it." if row.needs_base else "To have it in the soup, name it among the packs.",
        )
    useless = {"--min-gain": min_gain and not row.takes_min_gain, "--alpha": alpha is not None and not row.alpha}
    for option in filter(useless.get, useless):
        raise MedclipError(Reason.WRONG_USE, f"{option} does nothing with {method}.", hint="Leave it out.")
    if len(packs) < row.fewest or (row.takes_one and len(packs) > 1):
        number = "one pack beside --base" if row.takes_one else f"at least {row.fewest}"
        raise MedclipError(Reason.WRONG_USE, f"{method} takes {number}; {len(packs)} given.", hint="Name the packs.")
    share = 0.5 if alpha is None else alpha
    if not 0 <= share <= 1:
        raise MedclipError(Reason.WRONG_USE, f"alpha is {share:g}; it is from 0 to 1.")
    ingredients = tuple(read_ingredient(pack) for pack in packs)
    twice = [one.name for i, one in enumerate(ingredients) if one.weights in {x.weights for x in ingredients[:i]}]
    if twice:
        raise MedclipError(Reason.WRONG_USE, f"{twice[0]} is given twice: its weights are those of another pack.")
    of_base = None if base is None else read_ingredient(base)
    refuse_different(ingredients if of_base is None else (of_base, *ingredients))
    notes = check_line(ingredients, of_base)
    plan = Plan(method, ingredients, of_base, share, min_gain, notes)
    if row.check:
        import_name(row.check)(plan)
    return plan


def merge_weights(plan: Plan, figure: Figure | None = None, lessons: Lessons | None = None) -> MergedWeights:
    """Merge the weights of a plan.

    Args:
        plan: Plan from `plan_merge`.
        figure: Function that measures a candidate of a greedy soup on held-out data.
        lessons: Function that returns the batches of held-out data that a learned soup learns from.

    Raises:
        MedclipError: WRONG_USE for what is chosen on held-out data, without figures.
    """
    row = MERGES[plan.method]
    held_out = lessons if row.learns else figure
    if row.needs_shards and held_out is None:
        raise MedclipError(
            Reason.WRONG_USE, f"{row.title} is chosen on held-out data.", hint="Name shards with --shards."
        )
    facts: dict[str, Any] = {"method": plan.method}
    facts |= {"min_gain": plan.min_gain} if row.takes_min_gain else {}
    facts |= {"alpha": plan.alpha} if row.alpha else {}
    facts |= {} if plan.base is None else {"base": plan.base.reference()}
    merged: MergedWeights = import_name(row.target)(plan, held_out)
    return replace(merged, facts={**facts, **merged.facts})


def write_merged(plan: Plan, merged: MergedWeights, out: Path, *, name: str | None, version: str = "1") -> Path:
    """Write the pack.

    Weights are stored as those of the packs are, unless the method stores them in float32.

    Raises:
        MedclipError: OUTPUT_IN_USE, DISK_FULL, PERMISSION_DENIED.
    """
    row, first = MERGES[plan.method], plan.ingredients[0]
    config = first.model_cfg
    adapters = {way: digest for one in merged.used for way, digest in read_preprocess(one.path).adapters.items()}
    line = plan.base.ancestry if plan.base is not None else _common(merged.used)
    notes = [*plan.notes, *_statistics_note(merged.used)]
    under = () if plan.base is None or plan.base in merged.used else (plan.base,)
    parents = [one.path for one in (*merged.used, *under)]
    card = merged_card(
        merged.used,
        name=name or out.name,
        version=version,
        how=row.title,
        facts=merged.facts,
        line=line,
        notes=notes,
        under=under,
    )
    return save_pack(
        out,
        towers_of(first, merged.state),
        first.path if has_text_tower(config) else None,
        replace(read_preprocess(first.path), adapters=adapters),
        card,
        config=config,
        base=first.path,
        extra_files=hash_lists((*merged.used, *under)),
        half=not row.in_float32 and _is_half(first),
        parents=parents,
    )


def _common(used: Sequence[Ingredient]) -> list[str]:
    """Return what all packs go back to, the oldest first."""
    common = frozenset.intersection(*(one.line for one in used))
    return [weights for weights in used[0].ancestry if weights in common]


def check_place(out: Path, packs: Sequence[Path], overwrite: bool) -> None:
    """Refuse a folder that no merged pack can go to.

    Args:
        out: The folder.
        packs: Folders of the packs that are read.
        overwrite: Whether another pack may be replaced.

    Raises:
        MedclipError: WRONG_USE for a pack's own folder; OUTPUT_IN_USE.
    """
    inputs = {f"pack {number} of those that are merged": path for number, path in enumerate(packs, start=1)}
    is_pack = claim_folder(out, "model pack", marks=(MANIFEST,), inputs=inputs, in_one_step=True)
    if is_pack and not overwrite:
        raise in_use(
            out, "this folder holds a model pack already", "Name another folder, or replace it with --overwrite."
        )


def _is_half(one: Ingredient) -> bool:
    """Whether a pack stores its matrices as fp16."""
    import torch

    from medclip.models.packs.manifest import WEIGHTS_NAME
    from medclip.models.towers.state_dict import read_weights

    return any(value.dtype == torch.float16 for value in read_weights(one.path / WEIGHTS_NAME).values())


def _statistics_note(used: Sequence[Ingredient]) -> tuple[str, ...]:
    """Write that running statistics were averaged, where they differ; empty where all packs have the same."""
    first = {name: value for name, value in used[0].state().items() if name.endswith(STATISTICS)}
    if all(state[name].equal(value) for state in (one.state() for one in used[1:]) for name, value in first.items()):
        return ()
    return (
        "The packs differ in the running statistics of batch normalisation, which were averaged and not estimated "
        "anew: figures may be lower for it.",
    )


TRAIN_HASHES, PATIENT_HASHES = "train_hashes.txt", "patient_hashes.txt"
UNMEASURED = "Not measured after merging."
_UNSTATED = "terms that were not stated"
_AND, _ALL = " AND ", "all of these: "
_TASK_WORDS = ("title", "class_titles")
"""What is said of a task beside its figures, and stays."""


def merged_card(
    ingredients: Sequence[Ingredient],
    *,
    name: str,
    version: str,
    how: str,
    facts: Mapping[str, Any],
    line: Sequence[str],
    notes: Sequence[str] = (),
    under: Sequence[Ingredient] = (),
) -> Card:
    """Write the card of a merged pack.

    Figures, calibrations and thresholds of the packs are left out: they are of other weights.

    Args:
        ingredients: The packs whose training is in it; of one that was merged itself, its own are named.
        name: Name of the merged pack.
        version: Version of the merged pack.
        how: Manner of merging in a few words: "a uniform soup".
        facts: Facts for `created_from`: method, its settings, and what it needs to go on.
        line: Heads of the hashes of weights that all of them go back to.
        notes: More limits, first of all.
        under: The base that the packs are merged on, where it is none of them: its terms and data are in it, too.
    """
    cards = [one.card for one in ingredients]
    terms_of = [one.card for one in (*ingredients, *under)]  # packs that state their start list its data themselves
    names = [one.name for one in ingredients]
    uses = list(dict.fromkeys(card.intended_use for card in cards if card.intended_use))
    terms_files = sorted(licence_files(one.path for one in (*ingredients, *under)))
    what = f"{how[0].upper()}{how[1:]} of {list_of(names)}"
    others = ": its weights are none of theirs" if len(names) > 1 else " alone"
    limits = [
        f"{what}{others}. {UNMEASURED}",
        *notes,
        *_where_terms_lie(terms_files),
        "It has no guard for unknown images: those of the packs are of other features.",
        *(
            f"{one.name} does not list its training files: the list in this pack lacks them."
            for one in (*ingredients, *under)
            if one.card.train_hashes_file is None
        ),
        *(limit for card in cards for limit in card.limits),
    ]
    if len({card.licence.strip() for card in terms_of}) > 1:
        limits.insert(1, "The terms of all packs hold together; whether they can, nobody has checked.")
    return Card(
        name=name,
        version=version,
        summary=f"{what}.",
        intended_use=" ".join(uses),
        modalities=tuple(sorted({m for card in cards for m in card.modalities})),
        tasks=merged_tasks(cards),
        data=tuple(_sources(cards if all(one.states_start for one in ingredients) else terms_of)),
        citations=united(
            work.of_ancestor(one.name, version=one.card.version, digest=pack_digest(one.path))
            for one in (*ingredients, *under)
            for work in one.card.citations
        ),
        licence=united_licence(terms_of),
        limits=tuple(dict.fromkeys(limits)),
        created_from={
            MERGED_FROM: [
                part for one in ingredients for part in one.card.created_from.get(MERGED_FROM, [one.reference()])
            ],
            **facts,
            ANCESTORS: list(line),
            "medclip": __version__,
        },
        train_hashes_file=TRAIN_HASHES,
        patient_hashes_file=PATIENT_HASHES,
    )


def with_figures(card: Card, figures: SplitFigures) -> Card:
    """Return the card of a merged pack with what was measured after merging, which it no longer calls unmeasured."""
    tasks = {
        name: task.model_copy(update={"note": task.note.replace(UNMEASURED, "").strip()})
        if name in figures.figures
        else task
        for name, task in card.tasks.items()
    }
    limits = (card.limits[0].replace(f" {UNMEASURED}", ""), *card.limits[1:])
    return card.model_copy(update={"held_out": figures, "tasks": tasks, "limits": limits})


def merged_tasks(cards: Sequence[Card]) -> dict[str, TaskCard]:
    """Return the tasks of all cards, each with all its classes and no figure.

    A task stays one of the modalities and kinds of units that any of the cards says it was measured on: nothing else
    was ever learned for it. A card that does not say adds none.
    """
    tasks: dict[str, TaskCard] = {}
    for card in cards:
        for name, task in card.tasks.items():
            before = tasks.get(name)
            classes = dict.fromkeys((*(before.classes if before is not None else ()), *task.classes))
            words: dict[str, Any] = {}
            for one in (before, task):
                for key, value in ({} if one is None else one.model_extra or {}).items():
                    if key in _TASK_WORDS:
                        words[key] = {**words.get(key, {}), **value} if isinstance(value, dict) else value
            words_of_task = {
                part: tuple(sorted({*getattr(before, part, ()), *getattr(task, part)}))
                for part in ("kinds", "modalities")
            }
            entry = {"classes": tuple(classes), "note": UNMEASURED, **words, **words_of_task}
            tasks[name] = TaskCard.model_validate(entry)
    return tasks


def _where_terms_lie(files: Sequence[str]) -> tuple[str, ...]:
    """Write under which names the terms of packs lie in full beside the card; nothing where they have no text."""
    return (f"The terms of its packs lie in full in {list_of(files)}.",) if files else ()


def terms(cards: Sequence[Card]) -> tuple[str, ...]:
    """Return the different licences of cards, in their order; of what was merged itself each one."""
    parts: list[str] = []
    for licence in (card.licence.strip() or _UNSTATED for card in cards):
        if licence.startswith(_ALL):
            parts += licence.removeprefix(_ALL).split("; ")
        else:
            parts += [licence] if " " in licence.replace(_AND, "") else licence.split(_AND)
    return tuple(dict.fromkeys(parts))


def united_licence(cards: Sequence[Card]) -> str:
    """Return a licence under which the terms of all cards hold; the strictest of them is among these.

    Example:
        >>> united_licence([Card(name="a", licence="CC-BY-4.0"), Card(name="b", licence="CC-BY-NC-4.0")])
        'CC-BY-4.0 AND CC-BY-NC-4.0'
        >>> united_licence([Card(name="a", licence="research only"), Card(name="b")])
        'all of these: research only; terms that were not stated'
    """
    licences = terms(cards)
    if licences == (_UNSTATED,):
        return ""
    if len(licences) == 1:
        return licences[0]
    return _AND.join(licences) if all(" " not in one for one in licences) else f"{_ALL}{'; '.join(licences)}"


def hash_lists(ingredients: Sequence[Ingredient]) -> dict[str, bytes]:
    """Join the lists of training files and patients of packs, as files of a pack."""
    lists = {
        TRAIN_HASHES: [training_hashes(one.path, one.card) for one in ingredients],
        PATIENT_HASHES: [training_patients(one.path, one.card) for one in ingredients],
    }
    united = {name: frozenset().union(*(one for one in several if one)) for name, several in lists.items()}
    return {name: "".join(f"{line}\n" for line in sorted(lines)).encode() for name, lines in united.items()}


def _sources(cards: Sequence[Card]) -> list[Source]:
    """Return the sources of all cards, equal ones once."""
    sources: list[Source] = []
    for card in cards:
        sources += [source for source in card.data if source not in sources]
    return sources

"""What stands out in a pile, as sentences made of its numbers, the worst first.

From which share on a thing is bad is a choice, which stands here and nowhere else. Whatever touches an evaluation set,
a split or the identity of patients is bad from the first pair on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from medclip.errors import Reason
from medclip.pairs.looking.boilerplate import LEAST_PATIENTS
from medclip.pairs.looking.pile_look import Finding, PileLook, Severity
from medclip.pairs.looking.texts import FAULTS, NO_WORDS
from medclip.pairs.selection.balance import LEAST_T
from medclip.sample import spoken
from medclip.wording import by_reason, capital, count, estimate, list_of, number, percent, percent_of

if TYPE_CHECKING:
    from medclip.pairs.looking.alignment import ModalityAlignment

_ORDER: tuple[Severity, ...] = ("bad", "wait", "good")
_SHARES: Mapping[str, tuple[float, float]] = {
    "empty": (0.0, 0.01),
    "address": (0.0, 0.01),
    "link": (0.01, 0.5),
    "modality": (0.01, 0.2),
    "few words": (0.05, 0.3),
    "long": (0.0, 0.25),
    "damaged": (0.0, 0.05),
    "placeholder": (0.01, 0.5),
    "comparison": (0.05, 0.5),
    "talk": (0.05, 0.5),
    "date": (0.05, 0.5),
}
"""Of each fault of a text the shares of pairs above which it is worth a caution, and bad."""
_REMEDIES = {
    "placeholder": "`medclip pairs rewrite` takes them out.",
    "comparison": "`medclip pairs rewrite` takes such words out.",
    "talk": "`medclip pairs rewrite` takes such words out.",
    "empty": "The step `basic` of `medclip pairs select` drops them.",
    "address": "The step `basic` of `medclip pairs select` drops most of them.",
    "link": "`medclip pairs rewrite` takes them out of sentences.",
    "modality": "The step `basic` of `medclip pairs select` drops them.",
    "few words": "The step `basic` of `medclip pairs select` drops them.",
    "long": "The step `basic` drops them with `max_words`.",
}
_KINDS_OF_COPIES = {
    "image": "pixels and hashes",
    "record": "the bytes of signals",
    "image or record": "pixels, hashes and the bytes of signals",
}
_SINGULAR = {"have": "has", "are": "is"}
_LEAST_PILE = 5 * LEAST_T
"""Pairs below which all is rare."""
_LEAST_SEEN = 20
"""Patients below which nothing is made of an AUROC."""


def findings(look: PileLook) -> tuple[Finding, ...]:
    """List what stands out, the worst first."""
    every = [
        *_evaluation(look),
        *_copies(look),
        *_splits(look),
        *_synthetic(look),
        *_alignment(look),
        *_texts(look),
        *_boilerplate(look),
        *_concepts(look),
        *_unknown(look),
    ]
    return tuple(sorted(every, key=lambda one: (_ORDER.index(one.severity), -one.rank, -one.pairs)))


def _some(look: PileLook, num: int) -> str:
    return f"{count(num, 'pair')} ({percent_of(num, look.num_pairs)})"


def _by_share(look: PileLook, num: int, text: str, bounds: tuple[float, float]) -> Iterator[Finding]:
    """Yield a finding where the share of pairs is above the first bound, bad where it is above the second."""
    share = num / look.num_pairs
    if share > bounds[0]:
        verb, _, rest = text.partition(" ")
        verb = _SINGULAR.get(verb, f"{verb}s") if num == 1 else verb
        yield Finding("bad" if share > bounds[1] else "wait", f"{_some(look, num)} {verb} {rest}", num)


def _ways(look: PileLook, by_way: Mapping[str, int]) -> str:
    """Name the ways of links; records have one alone."""
    return by_reason(by_way) if look.thing != "record" else "equal bytes"


def _evaluation(look: PileLook) -> Iterator[Finding]:
    thing = look.a_thing
    for one in look.against:
        linked = int(one.to_drop_N.sum())
        if not linked:
            text = f"No pair shows {thing} of {one.name} or is of one of its patients, as far as can be told."
            yield Finding("good", text)
            continue
        parts = []
        if num := int(one.has_image_N.sum()):
            parts.append(f"{number(num)} by the {look.thing} ({_ways(look, one.by_way)})")
        if num := int(one.has_patient_N.sum()):
            parts.append(f"{number(num)} by the patient ({count(one.num_patients, 'patient')})")
        text = f"{_some(look, linked)} must not be trained on where {one.name} is an evaluation set: {list_of(parts)}."
        yield Finding("bad", f"{text} The step `deduplicate` drops them.", linked, rank=2)


def _copies(look: PileLook) -> Iterator[Finding]:
    copies, thing = look.copies, look.a_thing
    if num := int(copies.across_patients_N.sum()):
        text = f"In {_some(look, num)} {thing} stands that another patient’s pair shows, too: one of the two is wrong."
        yield Finding("bad", text, num, rank=1)
    if num := int((copies.alike_patients_N & ~copies.across_patients_N).sum()):
        text = f"In {_some(look, num)} an image stands that looks like one of another patient: a copy, or two who look "
        text += "alike."
        yield Finding("wait", text, num)
    if copies.num_copies:
        ways = _ways(look, copies.by_way)
        text = f"show {thing} that another pair shows already ({ways}). The step `deduplicate` drops them."
        yield from _by_share(look, copies.num_copies, text, (0.0, 0.1))
    elif not copies.unread:
        by = _KINDS_OF_COPIES[look.thing]
        yield Finding("good", f"No {look.thing} stands in the pile twice, as far as {by} tell.")
    if num := sum(copies.unread.values()):
        yield from _by_share(look, num, f"have {thing} that cannot be read: {by_reason(copies.unread)}.", (0.0, 0.01))
    else:
        yield Finding("good", f"Every {look.thing} can be read.")
    yield from (Finding("wait", caution) for caution in copies.cautions)


def _splits(look: PileLook) -> Iterator[Finding]:
    if look.num_patients_in_splits:
        text = f"{count(look.num_patients_in_splits, 'patient')} stand in more than one split."
        yield Finding("bad", text, look.num_patients_in_splits, rank=1)
    if num := int(look.copies.across_splits_N.sum()):
        yield Finding("bad", f"In {_some(look, num)} {look.a_thing} stands that another split shows, too.", num, rank=1)


def _synthetic(look: PileLook) -> Iterator[Finding]:
    if num := look.num_synthetic_held_out:
        text = f"{_some(look, num)} in splits of evaluation {'is' if num == 1 else 'are'} synthetic: no figure on them "
        yield Finding("bad", f"{text}is one of patients.", num, rank=2)
    yield from _by_share(look, look.num_synthetic, "are synthetic: made, and no images of patients.", (0.0, 0.5))


def _alignment(look: PileLook) -> Iterator[Finding]:
    if look.alignment is None:
        return
    for one in look.alignment.modalities:
        yield from _of_modality(one)
    num = int((look.alignment.why_N == Reason.OTHER_INPUT).sum())
    text = "have no cosine: the pack does not take what they show, an ECG record or an image."
    yield from _by_share(look, num, text, (0.0, 1.0))


def _of_modality(one: ModalityAlignment) -> Iterator[Finding]:
    name = capital(spoken(one.modality)) if one.modality else "Pairs without a modality"
    if one.auroc is None:
        yield Finding(
            "wait", f"{name}: there is no text of another patient to hold against, so no chance level.", one.pairs
        )
        return
    area = f"AUROC {estimate(one.auroc, one.low, one.high)}, {count(one.pairs, 'pair')}"
    if one.patients < _LEAST_SEEN:
        yield Finding(
            "wait", f"{name}: too few patients ({one.patients}) to tell whether texts fit ({area}).", one.pairs
        )
    elif one.low is None or one.low <= 0.5:
        text = (
            f"{name}: the pack puts texts no nearer to their images than to those of others ({area}). Either it knows "
        )
        yield Finding("bad", f"{text}nothing of them, or texts and images do not belong together.", one.pairs)
    elif one.auroc < 0.6:
        yield Finding("wait", f"{name}: the pack hardly tells a pair's own text from another one ({area}).", one.pairs)
    else:
        yield Finding("good", f"{name}: own texts are nearer than those of others ({area}).", one.pairs)


def _texts(look: PileLook) -> Iterator[Finding]:
    for name, bounds in _SHARES.items():
        if name == "long" and look.num_cut is not None:  # counted in tokens below
            continue
        text = f"{FAULTS[name]}. {_REMEDIES.get(name, '')}".strip()
        yield from _by_share(look, int(look.texts.faults[name].sum()), text, bounds)
    if look.num_cut is not None and look.context is not None:
        text = f"have a text that is longer than the {number(look.context)} tokens of the pack: the rest is not read."
        yield from _by_share(look, look.num_cut, text, (0.0, 0.25))
    # Counts of a column stand in the order of their pairs: the first is the language of most.
    others = [row for row in look.counts if row.column == "language" and row.value != NO_WORDS][1:]
    num = sum(row.pairs for row in others)
    text = f"have a text in another language than most: {list_of([row.value for row in others], most=4)}."
    yield from _by_share(look, num, text, (0.01, 0.5))


def _boilerplate(look: PileLook) -> Iterator[Finding]:
    text = f"have a whole text that {LEAST_PATIENTS} patients or more have: it tells no image from another."
    yield from _by_share(look, int(look.boilerplate.is_repeated_N.sum()), text, (0.02, 0.25))
    only = int((look.boilerplate.only_repeats_N & ~look.boilerplate.is_repeated_N).sum())
    text = f"have a text of which every sentence stands at {LEAST_PATIENTS} patients or more."
    yield from _by_share(look, only, text, (0.05, 0.5))
    shared = int((look.boilerplate.shares_text_N & ~look.boilerplate.is_repeated_N).sum())
    text = "have the text of another pair, such as other images of one study: each is a false negative of the other."
    yield from _by_share(look, shared, text, (0.05, 0.8))


def _concepts(look: PileLook) -> Iterator[Finding]:
    concepts = look.concepts
    text = f"name no concept of the list {concepts.metadata}: `balance` and `text` would drop them."
    yield from _by_share(look, int((~concepts.names_any_N & ~look.texts.faults["empty"]).sum()), text, (0.3, 1.0))
    if num := sum(one.both for one in concepts.concepts):
        names = [one.concept for one in sorted(concepts.concepts, key=lambda one: -one.both) if one.both]
        text = f"Texts affirm and deny one concept at once in {count(num, 'place')}, most of all {list_of(names[:3])}: "
        yield Finding("wait", f"{text}two sides, or a contradiction.", num)
    tail = concepts.affirmed
    if len(tail.counts_K) > 1 and look.num_pairs >= _LEAST_PILE:
        rare = f"{number(tail.num_rare)} of {count(len(tail.counts_K), 'concept')}"
        text = (
            f"{rare} that are affirmed stand in fewer than {LEAST_T} pairs ({percent(tail.share_of_rare)} of all "
            f"mentions); the ten most frequent have {percent(tail.share_of_top)}."
        )
        yield Finding("wait" if 2 * tail.num_rare >= len(tail.counts_K) else "good", text)


def _unknown(look: PileLook) -> Iterator[Finding]:
    text = "name no patient: each counts as one, copies across patients are not seen, and intervals are too narrow."
    yield from _by_share(look, look.num_without_patient, text, (0.0, 2.0))
    for column, why in (("license", "no licence"), ("modality", "no modality")):
        num = sum(row.pairs for row in look.counts if row.column == column and not row.value)
        yield from _by_share(look, num, f"name {why}.", (0.0, 2.0))

"""Who is learned from and who is tested on: patients divided once, and shots drawn from one side. No files are opened.

K shots = K patients of each class, one unit of each. All of it comes from the table's file names and the seed; machine,
order of rows and identity key do not matter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from medclip.adaptation.data.class_text import ClassText
from medclip.adaptation.data.table import LabelledUnit
from medclip.errors import MedclipError, Reason
from medclip.shards.writing.splits import place
from medclip.wording import capital, count

MAX_VAL = 4
"""Most patients of each class that settings are chosen with; fewer where K is smaller."""


@dataclass(frozen=True)
class Division:
    """Which side each unit is on, as indices into the units. A patient is on one side."""

    train: tuple[int, ...]
    val: tuple[int, ...]
    """Only where the table names such patients."""
    test: tuple[int, ...]


@dataclass(frozen=True)
class Drawn:
    """The units that are learned from, as indices, in the order of the draw."""

    train: tuple[int, ...]
    val: tuple[int, ...]
    """Of other patients, to choose settings with; empty where a class would have none."""
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Need:
    """K patients of this kind are wanted: a class, or a class that is there or not."""

    description: str
    member: Callable[[LabelledUnit], bool]
    salt: tuple[int, int]
    """Of the random numbers: class and side."""


def divide(units: Sequence[LabelledUnit], *, seed: int = 0, test_share: float = 0.3) -> Division:
    """Put patients on sides.

    The table's `split` stands, and holds for all units of that patient. The other patients are divided class by class:
    `test_share` of them, at least one where there are two, in an order that comes from the seed and the name of their
    first file. Where the table names test patients, all the others are learned from.

    Args:
        units: The labelled units.
        seed: Seed of the division; another one gives another.
        test_share: 0 for no test.

    Raises:
        MedclipError: PATIENT_OVERLAP where the table puts a patient on two sides; WRONG_USE for another share.
    """
    if not 0 <= test_share < 1:
        raise MedclipError(Reason.WRONG_USE, f"the test's share lies between 0 and 1, not {test_share:g}.")
    of_patient: dict[str, list[int]] = {}
    for index in sorted(range(len(units)), key=lambda i: _name(units[i])):
        of_patient.setdefault(units[index].patient, []).append(index)
    side = _stated(units, of_patient)
    free = [p for p in of_patient if p not in side]
    if "test" in side.values():
        side |= dict.fromkeys(free, "train")
    else:
        side |= _by_class(units, of_patient, free, seed, test_share)
    shares = {
        name: tuple(i for i, u in enumerate(units) if side[u.patient] == name) for name in ("train", "val", "test")
    }
    return Division(**shares)


def draw_shots(
    units: Sequence[LabelledUnit],
    division: Division,
    text: ClassText,
    shots: int,
    seed: int,
    *,
    unusable: Collection[int] = (),
) -> Drawn:
    """Draw K patients of each class, one unit of each; for multi-label tasks K with and K without each class.

    Every class has its own order of patients, from the seed. The draw goes round the classes, one patient at a time, so
    that the shots of K are among those of 2K. Where a class has too few patients, further units of the same ones are
    taken, and a note says so. Val takes min(K, 4) a class from the ends of the same orders, among patients that nothing
    is learned from; or from the table's own val patients.

    Args:
        units: The labelled units.
        division: Division of the units into sides.
        text: The classes.
        shots: Number of patients K, at least 1.
        seed: Seed of the draw; another one draws others.
        unusable: Indices that could not be read; the next of their class's order take their places.

    Raises:
        MedclipError: WRONG_USE for K < 1 or where only one class can be learned from.
    """
    if shots < 1:
        raise MedclipError(Reason.WRONG_USE, f"at least one shot a class is needed, not {shots}.")
    needs = _needs(text)
    orders = [_order(units, division.train, need, seed, unusable) for need in needs]
    train, counts = _draw(units, needs, orders, shots)
    _need_classes(text, units, train)
    notes = [*_too_few(units, needs, orders, train, counts, shots)]
    whose = {units[i].patient for i in train}
    if division.val:
        val_orders = [_order(units, division.val, need, seed, unusable) for need in needs]
    else:
        val_orders = [[i for i in reversed(order) if units[i].patient not in whose] for order in orders]
    val, missing = _draw(units, needs, val_orders, min(shots, MAX_VAL))
    if not _shows_enough(text, missing, counts):
        val = []
    if not val and not text.rules.placed:
        notes.append("No patients are left to choose settings with: they are the defaults, or chosen within the shots.")
    return Drawn(tuple(train), tuple(val), tuple(notes))


def draw_readable(
    draw: Callable[[Sequence[int]], Drawn],
    read: Callable[[list[int]], Iterable[int]],
    refusal: Callable[[str], MedclipError],
) -> tuple[Drawn, list[int]]:
    """Draw and read until every shot of the draw could be read.

    Args:
        draw: Function that draws without the indices that it is given.
        read: Function that reads units, and returns the indices of those that could not be read.
        refusal: Function that returns the error of a draw of which nothing is left, from half a sentence that says so.

    Returns:
        The draw, and the indices that could not be read.

    Raises:
        MedclipError: As `draw` of the first draw; `refusal` where not one of the first shots can be read, or where so
            many cannot that nothing is left to learn from.
    """
    drawn, bad, tried = draw(()), list[int](), set[int]()
    while missing := [i for i in (*drawn.train, *drawn.val) if i not in tried]:
        bad += read(missing)
        tried |= set(missing)
        if len(bad) == len(tried):
            raise refusal(f"not one of the first {len(tried)} shots could be read")
        try:
            drawn = draw(bad)
        except MedclipError as error:
            raise refusal(error.message.rstrip(".")) from error
    return drawn, bad


def _shows_enough(text: ClassText, in_val: Sequence[int], in_train: Sequence[int]) -> bool:
    """Whether settings can be chosen: every class that is learned is there; of findings, one is there and absent."""
    if text.rules.placed:
        return False  # nothing is chosen
    if text.rules.one_answer:
        return all(n or not learned for n, learned in zip(in_val, in_train, strict=True))
    return any(present and absent for present, absent in zip(in_val[::2], in_val[1::2], strict=True))


def _name(unit: LabelledUnit) -> str:
    return unit.file or unit.path.name


def _stated(units: Sequence[LabelledUnit], of_patient: Mapping[str, Sequence[int]]) -> dict[str, str]:
    side: dict[str, str] = {}
    torn = 0
    for patient, indices in of_patient.items():
        splits = {split for i in indices if (split := units[i].split) is not None}
        torn += len(splits) > 1
        if splits:
            side[patient] = min(splits)
    if torn:
        raise MedclipError(
            Reason.PATIENT_OVERLAP,
            f"the column `split` puts {count(torn, 'patient')} on more than one side.",
            hint="Give all files of a patient the same split, or leave the column blank.",
        )
    return side


def _by_class(
    units: Sequence[LabelledUnit], of_patient: Mapping[str, list[int]], free: Sequence[str], seed: int, share: float
) -> dict[str, str]:
    """Divide patients class by class; a patient of several counts for the one that the fewest have."""
    kinds = {p: {c for i in of_patient[p] for c in _there(units[i])} or {-1} for p in free}
    frequency = Counter(c for classes in kinds.values() for c in classes)
    groups: dict[int, list[str]] = {}
    for patient, classes in kinds.items():
        groups.setdefault(min(classes, key=lambda c: (frequency[c], c)), []).append(patient)
    side: dict[str, str] = {}
    for members in groups.values():
        names = {p: _name(units[of_patient[p][0]]) for p in members}
        ordered = sorted(members, key=lambda p: (place(names[p], seed), names[p]))
        num_test = round(share * len(members))
        if share and len(members) > 1:
            num_test = min(max(1, num_test), len(members) - 1)
        side |= {p: "test" if n < num_test else "train" for n, p in enumerate(ordered)}
    return side


def _there(unit: LabelledUnit) -> tuple[int, ...]:
    """Return the classes that a unit has."""
    if isinstance(unit.target, tuple):
        return tuple(c for c, value in enumerate(unit.target) if value == 1)
    return (unit.target,)


def _needs(text: ClassText) -> list[_Need]:
    if text.rules.placed:
        return [_Need("masks", lambda u: True, (0, 1))]
    if text.rules.one_answer:
        return [_Need(f"class {n}", lambda u, c=c: u.target == c, (c, 1)) for c, n in enumerate(text.names)]
    return [
        _Need(f"{'with' if side else 'without'} {n}", lambda u, c=c, s=side: _answer(u, c) == s, (c, side))
        for c, n in enumerate(text.names)
        for side in (1, 0)
    ]


def _answer(unit: LabelledUnit, c: int) -> float | None:
    assert isinstance(unit.target, tuple)
    return unit.target[c]


def _order(
    units: Sequence[LabelledUnit], pool: Sequence[int], need: _Need, seed: int, unusable: Collection[int]
) -> list[int]:
    """Return the usable units of a need in the order of the draw: one of every patient first, then second ones, …

    Units that are not usable keep their places until the end, so that leaving one out moves no other: a comparison,
    which knows of unreadable files of other draws, draws the shots that an adaptation draws with the same seed.
    """
    of_patient: dict[str, list[int]] = {}
    for index in sorted((i for i in pool if need.member(units[i])), key=lambda i: _name(units[i])):
        of_patient.setdefault(units[index].patient, []).append(index)
    patients = sorted(of_patient, key=lambda p: _drawn(_name(units[of_patient[p][0]]), need, seed))
    for members in of_patient.values():
        members.sort(key=lambda i: _drawn(f"{_name(units[i])}\0unit", need, seed))
    rounds: list[int] = []
    for turn in range(max((len(m) for m in of_patient.values()), default=0)):
        rounds += [of_patient[p][turn] for p in patients if turn < len(of_patient[p])]
    return [i for i in rounds if i not in unusable]


def _drawn(name: str, need: _Need, seed: int) -> tuple[float, str]:
    """Return a name its number: uniform in [0, 1), and the name itself for the unlikely tie."""
    return place(f"{need.salt[0]}/{need.salt[1]}\0{name}", seed), name


def _draw(
    units: Sequence[LabelledUnit], needs: Sequence[_Need], orders: Sequence[Sequence[int]], shots: int
) -> tuple[list[int], list[int]]:
    """Go round the needs until each has so many units, or none are left.

    Returns:
        The chosen units in order, and how many each need has.
    """
    chosen: dict[int, None] = {}
    whose: set[str] = set()
    for wanted in range(1, shots + 1):
        for need, order in zip(needs, orders, strict=True):
            if sum(need.member(units[i]) for i in chosen) < wanted:
                for i in _next(units, order, chosen, whose):
                    chosen[i] = None
                    whose.add(units[i].patient)
                    break
    return list(chosen), [sum(need.member(units[i]) for i in chosen) for need in needs]


def _next(
    units: Sequence[LabelledUnit], order: Sequence[int], chosen: Collection[int], whose: Collection[str]
) -> Iterator[int]:
    """Yield what may be taken next: units of new patients first, then others of patients that were taken."""
    yield from (i for i in order if units[i].patient not in whose)
    yield from (i for i in order if i not in chosen)


def _need_classes(text: ClassText, units: Sequence[LabelledUnit], train: Sequence[int]) -> None:
    if text.rules.placed:
        if not train:
            raise MedclipError(Reason.WRONG_USE, "no patient is left to learn from.", hint="Lower --test-share.")
    elif text.rules.one_answer:
        present = {units[i].target for i in train}
        missing = [n for c, n in enumerate(text.names) if c not in present]
        if missing:
            raise MedclipError(
                Reason.WRONG_USE,
                f"no patient with the class {', '.join(missing)} is left to learn from.",
                hint="Are all of them test patients? Change the column `split` or --test-share, or add images.",
            )
    elif not any({_answer(units[i], c) for i in train} >= {0.0, 1.0} for c in range(len(text.names))):
        raise MedclipError(
            Reason.WRONG_USE,
            "there is nothing to tell apart: of no finding are there patients with and without it to learn from.",
            hint="Add images, or change the column `split` or --test-share.",
        )


def _too_few(
    units: Sequence[LabelledUnit],
    needs: Sequence[_Need],
    orders: Sequence[Sequence[int]],
    train: Sequence[int],
    counts: Sequence[int],
    shots: int,
) -> Iterator[str]:
    for need, order, num_taken in zip(needs, orders, counts, strict=True):
        patients = len({units[i].patient for i in order})
        taken = len({units[i].patient for i in train if need.member(units[i])})
        if taken >= shots:
            continue
        sentence = f"{capital(need.description)}: {count(patients, 'patient')} to learn from"
        if num_taken >= shots:
            taken_files = f"several files of a patient were taken ({count(num_taken, 'file')})"
            yield f"{sentence}, fewer than the {shots} asked for; {taken_files}."
        elif num_taken:
            files = f"all {num_taken} files were" if num_taken > 1 else "the only file was"
            yield f"{sentence}, fewer than the {shots} asked for; {files} taken."
        else:
            yield f"{sentence}."

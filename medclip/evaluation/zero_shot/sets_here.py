"""Which sets of a suite are in a data folder: wanted ones, what is missing of them, and what does not fit."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.evaluation.dense.masked_set import MaskedSet, find_masks
from medclip.evaluation.zero_shot.figures import RETRIEVAL
from medclip.evaluation.zero_shot.labelled_set import (
    LabelledSet,
    MeasuredFiles,
    TextSet,
    find_set,
    find_texts,
    move_images,
    places,
)
from medclip.evaluation.zero_shot.suite import MasksFile, SetFile, SuiteFile, TextsFile
from medclip.evaluation.zero_shot.suite_result import MissingSet, UnusableSet
from medclip.sample import Modality

AnyPart = SetFile | TextsFile | MasksFile
AnySet = LabelledSet | TextSet | MaskedSet


class StoredImage(NamedTuple):
    """An image of a set, and whose adapter reads it."""

    path: Path
    modality: Modality | str


def wanted_parts(suite: SuiteFile, sets: Sequence[str]) -> tuple[AnyPart, ...]:
    """Return the parts of a suite that are asked for by name, all where none is.

    Raises:
        MedclipError: WRONG_USE for a name that no part has.
    """
    parts = (*suite.sets, *suite.texts, *suite.masks)
    ids = [part.id for part in parts]
    strange = [name for name in sets if name not in ids]
    if strange:
        raise MedclipError(
            Reason.WRONG_USE,
            f"the suite {suite.name} has no set {strange[0]!r}.",
            hint=did_you_mean(strange[0], ids, "It has"),
        )
    return tuple(part for part in parts if not sets or part.id in sets)


def find_sets(
    root: Path, wanted_sets: Sequence[AnyPart], key: bytes, unpacked: Path
) -> tuple[list[AnySet], list[MissingSet], list[UnusableSet]]:
    """Look for the data of parts; what does not fit is a row, unless nothing else is here.

    Raises:
        MedclipError: MISSING_FILE or WRONG_USE for the folder; NOTHING_TO_DO where none is here.
    """
    if not os.path.isdir(root):  # unlike Path.is_dir, this takes any name
        if not os.path.lexists(root):
            raise MedclipError(Reason.MISSING_FILE, "there is no such data folder.", where=root, hint="Check the path.")
        raise MedclipError(
            Reason.WRONG_USE,
            "this is a file; the data of a suite is a folder with one folder for each set.",
            where=root,
            hint="Name the folder that the sets lie in.",
        )
    labelled_sets, missing, unusable = [], [], []
    first: MedclipError | None = None
    for part in wanted_sets:
        try:
            if isinstance(part, SetFile):
                labelled = find_set(root, part, key, unpacked)
            elif isinstance(part, MasksFile):
                labelled = find_masks(root, part, key, unpacked)
            else:
                labelled = find_texts(root, part, key, unpacked)
        except MedclipError as e:
            first = first or e
            message = str(e).replace(f"{root}{os.sep}", "")
            unusable.append(UnusableSet(part.id, _group_of(part), str(e.reason), message))
            continue
        if labelled is None or not labelled.rows:
            missing.append(MissingSet(part.id, _group_of(part), places(part)))
        else:
            labelled_sets.append(labelled)
    if not labelled_sets and first is not None:
        raise first
    if not labelled_sets:
        looked = "; ".join(m.looked_for[0] for m in missing)
        raise MedclipError(
            Reason.NOTHING_TO_DO,
            f"none of the {len(missing)} sets is here; looked for {looked}, and for folders of their classes.",
            where=root,
            hint="Give each set a folder of its name with a labels.csv (file, label), or one folder for each class.",
        )
    return labelled_sets, missing, unusable


def moved(one: AnySet, data: Path, images: Path) -> AnySet:
    """Return a set whose images lie below another folder than its data."""
    return one.moved(data, images) if isinstance(one, MaskedSet) else move_images(one, data, images)


def hold_out(
    sets_here: Sequence[AnySet], hashes: Mapping[str, frozenset[str]] | None
) -> tuple[list[AnySet], list[MissingSet]]:
    """Leave the files that the pack's figures were measured on where a set asks for them; a set without is missing."""
    kept, missing = [], []
    measured = None if hashes is None else MeasuredFiles(hashes)
    for one in sets_here:
        if isinstance(one, MaskedSet):
            kept.append(one)
            continue
        held, part = one.held_out(measured), one.part
        if held.rows:
            kept.append(held)
        else:
            looked_for = f"files of {part.place} that the pack was measured on"
            missing.append(MissingSet(part.id, _group_of(part), (looked_for,)))
    if sets_here and not kept:
        raise MedclipError(
            Reason.NOTHING_TO_DO,
            "none of the files here is one that the pack's figures were measured on.",
            hint="Name the data that the pack's card names; files that were stored anew are not recognised.",
        )
    return kept, missing


def images_of(one: AnySet) -> list[StoredImage]:
    """Return the images of a set, each with whose adapter reads it."""
    if isinstance(one, LabelledSet):
        return [StoredImage(row.path, one.part.modality) for row in one.rows]
    if isinstance(one, MaskedSet):  # read with their masks
        return []
    return [StoredImage(row.path, row.modality) for row in one.rows]


def images_in_several(sets_here: Sequence[AnySet]) -> frozenset[StoredImage]:
    """Return the images that more than one set has."""
    num_sets = Counter(image for one in sets_here for image in images_of(one))
    return frozenset(image for image, number in num_sets.items() if number > 1)


def _group_of(part: AnyPart) -> str:
    return RETRIEVAL if isinstance(part, TextsFile) else part.group

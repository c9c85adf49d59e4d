"""The vectors of a run: from the units of a chunk into the ledger, and from there into a folder of embeddings.

The ledger keeps them until the tables are written and after, so that `--add` and `medclip retry` compute what is new
alone: a folder of embeddings takes twice the room of its vectors.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np

from medclip.adapters.base import combined_sha256
from medclip.dicom.header.body_parts import DESCRIBED, SAYS_NO_BODY_PART, SEEN
from medclip.dicom.header.safe_header import PARTS
from medclip.embeddings.embedded_unit import EmbeddedUnit
from medclip.errors import Reason
from medclip.runs.ledger.ledger import Ledger
from medclip.runs.rows import UnitRow
from medclip.runs.units.chunk import ChunkWork, Item
from medclip.sample import ModalitySource
from medclip.text.vocabulary.load import load_task, task_names

_IN_FREE_TEXT = "*"
"""Stands before the terms that a free text holds, so that it is not taken for one that is a term and no more."""


def unit_rows(work: ChunkWork) -> tuple[UnitRow, ...]:
    """Return the rows of a finished chunk's units, also of those that failed after their modality was known."""
    return tuple(_unit_row(work, item) for item in work.items if _has_modality(item))


def _has_modality(item: Item) -> bool:
    """Return whether a unit came as far as being of a modality: there another question might have passed it over."""
    if item.unit is None or item.modality is None or item.study is None:
        return False
    late = item.source is ModalitySource.INFERRED  # what fails then, fails when it is read a second time
    return item.problem is None or late or item.problem.reason is Reason.NON_FINITE


def _unit_row(work: ChunkWork, item: Item) -> UnitRow:
    assert item.study is not None
    study = work.chunk.plan.studies[item.study]
    source, *_ = work.context.job(item)
    features = item.features_VD if item.problem is None else None
    return UnitRow(
        row=item.files[0].id,
        grouped=study.key,
        patient=study.patient,
        sha256=combined_sha256(source),
        body_part=public_body_part(item.body_part),
        burned_in=item.reading is not None and item.reading.burned_in,
        stranger=item.stranger,
        instead_of=item.instead_of,
        features=b"" if features is None else features.astype("<f4").tobytes(),
        look=b"" if item.reading is None else item.reading.look,
    )


def public_body_part(text: str) -> str:
    """Return what a header states of the body part without what else may stand there, such as a name.

    A term of the standard stays as it is. Of a free text the terms in it are left, so that every task is about it that
    is about the text.

    Example:
        >>> public_body_part("CHEST"), public_body_part("Port Chest of Mr Smith"), public_body_part(" ")
        ('CHEST', '* CHEST', '')
        >>> public_body_part("BREAST, described as THYROID")
        'BREAST, described as THYROID'
    """
    if text.startswith(SEEN):  # terms of the vocabulary
        return text
    before, described, terms = text.partition(DESCRIBED)
    if described:  # terms of our own list
        return ", ".join(filter(None, [public_body_part(before.strip(" ,")), described + terms]))
    stated = text.strip()
    if stated.upper() in SAYS_NO_BODY_PART:
        return stated.upper()
    if stated in _terms():
        return stated
    return " ".join([_IN_FREE_TEXT, *sorted(term for term in _terms() if term in stated.upper())])


@cache
def _terms() -> frozenset[str]:
    """Return the terms of the standard, and those that tasks are about."""
    of_tasks = {part for name in task_names() for part in load_task(name).body_parts}
    return PARTS | of_tasks


def units_in(ledger: Ledger, dim: int, *, by_study: bool = False, failed: bool = False) -> Iterator[EmbeddedUnit]:
    """Yield the units that a ledger keeps, with their vectors, rows as files.parquet has them.

    Args:
        ledger: Ledger whose files are numbered.
        dim: D, the length of a vector.
        by_study: Whether units of a study come side by side, studies by their first file; else in the order of files.
        failed: Whether units that failed after their modality was known are yielded instead, without vectors.
    """
    for row, study, grouped, patient, modality, kind, sha256, features, *others in ledger.units(
        by_study=by_study, failed=failed
    ):
        laterality, view, body_part, headers, burned_in, stranger, instead_of, look = others
        yield EmbeddedUnit(
            row,
            study,
            grouped,
            patient,
            modality,
            kind,
            sha256,
            np.frombuffer(features, "<f4").reshape(-1, dim),
            laterality,
            view,
            body_part,
            headers,
            bool(burned_in),
            bool(stranger),
            instead_of,
            look,
        )

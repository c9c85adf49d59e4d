"""What a caller may ask of a scoring run, as one value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from medclip.errors import MedclipError, Reason, Status, did_you_mean
from medclip.files.grouping.studies import GroupBy
from medclip.files.grouping.studies import parse_modality as modality_named
from medclip.sample import Modality
from medclip.text.vocabulary.own_words import Prompt

GROUP_BY: tuple[GroupBy, ...] = ("auto", "folder", "file")
FAILING = tuple(str(reason) for reason in Reason if reason.status is Status.FAILED)
"""Reasons that may be named to try files again."""
RETRY = "retry"
"""What the ledger keeps of the files that the next call of a run tries again: their reason, "" for all."""


@dataclass(frozen=True)
class ScoreOptions:
    """Everything that decides the rows of a run, besides the files and the model pack."""

    tasks: tuple[str, ...] = ()
    """Tasks to score; those of the pack's card where neither tasks nor a prompt are named."""
    prompts: tuple[Prompt, ...] = ()
    """What to score in a person's own words (`read_prompts`), each as a class of a task of their own."""
    templates: bool = True
    """Phrase prompts that but name a finding in the sentences of the study's modality."""
    table: Any = None
    """A manifest that names study, patient and modality of files: a Path, a data frame or a `Manifest`."""
    modality: Modality | None = None
    """Modality of the files that neither the table nor their header names."""
    min_confidence: float = 0.8
    """Least probability at which an inferred modality is believed. Below it the file is skipped, not guessed: scored
    with the wrong adapter and the wrong tasks, it would look like any other result."""
    group_by: GroupBy = "auto"
    hash_paths: bool = False
    """Keyed hashes stand in the place of paths in the tables and, once the run is finished, in the ledger."""
    thumbnails: bool = True
    """Keep small images for the report."""
    exam: bool | None = None
    """Ask mammography examinations by their views: as a whole, by breast and by image. None: where the pack fuses
    views."""
    pool: str | None = None
    """How the answers of breasts become that of the examination; None: as the pack's card says."""
    weeks: bool = False
    """Write the ISO week of each examination, from the header, into the header values of its files."""

    def __post_init__(self) -> None:
        """Check what can be checked without files or models.

        Raises:
            MedclipError: WRONG_USE.
        """
        if not 0.0 <= self.min_confidence <= 1.0:
            raise MedclipError(Reason.WRONG_USE, f"a confidence lies between 0 and 1, not {self.min_confidence:g}.")
        if self.group_by not in GROUP_BY:
            raise MedclipError(
                Reason.WRONG_USE,
                f"files are grouped by {', '.join(GROUP_BY)}, not {self.group_by!r}.",
                hint=did_you_mean(self.group_by, GROUP_BY),
            )


def parse_modality(name: str | None, *, or_unknown: bool = False) -> Modality | None:
    """Turn a modality's name into the value.

    Args:
        name: The name; None where none is named.
        or_unknown: Whether "unknown" is one.

    Raises:
        MedclipError: WRONG_USE with the names there are.
    """
    return None if name is None else modality_named(name, or_unknown=or_unknown)


def failed_for(reason: str | None) -> str | None:
    """Return the reason of the files to try again; "" for all.

    Raises:
        MedclipError: WRONG_USE for a reason that no file fails for.
    """
    if reason is not None and reason != "all" and reason not in FAILING:
        raise MedclipError(
            Reason.WRONG_USE,
            f"no file fails for the reason {reason!r}.",
            hint=did_you_mean(reason, ["all", *FAILING], "Reasons are"),
        )
    return "" if reason == "all" else reason

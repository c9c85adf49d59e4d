"""From a path that a table names to the unit that is read: a file, or the folder of one series, slide or record."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medclip.adapters.base import Source, single
from medclip.errors import MedclipError, Reason
from medclip.files.discover import discover
from medclip.files.grouping.units import units_of
from medclip.files.recognise.inspect import inspect_file
from medclip.files.tables.manifest import file_named
from medclip.sample import FileRef
from medclip.settings import Settings


def source_of(path: Path, settings: Settings) -> Source:
    """Look at what a path names.

    Args:
        path: A file; or a folder with the files of one series, slide or record and nothing else that could be read. A
            WFDB record may be named without the suffix of its header, as tables of PhysioNet do.
        settings: Limits and policy.

    Returns:
        The unit. Facts of a single file may carry a problem, which reading then raises.

    Raises:
        MedclipError: MISSING_FILE; the problem of the series in a folder; WRONG_USE for a folder of several things.
    """
    if not path.is_dir():
        path = file_named(path)
        return single(path, inspect_file(path, settings))
    refs = discover(path, follow_links=settings.follow_links)
    return source_of_files(path, [ref for ref in refs if ref.problem is None], settings)


def source_of_files(where: Path, refs: Sequence[FileRef], settings: Settings) -> Source:
    """Look at files that make one unit: one image, or a series, slide or record.

    Args:
        where: Path that errors name.
        refs: The files; their names tell them apart.
        settings: Limits and policy.

    Raises:
        MedclipError: As `source_of`.
    """
    pairs = [(ref, inspect_file(ref.path, settings)) for ref in refs]
    if len(pairs) == 1 and not where.is_dir():
        return single(pairs[0][0].path, pairs[0][1])
    usable = [(ref, facts) for ref, facts in pairs if facts.problem is None]
    units = units_of(usable, uneven=settings.policy.uneven_slices)
    units = tuple(u for u in units if u.problem is None or u.problem.reason is not Reason.COMPANION) or units[:1]
    if len(units) != 1:
        raise MedclipError(
            Reason.WRONG_USE,
            f"this folder holds {len(units)} things to read; a folder in a table is one series, slide or record.",
            where=where,
            hint="Name the files, or one folder for each series.",
        )
    (unit,) = units
    if unit.problem is not None:
        raise unit.problem.error(where)
    facts_of = {ref.name: facts for ref, facts in usable}
    return Source(unit.kind, tuple(r.path for r in unit.files), tuple(facts_of[r.name] for r in unit.files), unit.notes)

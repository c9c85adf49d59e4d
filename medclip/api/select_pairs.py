"""The verbs of selections: pairs of a pile are kept or dropped by steps; selections are intersected and united."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.api.groups.reading import ImageRoot, Limits, TextTables
from medclip.api.groups.running import Machine, Overwriting, Recipe, Told, settings_of
from medclip.errors import MedclipError, Reason
from medclip.options import argument, option, options
from medclip.pairs.selection.steps import FILTERS
from medclip.verbs import verb

if TYPE_CHECKING:
    from medclip.pairs.selection.run_steps import SelectionReport
    from medclip.shards.selection import Selection


@options
class SelectOptions(Told, Limits, Recipe, ImageRoot, TextTables, Machine, Overwriting):
    """What `pairs select` is asked."""

    pairs: str | Path = argument(
        "Folder of shards, also of others (`medclip shards index`), here or in a store; or a table with the columns "
        "file and caption, and where known report, patient, modality, source, license and split.",
        place=True,
    )
    steps: Any = option(
        "YAML file with a seed and steps in their order, each with its settings. Steps: "
        f"{'; '.join(f'{name}: {row.about}' for name, row in FILTERS.items())}. In Python also a mapping.",
        form="FILE",
        kind=Path,
        often=True,
        place=True,
    )
    out: str | Path = option("File of the selection to write (Parquet).", form="FILE", often=True, place=True)
    split: str | None = option(
        "Split that is selected from. Default: all of them.", default=None, form="NAME", often=True
    )


@verb(SelectOptions)
def select(options: SelectOptions) -> SelectionReport:
    """Keep or drop the pairs of shards or of a table by an ordered list of steps, and write which became what.

    The selection is one small Parquet file with a row for each pair: its key, its split, whether it is kept, the step
    that dropped it, the value that was measured, and its weight. No shard is copied or changed: `data.selection` of a
    recipe trains on what is kept. A step sees what those before it kept. The same pile, steps and seed give the same
    selection.

    Returns:
        Counts by step, and the share that is kept by modality, source and split; `.selection` are the rows.

    Raises:
        MedclipError: MISSING_FILE, TABLE_INVALID or WRONG_USE for pairs that cannot be read; RECIPE_INVALID for steps
            or settings that there are none of; OUTPUT_IN_USE; what a step raises.

    Example:
        >>> import medclip
        >>> medclip.pairs.select("shards", steps="select.yaml", out="kept.parquet").num_kept  # doctest: +SKIP
    """
    from dataclasses import replace

    from medclip.files.output import claim_file
    from medclip.files.tables.table import TextForm
    from medclip.pairs.pile import read_pile
    from medclip.pairs.selection.run_steps import read_steps, run_steps
    from medclip.shards.selection import write_selection

    out, settings, form = Path(options.out), settings_of(options), TextForm(options.encoding)
    claim_file(out, overwrite=options.overwrite)
    steps = read_steps(options.steps if isinstance(options.steps, Mapping) else Path(options.steps))
    pile = read_pile(
        options.pairs,
        split=options.split,
        images=None if options.images is None else Path(options.images),
        form=form,
        settings=settings,
        progress=options.progress,
    )
    report = run_steps(pile, steps, form=form, settings=settings, progress=options.progress)
    assert report.selection is not None
    write_selection(report.selection, out, overwrite=options.overwrite)
    return replace(report, out=out)


@options
class CombineOptions(Recipe, Overwriting):
    """What `pairs intersect` and `pairs union` are asked."""

    selections: Sequence[str | Path] = argument(
        "Selection of the same pile, from `medclip pairs select`; two or more.",
        form="SELECTION...",
        kind=Path,
        place=True,
    )
    out: str | Path = option("File of the selection to write (Parquet).", form="FILE", often=True, place=True)


@verb(CombineOptions)
def intersect(options: CombineOptions) -> SelectionReport:
    """Keep the pairs that all of some selections keep; their weights multiply.

    Returns:
        Counts; `.selection` are the rows.

    Raises:
        MedclipError: WRONG_USE for fewer than two, and for selections of different piles; TABLE_INVALID for a file that
            is no selection; OUTPUT_IN_USE.

    Example:
        >>> import medclip
        >>> medclip.pairs.intersect(["a.parquet", "b.parquet"], out="both.parquet").num_kept  # doctest: +SKIP
    """
    from medclip.shards.selection import intersect

    return _combine(options, intersect)


@verb(CombineOptions)
def union(options: CombineOptions) -> SelectionReport:
    """Keep the pairs that any of some selections keeps, with the largest of their weights.

    Returns:
        Counts; `.selection` are the rows.

    Raises:
        MedclipError: WRONG_USE for fewer than two, and for selections of different piles; TABLE_INVALID for a file that
            is no selection; OUTPUT_IN_USE.

    Example:
        >>> import medclip
        >>> medclip.pairs.union(["a.parquet", "b.parquet"], out="either.parquet").num_kept  # doctest: +SKIP
    """
    from medclip.shards.selection import union

    return _combine(options, union)


def _combine(options: CombineOptions, combine: Callable[[Selection, Selection], Selection]) -> SelectionReport:
    from dataclasses import replace

    from medclip.files.output import claim_file
    from medclip.pairs.selection.run_steps import report_of
    from medclip.shards.selection import read_selection, write_selection

    out = Path(options.out)
    if isinstance(options.selections, str | Path) or len(options.selections) < 2:
        raise MedclipError(Reason.WRONG_USE, "two selections or more are combined.", hint="Name another one.")
    claim_file(out, overwrite=options.overwrite)
    selection = reduce(combine, (read_selection(Path(path)) for path in options.selections))
    write_selection(selection, out, overwrite=options.overwrite)
    return replace(report_of(selection), out=out)

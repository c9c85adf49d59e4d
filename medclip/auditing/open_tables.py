"""All tables of an audit, read at its beginning: each once, however many questions name it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from medclip.auditing.input.options import ReadOptions
from medclip.auditing.input.score_table import ScoreSource, open_scores
from medclip.auditing.options import MeasureOptions
from medclip.files.tables.read_table import read_table
from medclip.files.tables.table import Table
from medclip.shards.folder import INDEX


@dataclass(frozen=True, eq=False)
class OpenTables:
    """What an audit was given, as tables."""

    scores: Mapping[str, ScoreSource]
    """Of each model, by its name."""
    labels: Table | None
    """None where the scores are the label table too."""
    options: MeasureOptions
    """With tables in the place of paths and data frames: `thresholds.choose_on`, `thresholds.choose_labels`,
    `shortcuts.masked`, `image_checks.training`. Embeddings and shard folders stay paths: they are read where they are
    needed, once."""


def open_tables(scores: Mapping[str, Any], labels: Any, reading: ReadOptions, options: MeasureOptions) -> OpenTables:
    """Read every table of an audit.

    Args:
        scores: Scores of each model, by its name, as `open_scores` takes them.
        labels: The label table; None where it is the table of scores itself.
        reading: Options of reading: the files.parquet of scores of `medclip score`, and how text was written.
        options: Options of measuring, which name the other tables.

    Raises:
        MedclipError: What reading tables raises.
    """
    tables: dict[object, tuple[Any, Table]] = {}

    def read(source: Any, what: str) -> Table:
        """Read a table, or return it where it was read: files are known by path, data frames by identity."""
        known_by = Path(source).absolute() if isinstance(source, str | Path) else id(source)
        if known_by not in tables:
            tables[known_by] = (
                source,
                read_table(source, what, reading.text),
            )  # the source is held, so that its id stays its own
        return tables[known_by][1]

    def read_labels(source: Any) -> Table | None:
        return None if source is None else read(source, "the table of labels")

    score = partial(open_scores, files=reading.files, read=read, level=reading.level)
    choosing, shortcuts, image_checks = options.thresholds, options.shortcuts, options.image_checks
    choose_on = choosing.choose_on
    if isinstance(choose_on, Mapping):
        choose_on = {name: score(source) for name, source in choose_on.items()}
    return OpenTables(
        scores={name: score(source) for name, source in scores.items()},
        labels=read_labels(labels),
        options=replace(
            options,
            reference=None if options.reference is None else read(options.reference, "the table of reference"),
            thresholds=replace(
                choosing,
                choose_on=choose_on if choose_on is None or isinstance(choose_on, Mapping) else score(choose_on),
                choose_labels=read_labels(choosing.choose_labels),
            ),
            shortcuts=replace(shortcuts, masked=None if shortcuts.masked is None else score(shortcuts.masked)),
            image_checks=replace(
                image_checks,
                training=tuple(
                    source if _is_shard_folder(source) else read(source, "the table of training files")
                    for source in image_checks.training
                ),
            ),
        ),
    )


def _is_shard_folder(source: Any) -> bool:
    """Whether training data are a folder of shards and no table."""
    return isinstance(source, str | Path) and (Path(source) / INDEX).is_file()

"""A suite of a person's own words: of each prompt whether it is true, by a column of one table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from medclip.adaptation.data.labels import binary
from medclip.errors import MedclipError, Reason
from medclip.evaluation.zero_shot.suite import ABSENT, PRESENT, GroupFile, SetFile, SuiteFile, TableFile
from medclip.files.grouping.studies import parse_modality
from medclip.files.tables.cells import shown, shown_name
from medclip.files.tables.read_table import read_table
from medclip.files.tables.table import Table, close_names, listed
from medclip.sample import Modality, every_modality, spoken
from medclip.schema_faults import faults_of
from medclip.shards.writing.table import UNCERTAIN, modality_named
from medclip.text.vocabulary.own_words import Prompt, templates_of

GROUP = "own_words"


def words_suite(
    data: str | Path,
    prompts: Sequence[Prompt],
    labels: Sequence[str],
    *,
    modality: Modality | str | None = None,
    patient: str | None = None,
) -> tuple[Path, SuiteFile]:
    """Return the folder of a table, and a suite with one set for each prompt: its rows, asked as `medclip score` asks.

    Args:
        data: Table with the column `file` and those of the labels, or the folder of a labels.csv.
        prompts: Prompts, in their order.
        labels: For each prompt the column that says whether it is true (1, 0, -1 or blank for not known), or
            "COLUMN=VALUE" for a column of names of which one means it.
        modality: Modality of rows whose table says none.
        patient: Column that names the patient; None for `patient`, where it is there.

    Raises:
        MedclipError: MISSING_FILE; TABLE_INVALID for a column that is not there, does not say whether a prompt is true,
            or has one answer only; WRONG_USE for another number of labels than of prompts.
    """
    if len(labels) != len(prompts):
        raise MedclipError(
            Reason.WRONG_USE,
            f"prompts and labels come in pairs: {len(prompts)} and {len(labels)} were given.",
            hint="Name one --label for each --prompt, in their order.",
        )
    path = Path(data)
    path = path / TableFile().name if path.is_dir() else path
    table = read_table(path).with_names((*labels, *(label.partition("=")[0] for label in labels), "modality"))
    of_rows = _modality(table, None if modality is None else parse_modality(modality))
    form = {"name": path.name, "patient": patient or "patient"}
    sets = []
    for number, (prompt, label) in enumerate(zip(prompts, labels, strict=True), 1):
        column, value = (label, None) if label in table.names else _parted(label)
        sentences = prompt.of_modality(of_rows).sentences(templates_of(of_rows))
        name = re.sub(r"[^A-Za-z0-9]+", "_", prompt.name).strip("_")
        classes = ((ABSENT, sentences.negative), (PRESENT, sentences.positive))
        entry = {
            "id": name if name and name not in {one.id for one in sets} else f"prompt_{number}",
            "group": GROUP,
            "modality": of_rows,
            "folder": ".",
            "table": {**form, "label": column},
            "values": _meaning(table, column, value),
            "classes": [{"name": of_class, "prompts": texts} for of_class, texts in classes],
            "metric": "auroc",
            "note": f"“{' | '.join(prompt.texts)}” against “{' | '.join(prompt.against)}”, true where "
            f"{shown_name(column)} is {'1' if value is None else shown(value)}",
        }
        try:
            sets.append(SetFile.model_validate(entry))
        except ValidationError as e:
            faults, hint = faults_of(e, SetFile, "a prompt")
            raise MedclipError(Reason.WRONG_USE, f"the prompt cannot be measured: {faults}.", hint=hint) from e
    group = GroupFile(id=GROUP, title="Your own words")
    return path.parent, SuiteFile(name=GROUP, title=group.title, groups=(group,), sets=tuple(sets), is_averaged=False)


def _parted(label: str) -> tuple[str, str | None]:
    column, equals, value = label.partition("=")
    return column, value if equals else None


def _modality(table: Table, fallback: Modality | None) -> Modality:
    """Return the one modality of all rows."""
    try:
        stated = {modality_named(cell) or fallback for cell in table.texts("modality")}
    except MedclipError as e:
        raise MedclipError(e.reason, e.message, where=table.where, hint=e.hint) from None
    if None in stated or not stated:
        raise MedclipError(
            Reason.TABLE_INVALID,
            "nothing says of which modality the files are.",
            where=table.where,
            hint=f"Name it with --modality, one of: {', '.join(every_modality())}.",
        )
    one, *others = sorted(name for name in stated if name is not None)
    if others:
        names = " and ".join(spoken(name) for name in (one, *others))
        raise MedclipError(
            Reason.TABLE_INVALID,
            f"the rows are of several modalities: {names}.",
            where=table.where,
            hint="Measure the rows of each by themselves: what tells one modality from another says nothing of a "
            "finding.",
        )
    return one


def _meaning(table: Table, column: str, value: str | None) -> dict[str, str | None]:
    """Return what each cell of a column means."""
    if column not in table.names:
        raise MedclipError(
            Reason.TABLE_INVALID,
            f"there is no column {shown_name(column)}. {listed(table.names)}",
            where=table.where,
            hint=close_names(column, table.names),
        )
    cells = dict.fromkeys(table.texts(column))
    if value is not None:
        meaning = {cell: PRESENT if cell == value else ABSENT if cell else None for cell in cells}
    else:
        answers = {1.0: PRESENT, 0.0: ABSENT, UNCERTAIN: None, None: None}
        strange = next((cell for cell in cells if binary(cell) not in answers), None)
        if strange is not None:
            raise MedclipError(
                Reason.TABLE_INVALID,
                f"the column {shown_name(column)} has {shown(strange)}, which is neither 1 nor 0.",
                where=table.where,
                hint=f"Name the value for which the prompt is true, as in --label {column}=VALUE.",
            )
        meaning = {cell: answers[binary(cell)] for cell in cells}
    if not {PRESENT, ABSENT} <= {*meaning.values()}:
        lacks = "for which the prompt is true" if PRESENT not in meaning.values() else "for which it is not"
        of_value = "" if value is None else f" The value asked for is {shown(value)}; case counts."
        raise MedclipError(
            Reason.TABLE_INVALID,
            f"the column {shown_name(column)} has no row {lacks}.{of_value}",
            where=table.where,
            hint="Words are measured on images of both kinds.",
        )
    return meaning

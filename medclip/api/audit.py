"""The audit as one call: measure, write tables, thresholds and page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from medclip.api.run_arguments import folder_of
from medclip.auditing.input.options import ReadOptions
from medclip.auditing.options import AuditOptions
from medclip.auditing.provenance.inputs import change_paths, paths_of, relative_place
from medclip.auditing.provenance.origin import Origin, recipe_of_call
from medclip.auditing.provenance.rerun import NOTE as RUN
from medclip.auditing.provenance.rerun import PLACES, asked_recipe, is_audit
from medclip.auditing.provenance.seal import seal
from medclip.auditing.recipe import AuditRecipe, audit_recipe, is_recipe
from medclip.auditing.result import JSON, AuditResult, write_json, write_tables
from medclip.auditing.thresholds.file import write_thresholds
from medclip.errors import MedclipError, Reason
from medclip.export.formats import FILES, check_formats, write_formats
from medclip.files.disk.input_paths import refuse_missing
from medclip.files.output import (
    claim_folder,
    digest_of,
    disk_errors,
    read_own_note,
    refuse_other,
    write_file,
    write_note,
)
from medclip.files.stores.remote import place_of
from medclip.files.stores.store_files import is_store
from medclip.models.packs.pack import find_pack
from medclip.progress import Progress
from medclip.runs.outputs.fetched_results import FetchedResults, fetched_results
from medclip.runs.outputs.score_run import ScoreRun
from medclip.settings import Settings
from medclip.wording import list_of

THRESHOLDS = "thresholds.json"
UNFINISHED = '{"finished": false}\n'
"""What the JSON of an audit says until all its tables are written."""
SCORES = "file or folder of scores"
_ANY_SCORES = "scores"
"""Stands for scores of any kind where only the other options of a recipe are wanted."""


def audit(
    scores: Any,
    labels: Any = None,
    *,
    by: Sequence[str] = (),
    label: Sequence[str] | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    name: str = "",
    compare: Mapping[str, Any] | None = None,
    reading: ReadOptions | None = None,
    options: AuditOptions | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
    **keys: Any,
) -> AuditResult:
    """Ask whether a model works for every patient group, and how sure that is.

    Args:
        scores: What `medclip.score` returned, or its folder; CSV, TSV or Parquet file, either also by the URL of a
            store; any data frame that narwhals knows; a recipe: a YAML file with the options of `medclip audit` by
            name, which the other arguments override; or the `audit.json` of an audit, which is run again. With `task`,
            `model` and `images` (a folder, or embeddings): the label table, whose images the pack scores.
        labels: Table of truths, patients and groups; None where it is the table of scores itself.
        by: What divides patients into groups: `sex`, `age`, `race`, `site`, `scanner`, `view`, any column, "sex*age".
        label: Labels; "SCORE=COLUMN" where names differ; None for all that have score and truth.
        out: Folder for tables, thresholds and page: new, empty, or of this same audit; None: nothing is written.
        overwrite: Replace another audit in it.
        name: Of the model; "" for the name of the folder or file.
        compare: Scores of other models by their name.
        reading: How tables are read.
        options: What is measured, and how surely.
        settings: Limits and number of reading processes, where images are read.
        progress: Told of every stage.
        **keys: Any other option of `medclip audit` by its name: `patient="mrn"`, `where={"split": "test"}`,
            `num_resamples=500`, `format=["chai"]`; not beside `reading` and `options`, which hold the same as values.

    Returns:
        All tables. `leaks` says whether training and audit share something that they must not.

    Raises:
        MedclipError: What reading raises; PATIENT_OVERLAP where thresholds were chosen on audited patients;
            OUTPUT_IN_USE for a folder that holds another audit or something else; DISK_FULL; of a store as
            `medclip.runs.outputs.fetched_results.FetchedResults.results`.

    Example:
        >>> import pyarrow
        >>> n = 200
        >>> table = pyarrow.table({
        ...     "patient": [str(i // 2) for i in range(n)], "sex": ["FM"[i // 2 % 2] for i in range(n)],
        ...     "flu": [i // 4 % 2 for i in range(n)], "flu_score": [(i * 37 % 100) / 100 for i in range(n)]})
        >>> found = audit(table, by=["sex"], options=AuditOptions(num_resamples=100, permutations=100))
        >>> found.labels, found.attributes
        (('flu',), ('sex',))
    """
    with fetched_results() as fetched:
        about = {key: keys.pop(key, None) for key in ("auditor", "question", "audited_on")}
        formats: Sequence[str] = keys.pop("format", ())
        formats = [formats] if isinstance(formats, str) else formats
        if "images" in keys:
            keys["images"] = folder_of(keys["images"])
        if keys.get("model") is not None:
            keys["model"] = str(getattr(keys["model"], "path", keys["model"]))  # a loaded one stands for its pack
        if keys and (reading is not None or options is not None):
            raise MedclipError(
                Reason.WRONG_USE,
                f"{list_of(list(keys))} beside reading or options: one of them would not count.",
                hint="Name options, or put all of them into reading=ReadOptions(...) and options=AuditOptions(...).",
            )
        scores, labels = fetched.results(scores), fetched.results(labels)
        compare = {other: fetched.results(table) for other, table in (compare or {}).items()}
        given = {"by": by, "label": label, "name": name, "compare": compare}
        recipe: AuditRecipe | None
        if isinstance(scores, AuditRecipe) or is_recipe(scores) or is_audit(scores):
            changes = keys | about | given | {"labels": labels, "out": out, "overwrite": overwrite, "format": formats}
            recipe = _fetched(_with_changes(scores, changes), fetched)
            taken = recipe.arguments()
            scores, labels, by, label = taken["scores"], taken["labels"], taken["by"], taken["label"]
            out, overwrite, name, compare = taken["out"], taken["overwrite"], taken["name"], taken["compare"]
            formats = recipe.format
            if reading is not None or options is not None:
                recipe = None  # what is asked is not what the file says
            reading, options = reading or taken["reading"], options or taken["options"]
        elif reading is None and options is None:
            named = _fetched(audit_recipe(_ANY_SCORES, keys | {"name": name}), fetched)
            reading, options = named.reading(), named.options()
            recipe = recipe_of_call(scores, labels, given, keys | about | {"format": list(formats)})
            recipe = None if recipe is None else _fetched(recipe, fetched)
        else:
            recipe = None
        origin = Origin(recipe, **(about if recipe is None else {key: getattr(recipe, key) for key in about}))
        check_formats(formats)
        _refuse_missing([scores, *(compare or {}).values()], labels, options)
        folder = None if out is None else Path(out)
        asked_for = _identity(scores, labels, by, label, name, compare, reading, options, fetched)
        inputs = {"what is audited": scores, "the table of labels": labels}
        inputs = {words: Path(path) for words, path in inputs.items() if isinstance(path, str | Path)}
        if folder is not None and claim_folder(folder, "audit", marks=(JSON, RUN), inputs=inputs):
            known = read_own_note(folder / RUN, "audit")
            if not overwrite:
                remedy = "Name another folder, or replace it with --overwrite."
                refuse_other(folder, "audit", known, asked_for, remedy=remedy)
        from medclip.auditing.run import (
            run_audit,
        )  # scikit-learn and scipy: seconds that no refusal above has to wait for
        from medclip.reports.audit.annex.methods import LIMITS
        from medclip.reports.audit.report import REPORT, write_audit_report
        from medclip.reports.audit.summary.words import summary

        run = run_audit(
            scores,
            labels,
            by=by,
            label=label,
            name=name,
            compare=compare,
            reading=reading,
            options=options,
            settings=settings,
            progress=progress,
        )
        result = replace(run.result, provenance={**run.result.provenance, **origin.written()})
        if folder is None:
            return result
        places = {} if recipe is None else {k: _place(p, folder, fetched) for k, p in paths_of(recipe).items()}
        write_note(folder / RUN, "audit", asked_for | {PLACES: {k: place for k, place in places.items() if place}})
        # What lay here goes: a page or a JSON of another audit must not stand beside tables of this one.
        write_file(folder / JSON, UNFINISHED)
        with disk_errors(folder):
            for name_of_file in (REPORT, *FILES.values()):
                (folder / name_of_file).unlink(missing_ok=True)
        hashes = write_tables(result, folder)
        write_thresholds(folder / THRESHOLDS, run.thresholds.values())
        result = write_audit_report(replace(result, sealed=seal(hashes, result)), folder)
        write_json(result, folder)
        matters = {matter.head: matter.all for matter in summary(result)}
        write_formats(formats, result, matters | {"Limits": ("What this audit cannot tell:", *LIMITS)}, folder)
        return result


_ON_DISK = frozenset({"images", "model", "task", "training", "key_file"})
"""Keys of paths that are more than results and tables."""


def _fetched(recipe: AuditRecipe, fetched: FetchedResults) -> AuditRecipe:
    """Return a recipe of which what lies in a store is named by its copy.

    Raises:
        MedclipError: WRONG_USE for images, packs, shards and keys of a store; as `FetchedResults.results`.
    """
    urls: list[str] = []

    def local(key: str, path: str) -> str:
        if not is_store(Path(path)):
            return path
        if key.partition(":")[0] in _ON_DISK:
            raise MedclipError(
                Reason.WRONG_USE, f"--{key.partition(':')[0].replace('_', '-')} is read from a disk.",
                where=place_of(Path(path)), hint="Copy it to a folder of this machine, and name that.",
            )  # fmt: skip
        urls.append(path)
        return str(fetched.results(Path(path)))

    values = change_paths(recipe, local)
    if not urls:
        return recipe
    same = {name: getattr(recipe, name) for name in ("out", "overwrite", "changed_inputs")}
    return AuditRecipe.model_validate({**same, **values}).with_file(recipe.file_of_its_own())


def _place(path: Path, folder: Path, fetched: FetchedResults) -> str | None:
    """Return where an input lies: its URL, or its place as seen from the audit's folder."""
    return fetched.url_of(path) or relative_place(path, folder)


def _with_changes(scores: Any, values: Mapping[str, Any]) -> AuditRecipe:
    """Return a recipe, or that of a file, with what was named beside it."""
    changes = {
        key: value for key, value in values.items() if not (value is None or value is False or value in ((), ""))
    }
    compare: Mapping[str, Any] | None = changes.pop("compare", None)
    if compare:
        changes["compare"] = [f"{name}={path}" for name, path in compare.items()]
    if not isinstance(scores, AuditRecipe):
        return asked_recipe(scores, changes)
    named = audit_recipe(scores.scores, changes)
    return scores.model_copy(update={key: getattr(named, key) for key in changes})


def _identity(
    scores: Any,
    labels: Any,
    by: Sequence[str],
    label: Sequence[str] | None,
    name: str,
    compare: Mapping[str, Any] | None,
    reading: ReadOptions | None,
    options: AuditOptions | None,
    fetched: FetchedResults,
) -> dict[str, Any]:
    """Return what makes two audits the same. Paths and options are hashed: they may name somebody."""

    def place(path: str | Path) -> str:
        return fetched.url_of(path) or str(Path(path).resolve())

    def source(table: Any) -> str | None:
        table = table.folder if isinstance(table, ScoreRun) else table
        return digest_of(place(table)) if isinstance(table, str | Path) else None

    return {
        "scores": source(scores),
        "labels": source(labels),
        "grouping": list(by),
        "audited labels": None if label is None else list(label),
        "name": name,
        "compared models": {other: source(table) for other, table in (compare or {}).items()},
        "reading of tables": digest_of(_written(reading or ReadOptions(), place)),
        "options": digest_of(_written(options or AuditOptions(), place)),
    }


def _written(value: Any, place: Callable[[Path], str]) -> Any:
    """Write options so that a path is the same however it leads to its file."""
    if is_dataclass(value):
        return {field.name: _written(getattr(value, field.name), place) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _written(one, place) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_written(one, place) for one in value]
    return place(value) if isinstance(value, Path) else repr(value)


def _refuse_missing(scores: Sequence[Any], labels: Any, options: AuditOptions | None) -> None:
    """Refuse paths that lead nowhere, before anything is imported that takes seconds."""
    for source in scores:
        refuse_missing(source, SCORES)
    refuse_missing(labels, "table")
    if options is None:
        return
    refuse_missing(options.reference, "table of reference")
    refuse_missing(options.image_checks.images, "folder")
    refuse_missing(options.image_checks.embeddings, "file of embeddings")
    for source in options.image_checks.training:
        refuse_missing(source, "shard folder or table")
    if options.image_checks.model is not None:
        find_pack(options.image_checks.model)

"""The verb `audit`: does a model work for every patient group? It measures, and writes tables, thresholds and page."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.api.groups.asking import Chance
from medclip.api.groups.reading import Identity, Limits
from medclip.api.groups.running import Overwriting, Recipe, Told
from medclip.auditing.option_groups import (
    Beforehand,
    Columns,
    EmbeddingQuestions,
    ImagesAndTraining,
    Meaning,
    Models,
    Pages,
    PatientGroups,
    Resampling,
    Shortcuts,
    Stressing,
    ThresholdSources,
)
from medclip.auditing.shapes import listed, pairs
from medclip.options import argument, needs, option, options, options_of
from medclip.verbs import by_name, read_recipe, recipe_of, verb

if TYPE_CHECKING:
    from medclip.auditing.input.options import ReadOptions
    from medclip.auditing.options import MeasureOptions
    from medclip.auditing.provenance import Origin
    from medclip.auditing.result import AuditResult
    from medclip.auditing.run import AuditRun
    from medclip.runs.outputs.fetched_results import FetchedResults

THRESHOLDS = "thresholds.json"
UNFINISHED = '{"finished": false}\n'
"""What the JSON of an audit says until all its tables are written."""
SCORES = "file or folder of scores"
_ON_DISK = frozenset({"images", "model", "task", "training", "key_file"})
"""Options of paths that are more than results and tables."""


@options
class AuditOptions(
    Told,
    Limits,
    Recipe,
    Overwriting,
    Pages,
    Chance,
    Resampling,
    Stressing,
    EmbeddingQuestions,
    Identity,
    ImagesAndTraining,
    Shortcuts,
    Models,
    Beforehand,
    ThresholdSources,
    PatientGroups,
    Meaning,
    Columns,
):
    """What `audit` is asked."""

    scores: Any = argument(
        "Scores or maps of medclip score, or any table of scores; a recipe (.yaml); or an audit.json, which is run "
        "once more. Scores are a folder, or CSV, TSV or Parquet, whatever its suffix, and may lie in a store "
        "(s3://...). Options override a recipe. In Python also what `medclip.score` returned, and any data frame.",
        form="SCORES|RECIPE|AUDIT_JSON",
        kind=Path,
        place=True,
        present=SCORES,
    )
    labels: Any = argument(
        "Table of truths, patients and groups. It is CSV, TSV or Parquet, whatever its suffix. Default: the scores.",
        default=None,
        form="TABLE",
        kind=Path,
        named=True,
        needed=False,
        place=True,
        present="table",
    )
    by: Sequence[str] | str = option(
        "What divides patients: sex, age, race, site, scanner, view, any column, sex*age.",
        default=(),
        form="GROUP",
        often=True,
        read=listed,
    )
    label: Mapping[str, str] | Sequence[str] | str | None = option(
        "Label that is audited; of maps a column of mask files. SCORE=COLUMN names both columns. Default: all that "
        "match.",
        default=(),
        form="SCORE=COLUMN",
        often=True,
        read=pairs,
    )
    patient: str | None = option(
        "Column that names the patient. COLUMN~PATTERN takes the part of the cell that a regular expression finds, "
        "such as Path~patient[0-9]+ where only the path names the patient. Without it patient, patient_id, subject_id "
        "and the like are known.",
        default=None,
        form="COLUMN",
        often=True,
    )
    out: str | Path | None = option(
        "Folder for page and tables: new, empty, or of this same audit. In Python nothing is written without it.",
        default=None,
        form="DIR",
        often=True,
        of_call=True,
        place=True,
    )

    rules = (
        needs(
            "has_stored_vectors",
            "model",
            "embeddings are read for the pack that computed them, and none is named.",
            hint="Name it with --model.",
            where="embeddings",
        ),
        needs(
            ("study", "drift", "date", "attacker"),
            ("embeddings", "can_encode"),
            "{names}: this is asked of embeddings, and there are none.",
            hint="Give embeddings, or a pack and the folder of images.",
        ),
        needs(
            ("stress", "task"),
            ("can_encode", "has_stored_vectors"),
            "images can only be scored where there are a pack and a folder of images.",
            hint="Name both: --model PACK --images FOLDER.",
        ),
    )

    @property
    def can_encode(self) -> bool:
        """Whether there are images and a model for them."""
        return self.images is not None and self.model is not None

    @property
    def has_stored_vectors(self) -> bool:
        """Whether there are embeddings that `medclip embed` wrote."""
        from medclip.embeddings.open_embeddings import is_embeddings

        stored = self.embeddings
        return stored is not None and (not isinstance(stored, str | Path) or is_embeddings(stored))

    @staticmethod
    def with_recipe(named: Mapping[str, Any]) -> dict[str, Any]:
        """Return what is named, with the values of a recipe or an audit.json below it; it may stand as scores, too."""
        known, values, recipe, scores = options_of(AuditOptions), dict(named), named.get("recipe"), named.get("scores")
        if recipe is None and not _may_be_recipe(scores):
            return values
        from medclip.auditing.provenance import is_audit, read_rerun
        from medclip.auditing.recipe import is_recipe

        if recipe is None and (is_recipe(scores) or is_audit(scores)):
            recipe = values["recipe"] = values.pop("scores")
        if recipe is None:
            return values
        if not is_audit(recipe):
            return {**read_recipe(recipe, known, values), **values}
        changes = {name for name in values if known[name].kind is not None and not known[name].is_of_call}
        again = read_rerun(Path(recipe), changes, changed_inputs=values.get("changed_inputs", False))
        return {**by_name(again, known), **values}


def _may_be_recipe(scores: Any) -> bool:
    """Whether it is worth importing what reads recipes: a second that a slip in a path shall not take."""
    if not isinstance(scores, (str, os.PathLike)):
        return False
    return os.path.isfile(scores) or os.fspath(scores).endswith((".yaml", ".yml"))


@verb(AuditOptions)
def audit(options: AuditOptions) -> AuditResult:
    """Measure a model in every patient group, with intervals that resample patients; write a page and tables.

    A recipe is a YAML file with the names of these options as keys; options that are named beside it override it. The
    audit.json of an audit runs it again: the same inputs, by their hashes, give the same bytes.

    With `task`, `model` and `images` (or what `embed` wrote) the scores are the label table, whose images the pack
    scores.

    Returns:
        All tables. `leaks` says whether training and audit share something that they must not.

    Raises:
        MedclipError: What reading raises; PATIENT_OVERLAP where thresholds were chosen on audited patients;
            OUTPUT_IN_USE for a folder that holds another audit or something else; DISK_FULL; of a store as
            `medclip.runs.outputs.fetched_results.FetchedResults.results`.

    Example:
        >>> import medclip, pyarrow
        >>> n = 200
        >>> table = pyarrow.table({
        ...     "patient": [str(i // 2) for i in range(n)], "sex": ["FM"[i // 2 % 2] for i in range(n)],
        ...     "flu": [i // 4 % 2 for i in range(n)], "flu_score": [(i * 37 % 100) / 100 for i in range(n)]})
        >>> found = medclip.audit(table, by=["sex"], num_resamples=100, num_permutations=100)
        >>> found.labels, found.attributes
        (('flu',), ('sex',))
    """
    from medclip.auditing.recipe import measure_options, named_sources, read_options
    from medclip.export.formats import check_formats
    from medclip.runs.outputs.fetched_results import fetched_results

    with fetched_results() as fetched:
        options = _with_places(options)
        note = _recipe_file(options)
        options = _fetched(options, fetched)
        asked, origin = _origin(options, note)
        compare = named_sources(options.compare)
        reading, measures = read_options(options), measure_options(options)
        check_formats(options.as_, "audit")
        _refuse_missing([options.scores, *compare.values()], options.labels, measures)
        folder = None if options.out is None else Path(options.out)
        run_note = _identity(options, compare, reading, measures, fetched)
        if folder is not None:
            _claim(folder, options, run_note)
        # scikit-learn and scipy: seconds that no refusal above has to wait for
        from medclip.auditing.run import run_audit

        run = run_audit(
            options.scores,
            options.labels,
            by=options.by,
            label=list(options.label or ()) or None,
            name=options.name or "",
            compare=compare,
            reading=reading,
            options=measures,
            settings=options.settings,
            progress=options.progress,
        )
        run = replace(run, result=replace(run.result, provenance={**run.result.provenance, **origin.written()}))
        return run.result if folder is None else _write(run, folder, options.as_, run_note, asked, fetched)


def _with_places(options: AuditOptions) -> AuditOptions:
    """Let paths stand for what lies in a folder and is open: runs, embeddings, a pack."""
    from medclip.api.run_arguments import folder_of
    from medclip.runs.outputs.score_run import ScoreRun

    def place(table: Any) -> Any:
        return table.folder if isinstance(table, ScoreRun) and not table.is_temporary else table

    compare = options.compare
    if isinstance(compare, Mapping):
        compare = {name: place(table) for name, table in compare.items()}
        if all(isinstance(table, str | Path) for table in compare.values()):
            compare = [f"{name}={path}" for name, path in compare.items()]
    return replace(
        options,
        scores=place(options.scores),
        compare=compare,
        images=folder_of(options.images),
        embeddings=folder_of(options.embeddings),
        model=None if options.model is None else str(getattr(options.model, "path", options.model)),
    )


def _recipe_file(options: AuditOptions) -> Mapping[str, Any] | None:
    """Return what is known of the recipe: of an audit.json, what was known then."""
    from medclip.auditing.provenance import is_audit
    from medclip.auditing.recipe import recipe_note
    from medclip.auditing.result import read_result

    if options.recipe is None:
        return None
    path = Path(options.recipe)
    if is_audit(path):
        return read_result(path).provenance.get("recipe_file")
    known = options_of(options)
    return recipe_note(path, by_name(recipe_of(options, has_places=True), known), known)


def _origin(options: AuditOptions, recipe_file: Mapping[str, Any] | None) -> tuple[Mapping[str, Any] | None, Origin]:
    """Return what is asked by name, None where values live in memory alone; and that with who asks and when."""
    from medclip.auditing.provenance import Origin

    asked: dict[str, Any] | None = recipe_of(options, has_places=True)
    repeated = (one for one in options_of(options).values() if one.kind is not None and not one.is_of_call)
    if any(one.key not in asked and one.is_set(getattr(options, one.name)) for one in repeated):
        asked = None
    about = {name: getattr(options, name) for name in ("declared", "auditor", "question", "audited_on")}
    return asked, Origin(asked, recipe_file, **about)


def _fetched(options: AuditOptions, fetched: FetchedResults) -> AuditOptions:
    """Return the options with what lies in a store named by its copy.

    Raises:
        MedclipError: WRONG_USE for images, packs, shards and keys of a store; as `FetchedResults.results`.
    """
    from medclip.auditing.provenance import change_paths
    from medclip.errors import MedclipError, Reason
    from medclip.files.store_files import is_store
    from medclip.files.stores import place_of

    def local(key: str, path: str) -> str:
        name, place = key.partition(":")[0], Path(path)
        if is_store(place) and name in _ON_DISK:
            raise MedclipError(
                Reason.WRONG_USE,
                f"--{name.replace('_', '-')} is read from a disk.",
                where=place_of(place),
                hint="Copy it to a folder of this machine, and name that.",
            )
        return str(fetched.results(place)) if is_store(place) else path

    values = {name: getattr(options, name) for name in options_of(options)}
    values = change_paths(values, local)
    if isinstance(values["compare"], Mapping):
        values["compare"] = {name: fetched.results(table) for name, table in values["compare"].items()}
    return replace(options, **values)


def _claim(folder: Path, options: AuditOptions, run_note: Mapping[str, Any]) -> None:
    """Take the folder, or refuse one that holds anything but this same audit."""
    from medclip.auditing.provenance import NOTE as RUN
    from medclip.auditing.result import JSON
    from medclip.files.output import claim_folder, read_own_note, refuse_other

    inputs = {"what is audited": options.scores, "the table of labels": options.labels}
    inputs = {words: Path(path) for words, path in inputs.items() if isinstance(path, str | Path)}
    if claim_folder(folder, "audit", marks=(JSON, RUN), inputs=inputs):
        known = read_own_note(folder / RUN, "audit")
        if not options.overwrite:
            refuse_other(
                folder, "audit", known, run_note, remedy="Name another folder, or replace it with --overwrite."
            )


def _write(
    run: AuditRun,
    folder: Path,
    formats: Sequence[str],
    run_note: Mapping[str, Any],
    asked: Mapping[str, Any] | None,
    fetched: FetchedResults,
) -> AuditResult:
    """Write everything into a folder; what lay there goes."""
    from medclip.auditing.provenance import NOTE as RUN
    from medclip.auditing.provenance import PLACES, paths_of, relative_place, seal
    from medclip.auditing.result import JSON, write_json, write_tables
    from medclip.auditing.thresholds.choose import write_thresholds
    from medclip.export.formats import FORMATS, formats_of
    from medclip.files.output import disk_errors, write_file, write_note
    from medclip.lazy import import_name
    from medclip.reports.audit.methods import LIMITS
    from medclip.reports.audit.report import REPORT, write_audit_report
    from medclip.reports.audit.summary import summary

    places = {key: fetched.url_of(path) or relative_place(path, folder) for key, path in paths_of(asked or {}).items()}
    write_note(folder / RUN, "audit", {**run_note, PLACES: {key: place for key, place in places.items() if place}})
    # What lay here goes: a page or a JSON of another audit must not stand beside tables of this one.
    write_file(folder / JSON, UNFINISHED)
    with disk_errors(folder):
        for name in (REPORT, *(form.file for form in formats_of("audit").values())):
            (folder / name).unlink(missing_ok=True)
    hashes = write_tables(run.result, folder)
    write_thresholds(folder / THRESHOLDS, run.thresholds.values())
    result = write_audit_report(replace(run.result, sealed=seal(hashes, run.result)), folder)
    write_json(result, folder)
    matters = {matter.head: matter.all for matter in summary(result)}
    sentences = matters | {"Limits": ("What this audit cannot tell:", *LIMITS)}
    for name in formats:
        write_file(folder / FORMATS[name].file, import_name(FORMATS[name].target)(result, sentences))
    return result


def _identity(
    options: AuditOptions,
    compare: Mapping[str, Any],
    reading: ReadOptions,
    measures: MeasureOptions,
    fetched: FetchedResults,
) -> dict[str, Any]:
    """Return what makes two audits the same. Paths and options are hashed: they may name somebody."""
    from medclip.files.output import digest_of
    from medclip.runs.outputs.score_run import ScoreRun

    def place(path: str | Path) -> str:
        return fetched.url_of(path) or str(Path(path).resolve())

    def source(table: Any) -> str | None:
        table = table.folder if isinstance(table, ScoreRun) else table
        return digest_of(place(table)) if isinstance(table, str | Path) else None

    return {
        "scores": source(options.scores),
        "labels": source(options.labels),
        "grouping": list(options.by),
        "audited labels": list(options.label or ()) or None,
        "name": options.name or "",
        "compared models": {other: source(table) for other, table in compare.items()},
        "reading of tables": digest_of(_written(reading, place)),
        "options": digest_of(_written(measures, place)),
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


def _refuse_missing(scores: Sequence[Any], labels: Any, measures: MeasureOptions) -> None:
    """Refuse paths that lead nowhere, before anything is imported that takes seconds."""
    from medclip.errors import refuse_missing
    from medclip.models.packs.pack import find_pack

    for source in scores:
        refuse_missing(source, SCORES)
    refuse_missing(labels, "table")
    refuse_missing(measures.reference, "table of reference")
    wanted = measures.image_checks
    refuse_missing(wanted.images, "folder")
    refuse_missing(wanted.embeddings, "file of embeddings")
    for source in wanted.training:
        refuse_missing(source, "shard folder or table")
    if wanted.model is not None:
        find_pack(wanted.model)

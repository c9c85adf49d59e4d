"""The whole audit: tables in, every number out. Nothing is written here.

Every table is read at the beginning, and once, however many questions name it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from medclip.auditing.checks.evidence import Evidence, open_stored
from medclip.auditing.checks.table import CHECKS
from medclip.auditing.groups.coinciding import coinciding_rows
from medclip.auditing.groups.differences import ratio_rows
from medclip.auditing.groups.equity import equity_rows, verdict
from medclip.auditing.groups.grades_and_risks import ordinal_rows, risk_rows
from medclip.auditing.groups.masks import hidden_rows, mask_rows
from medclip.auditing.groups.measure import (
    Measured,
    difference_rows,
    gap_rows,
    measure,
    metric_rows,
    model_rows,
    num_primary_tests,
    suppressed_rows,
)
from medclip.auditing.groups.representativeness import (
    flow_rows,
    read_reference,
    representation_rows,
    score_value_rows,
    unlabelled_rows,
    unscored_rows,
)
from medclip.auditing.input.options import ReadOptions
from medclip.auditing.input.read import read_cohort
from medclip.auditing.input.score_table import ScoreSource, open_scores
from medclip.auditing.options import LEAST_PER_TEST, MeasureOptions, Thresholds, shuffles_for
from medclip.auditing.recipe import name_of
from medclip.auditing.result import COLUMNS, AuditResult
from medclip.auditing.thresholds.calibration import decision_rows, reliability_rows, temperatures_of
from medclip.auditing.thresholds.choose import Policy, Threshold, choose_all, read_thresholds, thresholds_for
from medclip.auditing.thresholds.cohort_fingerprint import fingerprint, refuse_same_data
from medclip.auditing.verdicts import check_declared, requirement_rows
from medclip.errors import MedclipError, Reason
from medclip.files.tables.read_table import read_table
from medclip.files.tables.table import Table
from medclip.models.packs.pack import load_model
from medclip.progress import Progress, Silent
from medclip.settings import Settings
from medclip.shards.folder import INDEX
from medclip.statistics.cohort import Cohort
from medclip.statistics.metrics import concordance as survival
from medclip.statistics.resampling.weights import draw_weights
from medclip.version import __version__
from medclip.wording import list_of

ALPHA, POWER = 0.05, 0.8


@dataclass(frozen=True, eq=False)
class AuditRun:
    """An audit and what chose its thresholds."""

    result: AuditResult
    thresholds: Mapping[str, Threshold]
    """Of the audited model, by label; for `write_thresholds`."""


def run_audit(
    scores: Any,
    labels: Any = None,
    *,
    by: Sequence[str] = (),
    label: Sequence[str] | None = None,
    name: str = "",
    compare: Mapping[str, Any] | None = None,
    reading: ReadOptions | None = None,
    options: MeasureOptions | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> AuditRun:
    """Audit a model; arguments as in `medclip.audit`, a recipe left out.

    Returns:
        Everything that was found.

    Raises:
        MedclipError: What reading raises; PATIENT_OVERLAP where thresholds were chosen on audited patients.
    """
    options, settings, progress = options or MeasureOptions(), settings or Settings(), progress or Silent()
    checks = [check for check in CHECKS.values() if check.is_asked(options)]
    others = {name: kinds for check in checks for name, kinds in check.tables.items() if name not in COLUMNS}
    columns = {**COLUMNS, **others}
    site = options.shortcuts.site
    by = [*by, site] if site is not None and site not in by else by
    given = {name or _name(scores, options): scores, **(compare or {})}
    if len(given) < 1 + len(compare or {}):
        raise MedclipError(Reason.WRONG_USE, "two of the models have the same name.", hint="Give each a name.")
    measured: list[Measured] = []
    notes: list[str] = []
    leaked_rows: tuple[Mapping[str, Any], ...] = ()
    worst_errors: tuple[Mapping[str, Any], ...] = ()
    tables: dict[str, list[dict[str, Any]]] = {}

    def add(table: str, rows: Sequence[Mapping[str, Any]], **more: Any) -> None:
        tables.setdefault(table, []).extend({**more, **row} for row in rows)

    reading = _with_columns(reading or ReadOptions(), options)
    stored = open_stored(options, settings)
    sources, label_table, options = open_tables(given, labels, reading, options)
    if options.reference is not None:
        read_reference(options.reference)  # refused before anything is measured
    first_table = next(iter(sources.values())).table
    checked = [name for check in checks for name in check.columns]
    checked = [name for name in checked if (first_table if label_table is None else label_table).find(name)]
    audited = replace(reading, columns=tuple(dict.fromkeys((*reading.columns, *checked))))
    pack = None if options.image_checks.model is None else load_model(options.image_checks.model)
    if options.task is not None and pack is not None:
        from medclip.auditing.checks.stress.rescore import score_images

        ((model, source),) = sources.items()
        scored, notes_of_scores = score_images(source.table, pack, stored, options, settings, progress)
        sources, label_table = {model: scored}, source.table
        notes += notes_of_scores
    for place, (model, source) in enumerate(sources.items()):
        truths = label_table if label_table is not None or not place else first_table
        cohort = read_cohort(source, truths, by=by, label=label, options=audited)
        choosing = _choosing(source, truths, by, label, reading, options.thresholds, place, model)
        cohort, more = _with_horizon(cohort, options.horizon)
        if choosing is not None:
            choosing, _ = _with_horizon(choosing, options.horizon)
        check_declared(options.declared, cohort)
        thresholds, notes_of_thresholds = _thresholds(cohort, choosing, options.thresholds)
        notes += _new(notes, cohort.notes, notes_of_thresholds, more)
        weights_PB = draw_weights(cohort.num_patients, options.num_resamples, seed=options.seed)
        progress.stage(f"Measuring {model}", len(cohort.labels))
        one = measure(model, cohort, thresholds, weights_PB, options, lambda done, total: progress.step())
        measured.append(one)
        add("metrics", own_metrics := metric_rows(one, options.dataset))
        ratios = ratio_rows(own_metrics)
        add("ratios", [{**row, "verdict": verdict(row, options.tolerance)} for row in ratios])
        add("equity", equity_rows(one))
        add("flow", flow_rows(one))
        add("score_values", score_value_rows(one))
        add("unscored", unscored_rows(one, options))
        add("unlabelled", unlabelled_rows(one, options))
        progress.stage(f"Comparing groups of {model}", len(cohort.labels) * len(cohort.attributes))
        yearly, tests_of_risks = risk_rows(model, cohort, weights_PB, options)
        differences = difference_rows(one, options, lambda done, total: progress.step(), tests_of_risks)
        add("differences", differences)
        add("coinciding", coinciding_rows(one, differences, options))
        add("representation", representation_rows(one, options))
        add("ordinal", ordinal_rows(model, cohort, weights_PB, options))
        add("risk", yearly)
        path = None if truths is None else truths.path
        folder = options.image_checks.images or (Path() if path is None else path.parent)
        of_masks, notes_of_masks = mask_rows(model, cohort, folder, weights_PB, options, settings, progress)
        add("masks", of_masks)
        add("suppressed", hidden_rows(of_masks) if not place else ())
        notes += _new(notes, notes_of_masks)
        add("requirements", requirement_rows(one, options.declared))
        progress.stage(f"Shuffling groups of {model}", len(cohort.labels) * len(cohort.attributes))
        add("gaps", gap_rows(one, options, differences, progress.step))
        notes += _new(notes, _too_few_shuffles(one, options))
        add("thresholds", [t.row(model) for t in thresholds.values()])
        temperatures, notes_of_thresholds = temperatures_of(choosing, cohort)
        notes += _new(notes, notes_of_thresholds)
        progress.stage(f"Calibration and decision curves of {model}", len(cohort.labels))
        for x in cohort.labels:
            add("calibration", reliability_rows(one, x, temperatures.get(x.name), options))
            add("decision", decision_rows(one, x))
            progress.step()
        evidence = Evidence(
            measured=one,
            is_first=not place,
            source=source,
            labels=truths,
            label=label,
            choosing=choosing,
            reading=audited,
            options=options,
            pack=pack,
            stored=stored,
            settings=settings,
            progress=progress,
        )
        for check in (check for check in checks if check.is_possible(evidence)):
            answer = check.rows(evidence)
            for table, rows in answer.tables.items():
                add(table, rows, **({"model": model} if "model" in columns[table] else {}))
            leaked_rows += tuple(answer.named)
            worst_errors += tuple(answer.images)
            notes += _new(notes, answer.notes)
        if place:
            rows, notes_of_thresholds = model_rows(measured[0], one, options)
            add("models", rows)
            notes += _new(notes, notes_of_thresholds)
    first = measured[0]
    if len(measured) > 1:
        notes.append(
            f"Leakage and embeddings were looked at for {first.name} only; audit the other models by themselves."
        )
    add("suppressed", suppressed_rows(first, options))
    result = AuditResult(
        leaked_rows=leaked_rows,
        worst_errors=worst_errors,
        model_names=tuple(given),
        labels=tuple(x.name for x in first.cohort.labels),
        attributes=tuple(a.name for a in first.cohort.attributes),
        settings=_settings(options, first),
        provenance={
            "version": __version__,
            "seed": options.seed,
            **{f"{m.name}: rows and keys": fingerprint(m.cohort).rows for m in measured},
            **{f"{m.name}: scores and truths": _content(m.cohort) for m in measured},
        },
        notes=tuple(notes),
    )
    all_rows = {table: tuple(rows) for table, rows in tables.items()}
    more = {name: all_rows.pop(name, ()) for name in others}
    result = replace(result, **all_rows, check_tables=more, check_columns=others)
    return AuditRun(result, first.thresholds)


def open_tables(
    scores: Mapping[str, Any], labels: Any, reading: ReadOptions, options: MeasureOptions
) -> tuple[Mapping[str, ScoreSource], Table | None, MeasureOptions]:
    """Read every table of an audit.

    Args:
        scores: Scores of each model, by its name, as `open_scores` takes them.
        labels: The label table; None where it is the table of scores itself.
        reading: Options of reading: the files.parquet of scores of `medclip score`, and how text was written.
        options: Options of measuring, which name the other tables.

    Returns:
        Scores by model; the label table, None where the scores are it; and the options, with tables in the place of
        paths and data frames: `thresholds.choose_on` and `.choose_labels`, `shortcuts.masked`, `image_checks.training`.
        Embeddings and shard folders stay paths: they are read where they are needed, once.
    """
    tables: dict[object, tuple[Any, Table]] = {}

    def read(source: Any, what: str) -> Table:
        """Read a table, or return it where it was read: files are known by path, data frames by identity."""
        place = Path(source).absolute() if isinstance(source, str | Path) else id(source)
        if place not in tables:
            # the source is held, so that its id stays its own
            tables[place] = (source, read_table(source, what, reading.text))
        return tables[place][1]

    def read_labels(source: Any) -> Table | None:
        return None if source is None else read(source, "the table of labels")

    score = partial(open_scores, files=reading.files, read=read, level=reading.level)
    choosing, shortcuts, image_checks = options.thresholds, options.shortcuts, options.image_checks
    choose_on = choosing.choose_on
    if isinstance(choose_on, Mapping):
        choose_on = {name: score(source) for name, source in choose_on.items()}
    elif choose_on is not None:
        choose_on = score(choose_on)
    opened = {name: score(source) for name, source in scores.items()}
    label_table = read_labels(labels)
    reference = None if options.reference is None else read(options.reference, "the table of reference")
    choose_labels = read_labels(choosing.choose_labels)
    masked = None if shortcuts.masked is None else score(shortcuts.masked)
    training = tuple(
        source if _is_shard_folder(source) else read(source, "the table of training files")
        for source in image_checks.training
    )
    options = replace(
        options,
        reference=reference,
        thresholds=replace(choosing, choose_on=choose_on, choose_labels=choose_labels),
        shortcuts=replace(shortcuts, masked=masked),
        image_checks=replace(image_checks, training=training),
    )
    return opened, label_table, options


def _is_shard_folder(source: Any) -> bool:
    """Whether training data are a folder of shards and no table."""
    return isinstance(source, str | Path) and (Path(source) / INDEX).is_file()


def _name(scores: Any, options: MeasureOptions) -> str:
    """Name the audited model: by its pack where that is to score the images."""
    pack = options.image_checks.model
    return name_of(scores) if options.task is None or pack is None else Path(pack).name


def _with_columns(reading: ReadOptions, options: MeasureOptions) -> ReadOptions:
    image_checks, shortcuts = options.image_checks, options.shortcuts
    wanted = [*reading.columns, *shortcuts.devices, image_checks.study, image_checks.date]
    return replace(reading, columns=tuple(dict.fromkeys(c for c in wanted if c)))


def _choosing(
    source: ScoreSource,
    labels: Table | None,
    by: Sequence[str],
    label: Sequence[str] | None,
    reading: ReadOptions,
    wanted: Thresholds,
    place: int,
    model: str,
) -> Cohort | None:
    """Read the patients that thresholds are chosen on; None where they come from elsewhere."""
    if not wanted.chosen:
        return None
    scores = wanted.choose_on
    if isinstance(scores, Mapping):
        if model not in scores:
            raise MedclipError(Reason.WRONG_USE, f"no scores to choose the thresholds of {model!r} on.")
        scores = scores[model]
    elif place and scores is not None:
        raise MedclipError(
            Reason.WRONG_USE,
            "with several models, say for each which scores its thresholds are chosen on.",
            hint="Give the scores by the model's name, or rows of the label table (choose_where).",
        )
    table = labels if wanted.choose_labels is None else wanted.choose_labels
    if wanted.choose_where:
        reading = replace(reading, where=wanted.choose_where)
    return read_cohort(source if scores is None else scores, table, by=by, label=label, options=reading)


def _thresholds(
    cohort: Cohort, choosing: Cohort | None, wanted: Thresholds
) -> tuple[dict[str, Threshold], tuple[str, ...]]:
    if choosing is not None:
        notes = refuse_same_data(choosing, cohort)
        rows = [f"{k} {v if isinstance(v, str) else ', '.join(v)}" for k, v in wanted.choose_where.items()]
        what = list_of(rows) or "other patients"
        chosen, more = choose_all(choosing, Policy.parse(wanted.policy or "youden"), what)
        return {x.name: chosen[x.name] for x in cohort.labels if x.name in chosen}, (*notes, *more)
    if wanted.file is not None:
        return thresholds_for(read_thresholds(wanted.file), cohort, wanted.file)
    untimed = replace(cohort, labels=tuple(x for x in cohort.labels if x.time_N is None))
    if wanted.value is not None:
        if not 0 <= wanted.value <= 1 and any(x.probability for x in untimed.labels):
            raise MedclipError(
                Reason.WRONG_USE, f"the threshold is {wanted.value:g}, but scores are probabilities, from 0 to 1."
            )
        return choose_all(untimed, Policy("fixed", wanted.value), "")
    untimed = replace(untimed, labels=tuple(x for x in untimed.labels if x.probability))
    chosen, notes = choose_all(untimed, Policy("fixed", Thresholds.DEFAULT), "")
    if chosen:
        notes += (
            f"Nobody chose a threshold: {Thresholds.DEFAULT:g} was taken for every label, which is seldom the one that "
            "a clinic would use. Rates hold for it only.",
        )
    return chosen, notes


def _with_horizon(cohort: Cohort, horizon: float | None) -> tuple[Cohort, tuple[str, ...]]:
    if horizon is None:
        return cohort, ()
    if all(x.time_N is None for x in cohort.labels):
        raise MedclipError(Reason.WRONG_USE, "a horizon needs times to events.", hint="Name their column (time).")
    labels, notes = [], []
    for x in cohort.labels:
        if x.time_N is not None:
            labels.append(survival.at_horizon(x, horizon))
            followed = labels[-1].valid_N
            left_out = int((x.valid_N & ~followed).sum())
            notes.append(
                f"{x.name}: {left_out:,} rows that were not followed to {horizon:g} count by their weights only."
            )
    return replace(cohort, labels=(*cohort.labels, *labels)), tuple(notes)


def _too_few_shuffles(one: Measured, options: MeasureOptions) -> tuple[str, ...]:
    tests = num_primary_tests(one, options.declared)
    shuffles = options.permutations or shuffles_for(tests, one.cohort.num_patients)
    if shuffles >= LEAST_PER_TEST * tests:
        return ()
    return (
        f"With {shuffles:,} shuffles none of {tests:,} primary hypotheses can be larger than chance after adjusting "
        f"(Holm), however large the gap is: that takes {LEAST_PER_TEST * tests:,} or more. Ask for more shuffles.",
    )


def _settings(options: MeasureOptions, first: Measured) -> dict[str, Any]:
    cells = options.small_cells
    return {
        "dataset": options.dataset,
        "replicates": options.num_resamples,
        "permutations": options.permutations
        or shuffles_for(num_primary_tests(first, options.declared), first.cohort.num_patients),
        "alpha": ALPHA,
        "power": POWER,
        "interval": "patient",
        "tolerance": options.tolerance,
        "min_n": cells.min_n,
        "min_pos": cells.min_pos,
        "min_neg": cells.min_neg,
        "min_patients": cells.min_patients,
        "no_finding": [x.name for x in first.cohort.labels if x.no_finding],
        "counts": str(first.roundings),
    }


def _content(cohort: Cohort) -> str:
    digest = hashlib.sha256()
    for x in cohort.labels:
        digest.update(x.name.encode() + x.score_N.tobytes() + x.truth_N.tobytes())
    return digest.hexdigest()


def _new(present: Sequence[str], *more: Sequence[str]) -> list[str]:
    """Return the sentences that are not there yet."""
    return [n for n in dict.fromkeys(n for part in more for n in part) if n not in present]

"""What an audit is asked, from a recipe, and what its options mean: how tables are read, and what is measured.

A recipe is a YAML file with the options of `medclip audit` by name, or the `audit.json` of an audit; its values have
the forms of `medclip.auditing.shapes`. `asked` in this package is a mapping of options to those forms.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medclip.auditing.declared import Declared, declared
from medclip.auditing.disclosure import Policy
from medclip.auditing.input.options import ReadOptions
from medclip.auditing.options import ImageChecks, MeasureOptions, Shortcuts, Stress, Thresholds
from medclip.embeddings.open_embeddings import is_embeddings
from medclip.errors import MedclipError, Reason
from medclip.files.key_value import key_value, key_values
from medclip.files.tables.table import TextForm
from medclip.options import Option
from medclip.runs.outputs.score_run import ScoreRun
from medclip.verbs import read_recipe

_SUFFIXES = (".yaml", ".yml")
_NOT_ASKED = frozenset({"auditor", "audited_on"})
"""Options that may be overridden without another question being asked."""
_READ_AS_WRITTEN = ("level", "match", "repeat_labels", "uncertain", "blank", "label_list", "separator", "no_finding")
_READ_AS_WRITTEN += ("patient", "time", "event", "age_bins", "age_unit", "all_pairs")
"""Keys that `ReadOptions` has by the same name, in the same form."""
_CHECKED_AS_WRITTEN = ("model", "modality", "training", "study", "date", "attacker", "show_images")
"""Keys that `ImageChecks` has so."""


def is_recipe(scores: Any) -> bool:
    """Return whether what was named as scores is a recipe: a path that ends in .yaml or .yml."""
    return isinstance(scores, str | Path) and Path(scores).suffix.lower() in _SUFFIXES


def recipe_note(path: Path, final: Mapping[str, Any], options: Mapping[str, Option]) -> dict[str, Any]:
    """Return what is kept of a recipe: its name, its SHA-256, and the options of which something else was asked."""
    of_file = read_recipe(path, options)
    names = {one.name for one in options.values() if one.kind is not None and not one.is_of_call} - _NOT_ASKED

    def value(values: Mapping[str, Any], name: str) -> Any:
        one = values.get(name, options[name].default)
        return list(one) if isinstance(one, tuple) else one

    overridden = [name for name in sorted(names) if value(final, name) != value(of_file, name)]
    return {"name": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "overridden": overridden}


def read_options(given: Any) -> ReadOptions:
    """Return how tables are read.

    Raises:
        MedclipError: WRONG_USE for a value that has another form.
    """
    same = {name: getattr(given, name) for name in _READ_AS_WRITTEN}
    return ReadOptions(
        **same,
        files=_path(given.files),
        key=given.key or None,
        score=key_values(given.score, "--score", "LABEL=COLUMN"),
        long=_two(given.long),
        scores=given.scores_are,
        where=_lists(given.where, "--where"),
        score_where=_lists(given.score_where, "--score-where"),
        patients="rows" if given.rows_are_patients else "column",
        ordinal=_classes(given.ordinal),
        risk={name: [c.strip() for c in columns.split(",") if c.strip()] for name, columns in _risks(given.risk)},
        grade=given.grade,
        bins={c: _numbers(edges) for c, edges in key_values(given.bins, "--bins", "COLUMN=A,B,C").items()},
        values=_values(given.value),
        text=TextForm(given.encoding, given.decimal),
    )


def measure_options(given: Any) -> MeasureOptions:
    """Return what is measured, and how surely.

    Raises:
        MedclipError: WRONG_USE for a value that has another form; MISSING_FILE.
    """
    few = given.min_cell
    return MeasureOptions(
        dataset=given.dataset or "",
        num_resamples=given.num_resamples,
        permutations=given.num_permutations,
        seed=given.seed,
        horizon=given.horizon,
        small_cells=Policy(few, few, few, few, exact_counts=given.exact_counts),
        reference=_path(given.reference),
        tolerance=given.tolerance,
        declared=_requirements(given),
        thresholds=Thresholds(
            given.threshold,
            _path(given.thresholds),
            _choose_on(given),
            _path(given.choose_labels),
            _lists(given.choose_where, "--choose-where"),
            given.policy,
        ),
        shortcuts=Shortcuts(given.device_column, _path(given.masked), given.site, given.reweight),
        image_checks=_image_checks(given),
        task=given.task,
        stress=Stress(given.corruption, given.num_stress_images, given.context_temperature) if given.stress else None,
    )


def named_sources(given: Any, first: str = "") -> Mapping[str, Any]:
    """Return tables by the names of their models.

    Args:
        given: Tables by name, or [NAME=]PATH; a path without a name is that of `first`, or is named by its file.
        first: The audited model.

    Raises:
        MedclipError: WRONG_USE for a name that is there twice; MISSING_FILE.
    """
    return given if isinstance(given, Mapping) else _sources(given, first)


def _choose_on(given: Any) -> Any:
    """Return scores of other patients: by model, as one table, or None."""
    scores = given.choose_on
    if isinstance(scores, list | tuple):
        return _sources(scores, given.name or name_of(given.scores)) or None
    return scores


def name_of(scores: Any) -> str:
    """Name a model by where its scores are; "model" for a data frame and a run in a temporary folder."""
    if isinstance(scores, ScoreRun) and not scores.is_temporary:
        scores = scores.folder
    return Path(scores).stem if isinstance(scores, str | Path) else "model"


def _path(value: Any) -> Any:
    """Return a path as such, and what is none, such as a data frame, as it is."""
    return Path(value) if isinstance(value, str) else value


def _requirements(given: Any) -> Declared:
    margins = key_values(given.margins, "--margins", "METRIC:ATTRIBUTE=MARGIN, such as tpr:sex=0.05")
    return declared(given.require, margins, given.primary, given.confidence)


def _image_checks(given: Any) -> ImageChecks:
    """Return where images and vectors are: what `medclip embed` wrote stands for the images themselves."""
    images, vectors = _path(given.images), _path(given.embeddings)
    if images is not None and is_embeddings(images):
        raise MedclipError(
            Reason.WRONG_USE,
            "a folder of images is asked for, and this one holds embeddings.",
            where=images,
            hint="Name it with --embeddings.",
        )
    if vectors is not None and is_embeddings(vectors):
        if images is not None:
            raise MedclipError(
                Reason.WRONG_USE,
                "embeddings that medclip embed wrote are read in the place of images.",
                where=vectors,
                hint="Leave out --images, or --embeddings.",
            )
        images, vectors = vectors, None
    same = {name: getattr(given, name) for name in _CHECKED_AS_WRITTEN}
    return ImageChecks(**same, images=images, embeddings=vectors, key_file=_path(given.key_file), sites=given.drift)


def _refuse(option: str, form: str) -> MedclipError:
    return MedclipError(Reason.WRONG_USE, f"{option} takes {form}.")


def _lists(texts: Sequence[str], option: str) -> dict[str, list[str]]:
    """Read COLUMN=VALUE of a repeated option; the same column again adds a value."""
    values: dict[str, list[str]] = {}
    for text in texts:
        column, value = key_value(text, option, "COLUMN=VALUE")
        values.setdefault(column, []).append(value)
    return values


def _sources(given: Sequence[str], first: str) -> dict[str, Path]:
    sources: dict[str, Path] = {}
    for text in given:
        name, equals, path = text.partition("=")
        is_path = not equals or Path(text).exists()  # a path may hold "=" itself
        source = Path(text if is_path else path)
        name = (first or source.stem) if is_path else name
        if name in sources:
            raise _refuse(
                "--compare or --choose-on", f"each model once, and {name!r} is there twice: write NAME=SCORES"
            )
        if not source.exists():
            raise MedclipError(Reason.MISSING_FILE, "there is no such file or folder of scores.", where=source)
        sources[name] = source
    return sources


def _values(texts: Sequence[str]) -> dict[str, dict[str, str]]:
    form = "COLUMN:VALUE=MEANING, such as sex:0=M"
    meanings: dict[str, dict[str, str]] = {}
    for name, meaning in key_values(texts, "--value", form).items():
        column, colon, value = name.partition(":")
        if not colon:
            raise _refuse("--value", form)
        meanings.setdefault(column, {})[value] = meaning
    return meanings


def _classes(texts: Sequence[str]) -> dict[str, list[str]]:
    pairs = key_values(texts, "--ordinal", "COLUMN=A,B,C, the lowest first").items()
    return {column: [part.strip() for part in classes.split(",")] for column, classes in pairs}


def _risks(texts: Sequence[str]) -> list[tuple[str, str]]:
    return [(name.strip(), columns) for name, _, columns in (text.partition("=") for text in texts)]


def _two(text: str | None) -> tuple[str, str] | None:
    if not text:
        return None
    first, comma, second = text.partition(",")
    if not (comma and first.strip() and second.strip()):
        raise _refuse("--long", "two columns with a comma between them: the label's, the score's")
    return first.strip(), second.strip()


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as e:
        raise _refuse("--bins", "numbers with commas between them") from e

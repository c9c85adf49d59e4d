"""`medclip audit SCORES --labels TABLE --by sex --out DIR`: does a model work for every patient group?"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from annotated_types import Ge

from medclip.auditing.recipe import AuditRecipe
from medclip.cli import options

CAUTION = "CAUTION"
HEADINGS = {
    "labels": "Common options",
    "score": "Which column is what",
    "uncertain": "What labels mean",
    "age_bins": "Groups",
    "threshold": "Where thresholds come from",
    "require": "Declared beforehand",
    "name": "Models",
    "device_column": "Shortcuts",
    "model": "Images, embeddings and leakage",
    "task": "Stress",
    "num_resamples": "Resamples",
    "auditor": "Output",
}


def audit(
    ctx: typer.Context,
    scores: Annotated[
        Path,
        typer.Argument(
            metavar="SCORES|RECIPE|AUDIT_JSON",
            help="Folder of medclip score; CSV, TSV or Parquet, whatever its suffix; either in a store (s3://...); a "
            "recipe (.yaml); or an audit.json, which is run once more.",
        ),
    ],
    *,
    as_json: options.Json = False,
    **keys: Any,
) -> int:
    """Measure a model in every patient group, with intervals that resample patients; write a page and tables.

    A recipe is a YAML file with the names of these options as keys; options on the command line override it. The
    audit.json of an audit runs it again: the same inputs, by their hashes, give the same bytes.

    Exit code: 0 done; 6 done, and the page has a red box: training and audit share something that they must not, a
    score follows the source of the images, or a requirement is not met; 2 wrong use or refused.
    """
    from medclip.api.audit import SCORES, asked_recipe
    from medclip.api.audit import audit as run
    from medclip.cli.progress import print_line, progress
    from medclip.errors import MedclipError, Reason, printable
    from medclip.exit_codes import ExitCode
    from medclip.files.disk.input_paths import refuse_missing
    from medclip.files.stores.store_files import is_store

    # By name: typer brings a click of its own, whose ParameterSource is another class than click's.
    sources = {name: ctx.get_parameter_source(name) for name in keys}
    recipe = asked_recipe(
        scores, {n: keys[n] for n, source in sources.items() if source and source.name == "COMMANDLINE"}
    )
    if not is_store(recipe.scores):
        refuse_missing(recipe.scores, SCORES)
    if recipe.out is None:
        raise MedclipError(Reason.WRONG_USE, "there is no folder for page and tables.", hint="Name it: --out FOLDER.")
    with progress(quiet=as_json) as shown:
        audited = run(recipe, progress=shown)
    for note in audited.notes:
        if CAUTION in note:
            print_line(printable(note))
    if as_json:
        print(audited.to_json(), end="")
    else:
        from medclip.reports.audit.summary.words import summary

        for words in summary(audited):
            first, *more = words.all
            print("\n  ".join([f"{words.head}: {first}", *more]))
        print(f"Page: {printable(str(recipe.out / 'report.html'))}")
    return ExitCode.RED_BOX if audited.red_box else 0


def _options_of_the_recipe() -> Iterator[inspect.Parameter]:
    """Make an option of each key of a recipe but the scores, with the key's name, type, default and meaning."""
    for name, field in AuditRecipe.model_fields.items():
        if name in ("scores", "declared"):
            continue
        more = "" if field.default != [] else " May be repeated."
        least: Any = next((limit.ge for limit in field.metadata if isinstance(limit, Ge)), None)
        option: Any = typer.Option(
            f"--{name.replace('_', '-')}", metavar=field.title, help=f"{field.description}{more}", min=least
        )
        yield inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=Annotated[field.annotation, option]
        )


def _signature() -> inspect.Signature:
    written = inspect.signature(audit, eval_str=True)
    context, scores, as_json, _ = written.parameters.values()
    return written.replace(parameters=[context, scores, *_options_of_the_recipe(), as_json])


audit.__signature__ = _signature()  # pyright: ignore[reportFunctionMemberAccess] - typer reads the options from it

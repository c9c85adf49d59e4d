"""The verb `score`: a folder of studies goes in, tables and a report come out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.api.export import EXPORT_FORM, Exports, parse_exports, replaced_option
from medclip.api.groups.asking import Questions, Templates, WithModel
from medclip.api.groups.reading import Believed, FileTable, Identity, Limits, NamedModality, Policies, Studies
from medclip.api.groups.running import (
    Additions,
    Batches,
    Device,
    Encoder,
    Engines,
    HashedPaths,
    Limited,
    Logged,
    Machine,
    Recipe,
    Told,
    WorkFolder,
)
from medclip.api.over_files import RUN_RULES, Exclusion, Kept, Remote, Source, prepare, watched
from medclip.export.formats import formats_of
from medclip.options import excludes, needs, option, options
from medclip.verbs import verb
from medclip.wording import list_of

if TYPE_CHECKING:
    from medclip.runs.outputs.score_run import ScoreRun


@options
class Scored:
    """What becomes of answers."""

    exam: bool | None = option(
        "Ask mammography examinations by their views. Default: where the model fuses views. `exam_scores.parquet` has "
        "rows of the examination, its breasts and its images, and the answer of the examination is that of its views "
        "together: where the pack fuses none, the mean of the views' logits.",
        default=None,
        heading="What is asked",
    )
    pool: str | None = option(
        "How the answers of both breasts become that of a mammography examination: mean (of all images), max (the "
        "worse breast), noisy_or, or learned. The answer by the mean stands beside it. Default: as the pack's card "
        "chose for each task on validation women, and the mean where it chose nothing.",
        default=None,
        choices=("mean", "max", "noisy_or", "learned"),
        heading="What is asked",
    )
    export: str | Sequence[str] = option(
        f"Write results for others, too: {list_of(list(formats_of('tables', 'study')), 'or')}. They are written as "
        "they come, into a folder in the output folder; sr=DIR names another, sr=dicomwebs://HOST/PATH or "
        "sr=dicom://AET@HOST:PORT a PACS that DICOM results are sent to, fhir-r4b=https://HOST/PATH a FHIR server. "
        "sc:TASK:CLASS draws another heat map than that of the most probable finding. They name patients, as headers "
        "do; see `medclip export` for a run that has ended.",
        default=(),
        form=EXPORT_FORM,
        place=True,
        beside=True,
        often=True,
        heading="Output",
    )
    replace: str | Path | None = replaced_option("Output")
    report: Mapping[str, Any] | None = option(
        "Options of `medclip report`, for the page as it is written at the end; of recipes and of Python.",
        default=None,
        kind=dict,
        beside=True,
    )

    @cached_property
    def exports(self) -> Exports:
        """What goes to others, and where."""
        return parse_exports(self.export)

    @property
    def lacks_folder(self) -> bool:
        """Whether something is written into the output folder for others."""
        exports = self.exports
        return bool(exports.tables) or (exports.has_results and not (exports.folder or exports.store or exports.post))

    @property
    def explains_page(self) -> bool:
        """Whether the page has heat maps."""
        return (self.report or {}).get("explain") is not None

    @property
    def exports_files(self) -> bool:
        """Whether results for other systems are written."""
        return self.exports.has_results

    @property
    def draws_maps(self) -> bool:
        """Whether heat maps are written for other systems."""
        return self.exports.has_maps


@options
class ScoringOptions(
    Told,
    Limits,
    Recipe,
    Source,
    WithModel,
    Scored,
    Questions,
    Templates,
    FileTable,
    Studies,
    NamedModality,
    Believed,
    Policies,
    Exclusion,
    Remote,
    Identity,
    Machine,
    Device,
    Batches,
    Encoder,
    Engines,
    WorkFolder,
    Logged,
    Limited,
    Additions,
    HashedPaths,
    Kept,
):
    """What `score` is asked."""

    @cached_property
    def is_stored(self) -> bool:
        """Whether embeddings are scored, and no image."""
        if isinstance(self.path, (str, os.PathLike)) and not _may_be_folder(self.path):
            return False  # before numpy is imported for a slip
        from medclip.api.run_arguments import local_of
        from medclip.embeddings.open_embeddings import Embeddings, is_embeddings
        from medclip.files.given_images import is_several

        if isinstance(self.path, Embeddings):
            return True
        return self.is_on_disk and not is_several(self.path) and is_embeddings(local_of(self.path))

    rules = (
        *RUN_RULES,
        excludes(
            "explains_page",
            "is_store",
            "heat maps read the files of a folder once more.",
            hint="Leave explain out.",
            where="place",
        ),
        excludes(
            "exports_files",
            "is_store",
            "results for other systems read headers of files once more.",
            hint="Leave --export out.",
            where="place",
        ),
        excludes(
            "backend",
            "is_stored",
            "embeddings are scored, and no image is computed: there is nothing for --backend to do.",
            hint="Leave it out; it is named where images are embedded.",
        ),
        excludes(
            "limit",
            "is_stored",
            "embeddings are scored as a whole, and no image is computed.",
            hint="Leave the limit out.",
        ),
        excludes(
            "engine",
            "is_stored",
            "embeddings are scored, and no image is computed: there is nothing for --engine to do.",
            hint="Leave it out; it is named where images are embedded.",
        ),
        excludes("dry_run", "is_stored", "embeddings are scored, and no file is read.", hint="Leave the dry run out."),
        excludes(
            "shard",
            "is_stored",
            "a shard reads files and writes no report, and embeddings are scored.",
            hint="Leave one of the two out; the same call on the merged folder draws and exports.",
        ),
        excludes(
            "shard",
            ("exports_files", "explains_page"),
            "a shard reads files and writes no report, and heat maps or results for other systems are asked for.",
            hint="Leave one of the two out; the same call on the merged folder draws and exports.",
        ),
        needs(
            "replace",
            "exports_files",
            "earlier results are named, and no results for other systems are asked for.",
            hint="Name their form with --export, such as sr.",
        ),
        needs(
            "lacks_folder",
            "out",
            "results for others are asked for and no output folder.",
            hint="Name it with out, or leave export out.",
        ),
        excludes(
            "exports_files",
            ("hash_paths", "is_stored"),
            "results for other systems take patient and study from the files, and paths are hashed or embeddings are "
            "scored.",
            hint="Score the files, and leave paths as they are.",
        ),
    )


def _may_be_folder(path: str | os.PathLike[str]) -> bool:
    return os.path.isdir(path) or str(path).startswith("file:/")


@verb(ScoringOptions)
def score(options: ScoringOptions) -> ScoreRun:
    """Score a file or folder of studies in words and write tables and a report, or put a question to embeddings.

    The same call goes on after a stop. Of embeddings no image is read: results equal those of the files, where vectors
    are stored as float32; what was decided when they were embedded (table, modality, least probability, grouping,
    policy) stays, and without an output folder the answer is in memory and has no report.

    Returns:
        The run: `.files`, `.scores` and `.exam_scores` as Arrow tables, `.report_path`, `.counts`, `.exit_code`.

    Raises:
        MedclipError: For a call that cannot be carried out. A file that cannot be read raises nothing: it has its row.

    Example:
        >>> import medclip
        >>> run = medclip.score("examples")  # doctest: +SKIP
        >>> run.scores.column_names[:4]  # doctest: +SKIP
        ['study', 'patient', 'modality', 'task']
    """
    return run_score(options)


def run_score(options: ScoringOptions, retry: str | None = None) -> ScoreRun:
    """Score files; those that failed for a reason are tried again where `retry` names it, "" for all."""
    from medclip.api.export import begin_exports
    from medclip.api.report import page_of_call
    from medclip.embeddings.open_embeddings import open_embeddings
    from medclip.scoring.score_embeddings import answer_embeddings, score_embeddings
    from medclip.scoring.scoring_run import preview_scoring, run_scoring
    from medclip.text.vocabulary.own_words import read_prompts

    with watched(options, "score"):
        question = {
            "tasks": (options.task,) if isinstance(options.task, str) else tuple(options.task),
            "prompts": read_prompts(options.prompt, options.against),
            "templates": options.templates,
            "exam": options.exam,
            "pool": options.pool,
        }
        in_memory = options.is_stored and options.out is None
        prepared = prepare(options, "what is scored", question, in_memory=in_memory, retry=retry)
        call = prepared.call
        page = page_of_call(options.report, prepared.inputs, call, is_stored=options.is_stored)
        if options.dry_run:
            return preview_scoring(call, sort_by=page.options.sort_by)
        if in_memory:
            return answer_embeddings(open_embeddings(options.path), call)
        exporting = begin_exports(options.exports, prepared.inputs, call, options.replace)
        finish = partial(_finish, page, exporting)
        if options.is_stored:
            run = score_embeddings(open_embeddings(options.path), call, finish=finish, sort_by=page.options.sort_by)
        else:
            with closing(exporting):
                run = run_scoring(call, finish=finish, sink=exporting.sink, sort_by=page.options.sort_by)
        return replace(
            run,
            _keep=prepared.keep,
            published=prepared.published,
            exported=exporting.facts,
            answers=tuple(page.answers),
        )


def _finish(page: Any, exporting: Any, ledger: Any, card: Any, folder: Any, sort_by: Any) -> None:
    """Write the page and what goes to others, once the tables are there."""
    page.write(ledger, card, folder, sort_by)
    exporting.write(ledger, card, folder)

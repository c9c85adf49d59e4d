"""The verb `compare`: which way of adapting helps, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medclip.api.adapt import key_file_of, source_of
from medclip.api.groups.asking import LabelledTable, LabelOrder, Resamples, TableTask, TestShare, WithModel
from medclip.api.groups.reading import Identity, Limits, NamedModality, PatientColumn, TableImages
from medclip.api.groups.running import Device, Machine, Recipe, ReportPaths, Told, settings_of
from medclip.options import option, options
from medclip.verbs import verb

if TYPE_CHECKING:
    from medclip.evaluation.few_shot.comparison import Comparison


@options
class CompareOptions(
    Told,
    Limits,
    Recipe,
    Machine,
    Device,
    ReportPaths,
    Resamples,
    Identity,
    TestShare,
    TableTask,
    LabelOrder,
    NamedModality,
    TableImages,
    PatientColumn,
    WithModel,
    LabelledTable,
):
    """What `compare` is asked."""

    out: str | Path = option(
        "Folder for page, tables and runs; one that holds something else is refused. Every run leaves one small file "
        "there: a call that was stopped goes on, and one for more methods, shots or seeds computes those only.",
        place=True,
    )
    method: str | Sequence[str] = option(
        "Way of adapting, with its settings after colons: svd:lr=0.01. Default: all.",
        default=(),
        form="NAME",
        often=True,
    )
    shots: int | Sequence[int] = option(
        "Number of patients of each class that are learned from, one file of each. Default: 1, 2, 4, 8 and 16.",
        default=(),
        least=1,
        form="K",
        often=True,
    )
    baseline: str | Sequence[str] = option(
        "Method that every other is compared with; or a pack (name or folder), whose image features with a logistic "
        "regression become a row of their own. Default: zero-shot and linear-probe, beside which packs come.",
        default=(),
        form="NAME|PACK",
        often=True,
    )
    quick: bool = option("Leave out the methods that train towers, where none is named.", default=False)
    num_seeds: int = option(
        "Number of draws of shots: those of `adapt` with --seed 0, 1 and so on.", default=5, least=1
    )
    num_inits: int = option(
        "Number of initialisations for each draw. With more than one, the page parts the spread over draws from that "
        "over initialisations.",
        default=1,
        least=1,
    )
    base_to_novel: bool = option("Also learn half of the classes and ask for the others.", default=False)
    seed: int = option("Seed of the division into patients to learn from and to test on.", default=0, least=0)
    workers: int | None = option(
        "Number of reading processes, and of runs at the same time, one thread each; figures do not depend on it. "
        "Default: one reading process for each core, and one run after another.",
        default=None,
        often=True,
        beside=True,
        heading="This machine",
    )


@verb(CompareOptions)
def compare(options: CompareOptions) -> Comparison:
    """Compare ways of adapting a pack to a few labelled studies, on the same shots and the same test patients.

    A page and tables are written. A method that fails is named with its reason, and the others go on.

    Returns:
        Every figure with its interval; `.folder` holds report.html.

    Raises:
        MedclipError: WRONG_USE, TABLE_INVALID, NOTHING_TO_DO, OUTPUT_IN_USE and those of `medclip.models.load`.
    """
    from medclip.evaluation.few_shot.compare import compare_methods
    from medclip.evaluation.few_shot.protocol import REFERENCES, SHOTS, Design
    from medclip.reports.few_shot import write_compare_report

    methods = _listed(options.method)
    design = Design(
        methods=methods or None,
        quick=options.quick,
        shots=(options.shots,) if isinstance(options.shots, int) else tuple(options.shots) or SHOTS,
        seeds=options.num_seeds,
        inits=options.num_inits,
        references=_listed(options.baseline) or REFERENCES,
        novel=options.base_to_novel,
    )
    out = Path(options.out)
    compared = compare_methods(
        options.model,
        source_of(options, options.order),
        design,
        out=out,
        test_share=options.test_share,
        seed=options.seed,
        num_workers=1 if options.workers is None else options.workers,
        device=options.device,
        key_file=key_file_of(options),
        num_replicates=options.num_resamples,
        settings=settings_of(options),
        progress=options.progress,
    )
    write_compare_report(compared, out, show_paths=options.report_paths)
    return compared.result


def _listed(names: str | Sequence[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)

"""The verb `compare`: which way of adapting helps, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.api.run_arguments import folder_of
from medclip.evaluation.few_shot.compare import TEST_SHARE, compare_methods
from medclip.evaluation.few_shot.plan import REFERENCES, SEEDS, SHOTS
from medclip.evaluation.few_shot.results import Comparison
from medclip.progress import Progress
from medclip.reports.few_shot.report import write_compare_report
from medclip.sample import Modality
from medclip.settings import DEFAULT_MODEL, Settings
from medclip.statistics.estimate import NUM_RESAMPLES
from medclip.text.vocabulary.task import Task

if TYPE_CHECKING:
    from medclip.embeddings.open_embeddings import Embeddings
    from medclip.models.model import Model


def compare(
    labels: Any,
    label: str | Sequence[str],
    *,
    out: str | Path,
    model: str | Path | Model = DEFAULT_MODEL,
    methods: Sequence[str] = (),
    quick: bool = False,
    shots: Sequence[int] = SHOTS,
    seeds: int | Sequence[int] = SEEDS,
    inits: int = 1,
    base_to_novel: bool = False,
    reference: Sequence[str] = REFERENCES,
    task: Task | str | Path | None = None,
    modality: Modality | str | None = None,
    patient: str | None = None,
    images: str | Path | Embeddings | None = None,
    test_share: float = TEST_SHARE,
    split_seed: int = 0,
    processes: int = 1,
    num_resamples: int = NUM_RESAMPLES,
    device: str = "cpu",
    key_file: str | Path | None = None,
    report_paths: bool = False,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Fit every way of adapting on the same shots and measure it on the same test patients; write page and tables.

    Every run leaves one small file in `out`; stop it anywhere and call again to go on. Asking for more methods, shots
    or seeds in the same folder computes those only. A method that fails is named with its reason.

    Args:
        labels: CSV, TSV or Parquet file, or a data frame, with `file`, a column of patients and the labels.
        label: The column of class names, or the columns of 0 and 1.
        out: Folder for page, tables and runs.
        model: Name or folder of the base pack, or a loaded model.
        methods: Names of methods, with options after colons (`svd:lr=0.01`); all where empty.
        quick: Leave out methods that train towers, where `methods` is empty.
        shots: K, how many patients of each class are learned from.
        seeds: How many draws of shots (those of `adapt` with seed 0, 1, …), or their seeds.
        inits: How many initialisations for each draw; crossed with the draws.
        base_to_novel: Also learn the first half of the classes and ask for the others.
        reference: Methods that every other is compared with.
        task: Vocabulary task or task file; the table's own labels where None.
        modality: Of rows whose table says none; a model of ECGs needs no word.
        patient: Column that names the patient, or "file" where each file is a patient of its own.
        images: Folder that files of the table are relative to; the table's own where None. Or embeddings of the
            same pack, or their folder: no image is read, and methods that train towers are refused.
        test_share: Share of patients to test on, where the table has no column `split`.
        split_seed: Of that division.
        processes: Runs at a time; each computes with one thread, so that results do not depend on their number.
        num_resamples: Resamples of patients.
        device: Torch device.
        key_file: Key that patients are hashed with; the identity key of `settings` where None.
        report_paths: Name images in the page by their file. By default it names them by their row of the table.
        settings: Limits and policy.
        progress: Told of each unit and run.

    Returns:
        Every figure with its interval; `.folder` holds report.html.

    Raises:
        MedclipError: WRONG_USE, TABLE_INVALID, NOTHING_TO_DO, OUTPUT_IN_USE and those of `medclip.models.load`.
    """
    compared = compare_methods(
        model,
        labels,
        label,
        out=out,
        methods=methods or None,
        quick=quick,
        shots=shots,
        seeds=seeds,
        inits=inits,
        base_to_novel=base_to_novel,
        references=reference,
        task=task,
        modality=modality,
        folder=None if (folder := folder_of(images)) is None else Path(folder),
        patient_from=patient,
        test_share=test_share,
        split_seed=split_seed,
        processes=processes,
        device=device,
        key_file=None if key_file is None else Path(key_file),
        num_replicates=num_resamples,
        settings=settings,
        progress=progress,
    )
    write_compare_report(compared, Path(out), show_paths=report_paths)
    return compared.result

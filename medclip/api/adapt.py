"""The verb `adapt`: a table of labelled studies and a pack go in, an adapted pack comes out, measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.adaptation.run import AdaptRun, adapt_model
from medclip.api.run_arguments import folder_of
from medclip.evaluation.adapted_model import measure
from medclip.files.recipes.key_value import Overrides, read_overrides
from medclip.progress import Progress
from medclip.sample import Modality
from medclip.settings import DEFAULT_MODEL, Settings
from medclip.text.vocabulary.task import Task

if TYPE_CHECKING:
    from medclip.embeddings.open_embeddings import Embeddings
    from medclip.models.model import Model


def adapt(
    labels: Any,
    label: str | Sequence[str],
    *,
    out: str | Path | None = None,
    model: str | Path | Model = DEFAULT_MODEL,
    method: str | None = None,
    shots: int = 16,
    task: Task | str | Path | None = None,
    modality: Modality | str | None = None,
    patient: str | None = None,
    images: str | Path | Embeddings | None = None,
    seed: int = 0,
    init_seed: int = 0,
    test_share: float = 0.3,
    overrides: Overrides = (),
    checkpoint: str | Path | None = None,
    overwrite: bool = False,
    name: str | None = None,
    key_file: str | Path | None = None,
    workers: int | None = None,
    memory: int | str | None = None,
    threads: int | None = None,
    device: str = "cpu",
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> AdaptRun:
    """Adapt a model pack to a question of one's own, from a few labelled studies, and measure it on other patients.

    Patients are divided first; shots are drawn from one side, and the other side is only scored. A file that cannot be
    read is counted and never stops it; the next patient of its class takes the place of such a shot.

    Args:
        labels: CSV, TSV or Parquet file, or a data frame, with `file`, a column of patients and the labels: see
            `medclip.adaptation.data.table.read_adapt_table`.
        label: The column of class names, or the columns of 0 and 1.
        out: Folder of the new pack; nothing is written where None. It may hold the pack of an equal call.
        model: The base: name or folder of a pack, or a loaded model.
        method: One of `medclip.adaptation.methods.METHODS`; "svd" where None, "linear-probe" for an image-only pack,
            which takes those that need no words.
        shots: K: patients of each class, one unit of each.
        task: A task of the vocabulary or a task file; made of the table where None.
        modality: Of rows whose table says none; a model of ECGs needs no word.
        patient: Column that names the patient, or "file" where each file is a patient of its own.
        images: Folder that files of the table are relative to; the table's own where None. Or embeddings of the
            same pack, or their folder: no image is read, and methods that train towers are refused.
        seed: Of the draw of shots. Test patients do not depend on it.
        init_seed: Of initialisation, batches and augmentation.
        test_share: Share of patients to test on, where the table has no column `split`; 0 for no test.
        overrides: Settings of the method to change: `{"steps": 200}` or `["steps=200"]`.
        checkpoint: Folder for what was learned alone, bound to the base; nothing is written where None.
        overwrite: Replace any pack in `out` and any checkpoint in `checkpoint`.
        name: Of the new pack, on its card.
        key_file: Key that patients are hashed with; the identity key of `settings` where None.
        workers: Reading processes; one for each core where None.
        memory: What all processes may take together, such as "12GB"; where None the settings', by default 60 % of what
            the machine or its cgroup has.
        threads: Of torch, while it learns.
        device: Torch device.
        settings: Limits and policy.
        progress: Told of each unit.

    Returns:
        The run: `.adapted`, `.test`, `.notes`, and `.measured`, the figures on the test patients beside zero-shot.

    Raises:
        MedclipError: WRONG_USE, OUTPUT_IN_USE, TABLE_INVALID, NO_TASK, NOTHING_TO_DO; PATIENT_OVERLAP where a patient
            or the bytes of a file are on two sides; NON_FINITE; those of `medclip.models.load` and of the method.
    """
    return adapt_model(
        model,
        labels,
        label,
        method=method,
        shots=shots,
        out=out,
        checkpoint=checkpoint,
        task=task,
        modality=modality,
        folder=folder_of(images),
        patient_from=patient,
        seed=seed,
        init_seed=init_seed,
        test_share=test_share,
        options={key.replace("-", "_"): value for key, value in read_overrides(overrides).items()},
        name=name,
        key_file=None if key_file is None else Path(key_file),
        workers=workers,
        memory=memory,
        threads=threads,
        device=device,
        settings=settings,
        progress=progress,
        measure=measure,
        replace=overwrite,
    )

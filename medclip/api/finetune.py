"""The verb `finetune`: a pretrained tower and a table of labels go in, a pack that classifies comes out, measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.adaptation.data.table import read_adapt_table
from medclip.adaptation.finetune.labelled_shards import divided, is_built, write_shards
from medclip.adaptation.finetune.recipe_of import find_start, recipe_of, stored_side
from medclip.adaptation.finetune.result import FinetuneResult
from medclip.api.pretrain import measured
from medclip.api.run_arguments import folder_of
from medclip.embeddings.embeddings_reader import needs_images
from medclip.embeddings.open_embeddings import is_embeddings
from medclip.errors import MedclipError, Reason
from medclip.files.output import claim_folder
from medclip.files.pseudonyms import load_key
from medclip.files.recipes.key_value import Overrides
from medclip.models.devices import check_device
from medclip.progress import Progress
from medclip.sample import Modality
from medclip.settings import Settings
from medclip.shards.folder import read_index
from medclip.text.vocabulary.task import Task
from medclip.training.loop import NOTE, run_recipe
from medclip.training.result import LABELS_NOTE, OWN_SHARDS, OWN_TASK

if TYPE_CHECKING:
    from medclip.embeddings.open_embeddings import Embeddings
    from medclip.models.model import Model


def finetune(
    model: str | Path | Model,
    labels: Any,
    label: str | Sequence[str],
    *,
    out: str | Path,
    images: str | Path | Embeddings | None = None,
    patient: str | None = None,
    task: Task | str | Path | None = None,
    modality: Modality | str | None = None,
    test_share: float = 0.2,
    val_share: float = 0.1,
    seed: int = 0,
    overrides: Overrides = (),
    name: str | None = None,
    resume: bool = True,
    key_file: str | Path | None = None,
    workers: int | None = None,
    memory: int | str | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> FinetuneResult:
    """Fine-tune an image tower to classes: one of several, or several findings that may occur together.

    Patients are divided first: from one side is learned, with the second the best epoch is chosen, and the third is
    measured once, after the last step. The recipe is that of medical MAE: mean of the patch tokens, layer-wise rates,
    RandAugment, stochastic depth. A run that is stopped goes on when it is called again, bit for bit. Started by
    `torchrun`, each rank calls this: the first builds the shards, the others wait.

    Args:
        model: What to begin with: name or folder of a pack (its image tower is taken), a loaded model, or the name of a
            tower of timm or of ECGs (joint_patch, lead_patch, resnet1d), which begins with random weights.
        labels: CSV, TSV or Parquet file, or a data frame, with `file`, a column of patients and the labels; `split`
            (train, val, test), where it has it, stands.
        label: The column of class names, or the columns of 0 and 1; blanks and -1 are not known.
        out: The run's folder: shards/, recipe.json, checkpoints/, pack/, report.html.
        images: Folder that files of the table are relative to; the table's own where None. Embeddings are refused.
        patient: Column that names the patient, or "file" where each file is a patient of its own.
        task: A task of the vocabulary or a task file; made of the table where None.
        modality: Of rows whose table says none; a model of ECGs needs no word.
        test_share: Share of patients to test on, where the table names none.
        val_share: Share of patients to choose the best epoch with, where the table names none.
        seed: Of the division and of all chance in training.
        overrides: What to change in the recipe, by its path: `{"train.epochs": 10}` or `["train.epochs=10"]`.
        name: On the pack's card.
        resume: Go on with a run in the folder. False refuses a folder with a run in it.
        key_file: Key that patients are hashed with; the identity key of `settings` where None.
        workers: Reading processes that make the shards; one for each core where None.
        memory: What they may take together, such as "12GB".
        settings: Limits and policy.
        progress: Told of each row and each step.

    Returns:
        How it ended; `.pack` scores, `.test` has the figures, of the classes the worst first, `.report` the page.

    Raises:
        MedclipError: WRONG_USE for labels of one class only and for classes that lack patients on a side, naming class
            and column; PACK_NOT_FOUND, OUTPUT_IN_USE, TABLE_INVALID, NO_TASK, PATIENT_OVERLAP, RECIPE_INVALID; as
            `medclip.pretrain`.
    """
    columns, out = (label,) if isinstance(label, str) else tuple(label), Path(out)
    settings = (settings or Settings()).on_machine(workers, memory)
    place = folder_of(images)
    if place is not None and is_embeddings(place):
        raise needs_images("fine-tuning learns in the tower")
    claim_folder(out, "fine-tuning", marks=(LABELS_NOTE, NOTE))
    key = load_key(settings, path=None if key_file is None else Path(key_file))
    start = find_start(model if isinstance(model, str | Path) else model.path)
    table = read_adapt_table(
        labels, columns, task=task, modality=modality or start.modality, folder=None if place is None else Path(place),
        patient_from=patient, key=key,
    )  # fmt: skip
    labelled = divided(table, columns, seed=seed, test_share=test_share, val_share=val_share)
    text = labelled.text

    def recipe(num_train: int, num_val: int) -> Any:
        return recipe_of(
            start, text.task, text.names, out=out, task_file=out / OWN_TASK, shards=out / OWN_SHARDS,
            num_train=num_train, num_val=num_val, seed=seed, name=name, overrides=overrides,
        )  # fmt: skip

    planned = recipe(labelled.side.count("train"), labelled.side.count("val"))
    check_device(planned.train.device)

    def build() -> None:
        if not is_built(out):
            check_towers(planned)
        write_shards(
            labelled, labels, out, patient=patient, max_side=stored_side(planned.model.size_px),
            volumes=planned.model.volume is not None, signals=planned.model.signal is not None, seed=seed, key=key,
            settings=settings, progress=progress,
        )  # fmt: skip

    from medclip.training.checkpoints.start import check_towers
    from medclip.training.ranks.world import joined

    with joined(planned.train.device) as world:
        world.without_hurry().first(build)
        counts = read_index(out / OWN_SHARDS)["counts"]
        sizes = {split: counts["by_split"].get(split, 0) for split in ("train", "val", "test")}
        if not all(sizes.values()):
            empty = next(split for split, size in sizes.items() if not size)
            raise MedclipError(
                Reason.NOTHING_TO_DO, f"not one image of the split {empty} could be read.", where=out / OWN_SHARDS,
                hint="Its rejects.parquet says why of each.",
            )  # fmt: skip
        plan = recipe(sizes["train"], sizes["val"])
        result = run_recipe(plan, out=out, resume=resume, progress=progress)
    result = measured(plan, result, progress)  # the ranks have parted: no one waits for the first one
    return FinetuneResult(
        text=text, run=result, images=sizes, patients=counts["patients_by_split"],
        problems={reason: number for reason, number in counts["by_reason"].items() if number},
        notes=(*table.notes, *labelled.notes, *result.test_notes),
    )  # fmt: skip

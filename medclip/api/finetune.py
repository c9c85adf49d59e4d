"""The verb `finetune`: a pretrained tower and a table of labels go in, a pack that classifies comes out, measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.api.adapt import key_file_of, source_of
from medclip.api.groups.asking import Chance, LabelledTable, NamedPack, Overridden, TableTask, TestShare
from medclip.api.groups.reading import Identity, Limits, NamedModality, PatientColumn, TableImages
from medclip.api.groups.running import Machine, Recipe, Resuming, Told, settings_of
from medclip.options import option, options
from medclip.verbs import verb

if TYPE_CHECKING:
    from medclip.adaptation.finetune.result import FinetuneResult
    from medclip.models.model import Model


@options
class FinetuneOptions(
    Told,
    Limits,
    Recipe,
    Machine,
    NamedPack,
    Resuming,
    Overridden,
    Chance,
    Identity,
    TestShare,
    TableTask,
    NamedModality,
    TableImages,
    PatientColumn,
    LabelledTable,
):
    """What `finetune` is asked."""

    model: str | Path | Model = option(
        "Model to begin with: name or folder of a pack, of which the image tower is taken, or a tower of timm or of "
        "ECGs (joint_patch, lead_patch, resnet1d), which begins with random weights. In Python also a loaded model.",
        form="PACK|TOWER",
        kind=str,
        place=True,
    )
    out: str | Path = option(
        "Folder to write; one that holds something else is refused. It gets shards/, recipe.json, checkpoints/, pack/ "
        "and report.html.",
        place=True,
    )
    val_share: float = option(
        "Share of patients to choose the best epoch with, where the table has no column `split`.",
        default=0.1,
        least=0,
        most=1,
        form="X",
        heading="Table and patients",
    )


@verb(FinetuneOptions)
def finetune(options: FinetuneOptions) -> FinetuneResult:
    """Fine-tune an image tower to classes, choose the best epoch on validation patients, and test it once.

    Classes are one of several, or several findings that may occur together; blanks and -1 are not known. Patients are
    divided first: from one side is learned, with the second the best epoch is chosen, and the third is measured after
    the last step. The recipe is that of medical MAE: mean of the patch tokens, layer-wise rates, RandAugment,
    stochastic depth; a value is changed by its path, such as --set train.epochs=20. A run that is stopped goes on when
    it is called again, bit for bit.

    Several GPUs: torchrun --nproc-per-node N -m medclip.cli.main finetune ... Each rank calls this: the first builds
    the shards, the others wait.

    Returns:
        How it ended; `.pack` scores, `.test` has the figures, of the classes the worst first, `.report` the page.

    Raises:
        MedclipError: WRONG_USE for labels of one class only and for classes that lack patients on a side, naming class
            and column; PACK_NOT_FOUND, OUTPUT_IN_USE, TABLE_INVALID, NO_TASK, PATIENT_OVERLAP, RECIPE_INVALID; as
            `medclip.pretrain`.
    """
    from medclip.adaptation.finetune.labelled_shards import divided, is_built, write_shards
    from medclip.adaptation.finetune.recipe_of import find_start, recipe_of, stored_side
    from medclip.adaptation.finetune.result import FinetuneResult
    from medclip.api.pretrain import measured
    from medclip.embeddings.embeddings_reader import needs_images
    from medclip.embeddings.open_embeddings import is_embeddings
    from medclip.errors import MedclipError, Reason
    from medclip.files.output import claim_folder
    from medclip.files.pseudonyms import load_key
    from medclip.models.devices import check_device
    from medclip.shards.folder import read_index
    from medclip.training.loop import NOTE, run_recipe
    from medclip.training.result import LABELS_NOTE, OWN_SHARDS, OWN_TASK

    source, settings, out = source_of(options), settings_of(options), Path(options.out)
    seed, model, progress = options.seed, options.model, options.progress
    if source.folder is not None and is_embeddings(source.folder):
        raise needs_images("fine-tuning learns in the tower")
    claim_folder(out, "fine-tuning", marks=(LABELS_NOTE, NOTE))
    key = load_key(settings, path=key_file_of(options))
    start = find_start(model if isinstance(model, str | Path) else model.path)
    table = source.read(key, start.modality)
    labelled = divided(table, source.labels, seed=seed, test_share=options.test_share, val_share=options.val_share)
    text = labelled.text

    def recipe(num_train: int, num_val: int) -> Any:
        return recipe_of(
            start,
            text.task,
            text.names,
            out=out,
            task_file=out / OWN_TASK,
            shards=out / OWN_SHARDS,
            num_train=num_train,
            num_val=num_val,
            seed=seed,
            name=options.name,
            overrides=options.overrides,
        )

    planned = recipe(labelled.side.count("train"), labelled.side.count("val"))
    check_device(planned.train.device)

    def build() -> None:
        if not is_built(out):
            check_towers(planned)
        write_shards(
            labelled,
            source.table,
            out,
            patient=source.patient,
            max_side=stored_side(planned.model.size_px),
            volumes=planned.model.volume is not None,
            signals=planned.model.signal is not None,
            seed=seed,
            key=key,
            settings=settings,
            progress=progress,
        )

    from medclip.training.checkpoints.start import check_towers
    from medclip.training.ranks import joined

    with joined(planned.train.device) as world:
        world.without_hurry().first(build)
        counts = read_index(out / OWN_SHARDS)["counts"]
        sizes = {split: counts["by_split"].get(split, 0) for split in ("train", "val", "test")}
        if not all(sizes.values()):
            empty = next(split for split, size in sizes.items() if not size)
            raise MedclipError(
                Reason.NOTHING_TO_DO,
                f"not one image of the split {empty} could be read.",
                where=out / OWN_SHARDS,
                hint="Its rejects.parquet says why of each.",
            )
        plan = recipe(sizes["train"], sizes["val"])
        result = run_recipe(plan, out=out, resume=options.resume, progress=progress)
    result = measured(plan, result, progress)  # the ranks have parted: no one waits for the first one
    return FinetuneResult(
        text=text,
        run=result,
        images=sizes,
        patients=counts["patients_by_split"],
        problems={reason: number for reason, number in counts["by_reason"].items() if number},
        notes=(*table.notes, *labelled.notes, *result.test_notes),
    )

"""The verb `pretrain`: a recipe and shards go in, a model pack comes out."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.api.groups.asking import Overridden
from medclip.api.groups.running import Resuming, Told
from medclip.errors import MedclipError, Reason
from medclip.options import argument, option, options
from medclip.verbs import verb
from medclip.wording import count

if TYPE_CHECKING:
    from medclip.evaluation.shard_split import OfVectors
    from medclip.models.model import Model
    from medclip.models.packs.card import SplitFigures
    from medclip.progress import Progress
    from medclip.shards.reading.samples import ShardReader
    from medclip.training.recipe.schema import Recipe, RecipeSource
    from medclip.training.result import PretrainResult
    from medclip.training.steps.masked_pixels import MaskedPart


@options
class PretrainOptions(Told, Resuming, Overridden):
    """What `pretrain` is asked."""

    recipe: RecipeSource = argument(
        "Recipe of a training, a YAML file. In Python also a mapping.", kind=Path, place=True
    )
    out: str | Path | None = option(
        "Folder to write; one that holds something else is refused. It gets recipe.json, tokenizer/, log.jsonl, "
        "checkpoints/, pack/ and report.html. Default: the recipe's `out`, else runs/NAME.",
        default=None,
        place=True,
    )


@verb(PretrainOptions)
def pretrain(options: PretrainOptions) -> PretrainResult:
    """Train a model of images and text, or of images alone, from a recipe and write it as a model pack.

    Run again to go on after a stop. A value of the recipe is changed by its path, such as --set train.lr=1e-4.

    After the last step the pack is measured on the split `data.test_split` of its shards, where they have one: the
    tasks of its labels in words (those of a supervised part by its head), and retrieval, with patients of training left
    out; with `objective.losses.views` also what became of views of one thing, re-identification among it, beside the
    pack that the run began with. The figures are in the pack's card and in the report. A run that is stopped before it
    has measured does so when it is called again. A recipe that reads no words (`objective: masked`) gives an image
    tower alone, which is asked nothing.

    On one machine with the same number of threads and ranks a stopped and resumed run gives the same losses and
    weights, bit for bit, as one that was never stopped: every draw is a function of the seed, the epoch and the sample.
    With another number of ranks it goes on with the same batches.

    Several processes or machines: torchrun --nproc-per-node N -m medclip.cli.main pretrain RECIPE --out FOLDER. Each
    rank calls this; the folder must lie on a file system that all of them see.

    Returns:
        How the run ended; `.pack` is None where it was stopped before its end.

    Raises:
        MedclipError: RECIPE_INVALID; WRONG_USE for a device or split that is not there; OUTPUT_IN_USE when the folder
            holds another run; BUSY when one is at work there; NON_FINITE when the loss stays not finite; TOO_MANY_BAD
            samples; DISK_FULL; whatever reading shards raises.
    """
    from medclip.training.loop import run_recipe
    from medclip.training.recipe.schema import load_recipe

    plan = load_recipe(options.recipe, options.overrides)
    out = None if options.out is None else Path(options.out)
    result = run_recipe(plan, out=out, resume=options.resume, progress=options.progress)
    return measured(plan, result, options.progress)


def measured(plan: Recipe, result: PretrainResult, progress: Progress | None) -> PretrainResult:
    """Complete the pack of a run, measure it on the test split, and write the report; ranks but the first do nothing.

    Args:
        plan: The recipe.
        result: End of the run.
        progress: Object that is told of each image.

    Raises:
        MedclipError: As reading shards.
    """
    if os.environ.get("RANK", "0") != "0":  # the ranks have parted: no one waits for the first one
        return result
    from medclip.models.packs.pack import pack_card, update_pack
    from medclip.reports.pretrain import write_pretrain_report
    from medclip.training.result import HEADS

    card = None
    if result.pack is not None:
        if plan.objective.answering:
            from medclip.adaptation.finetune.head_of_pack import add_heads

            add_heads(result.pack, plan, result.out / HEADS)
        held_out = _measure(plan, result.pack, progress)
        card = pack_card(result.pack)
        if held_out is not None:
            card = card.model_copy(update={"held_out": held_out})
            update_pack(result.pack, card=card)
            result = replace(result, test=tuple(held_out.rows()), test_notes=held_out.notes)
    return replace(result, report=write_pretrain_report(plan, result, card))


def _measure(recipe: Recipe, pack: Path, progress: Progress | None) -> SplitFigures | None:
    """Measure a pack on the test split of its run's shards; None where there is none.

    A pack that can be asked nothing is measured on what it learned: the pixels of hidden patches.
    """
    from medclip.shards.folder import read_index

    d, answers = recipe.data, recipe.needs_words or bool(recipe.objective.answering)
    if not any(d.test_split in read_index(place)["counts"]["by_split"] for place in d.shards):
        return None
    from medclip.evaluation.hidden_pixels import measure_hidden
    from medclip.evaluation.shard_split import measure_split
    from medclip.models.packs.card import training_hashes, training_patients
    from medclip.models.packs.pack import load_model
    from medclip.shards.reading.samples import ShardReader
    from medclip.training.batches.samples import Drawing
    from medclip.training.checkpoints.export import pretrained_on
    from medclip.training.result import MASKED

    model, before = load_model(pack, device=recipe.train.device), pretrained_on(recipe)
    files, patients = training_hashes(pack, model.card), training_patients(pack, model.card)
    drawing = Drawing(
        model.preprocess,
        recipe.seed,
        None,
        d.native_share,
        d.report_share,
        d.report_words,
        d.native,
        words=recipe.needs_words,
        candidates=d.candidates,
        **recipe.objective.of_views,
    )
    with ShardReader(d.shards, str(d.test_split), verify=d.verify, cache=d.cache) as reader:
        try:
            common: dict[str, Any] = {
                "seen": ((files or frozenset()) | (patients or frozenset())) - before,
                "limit": d.max_test,
                "workers": d.workers,
                "progress": progress,
            }
            figures = (
                measure_split(
                    model, reader, drawing, start=_start(recipe), of_vectors=_view_figures(recipe, reader), **common
                )
                if answers
                else measure_hidden(model, _masked_part(recipe, model, pack.parent / MASKED), reader, drawing, **common)
            )
            num_before = sum(not before.isdisjoint({*row["files"], row["patient"]}) for row in reader.provenance())
            if not num_before:
                return figures
            note = (
                f"{count(num_before, 'image')} of this split were among those that the image tower had been pretrained "
                "on, without their labels, or are of a patient of these: figures for new patients may be lower."
            )
            return figures.model_copy(update={"notes": (*figures.notes, note)})
        except MedclipError as error:
            if error.reason is not Reason.NOTHING_TO_DO:  # the training itself was no failure
                raise
            if progress is not None:
                progress.note(str(error))
            return None


def _view_figures(recipe: Recipe, reader: ShardReader) -> OfVectors | None:
    """Return what measures views of one thing where the recipe draws them together; else None."""
    settings = recipe.objective.losses.get("views")
    if settings is None:
        return None
    from medclip.auditing.checks.embeddings.view_figures import known_views, view_figures

    return lambda vectors_ND, rows_N, patients: view_figures(
        known_views(reader, settings, rows_N, patients), vectors_ND
    )


def _masked_part(recipe: Recipe, model: Model, weights: Path) -> MaskedPart:
    """Load the part of a run that guesses hidden pixels, beside its pack."""
    from safetensors.torch import load_file

    from medclip.training.steps.masked_pixels import MaskedPart

    assert recipe.objective.masked is not None
    part = MaskedPart(model.clip, model.preprocess.size_px, recipe.objective.masked, model.preprocess.std)
    part.load_state_dict(load_file(weights))
    return part.eval().requires_grad_(False).to(model.device)


def _start(recipe: Recipe) -> Model | None:
    """Load the pack that the run began with; None where it began with something else."""
    from medclip.models.packs.pack import find_pack, load_model

    try:
        pack = find_pack(recipe.model.start or "")
    except MedclipError:
        return None
    return load_model(pack, device=recipe.train.device)

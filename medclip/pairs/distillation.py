"""A small student of a pack: shards, what the pack says of them, one training, and how far the two agree.

Nothing here trains or stores by itself: images become shards, `reinforce` asks the teacher once (MobileCLIP's dataset
reinforcement), and the one trainer runs a recipe that is made here. The student has the teacher's own text tower,
locked, so that its images lie in the same space. All stages leave their folders in a work folder: a call that was
killed is given again and goes on.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.errors import MedclipError, Reason
from medclip.evaluation.shard_split import MODALITY
from medclip.files.output import claim_folder, claim_run, digest_of, in_use, new_folder
from medclip.models.merging.merge import merged_tasks
from medclip.models.packs.manifest import FILE_NAME, file_sha256, pack_digest
from medclip.models.packs.pack import find_pack, load_model, pack_card, update_pack
from medclip.models.prototypes.sentence_vectors import task_sentences
from medclip.pairs.agreement import Agreement, measure_agreement
from medclip.pairs.reinforcement import Reinforcing, reinforce
from medclip.pairs.student_start import check_tower, start_of_tower, write_start
from medclip.progress import Progress, Silent
from medclip.result import Result
from medclip.shards.folder import INDEX, read_index
from medclip.shards.reading.samples import ShardReader
from medclip.shards.writing.build import build_shards
from medclip.text.vocabulary.load import load_task, task_names
from medclip.wording import count, list_of

if TYPE_CHECKING:
    from medclip.models.model import Model
    from medclip.models.packs.card import Card
    from medclip.sample import Modality
    from medclip.settings import Settings

NOTE, WHAT = "distil.json", "distillation"
STUDENT_OF = "student_of"
"""Key of a card's `created_from`."""
_HELD_OUT = ("test", "val")
_BATCH = 64


@dataclass(frozen=True)
class Distilling:
    """What is distilled, of which images, and where."""

    pack: str | Path
    images: str | Path
    tower: str
    out: Path
    work: Path
    texts: tuple[str, ...] = ()
    """Sentences for images without words; those of the tasks of the pack's card where there are none."""
    augmentations: int = 4
    epochs: int = 20
    size_px: int | None = None
    """Size of the student's images; that of the pack where None."""
    seed: int = 0
    device: str = "cpu"
    modality: Modality | None = None
    """Of the images of a folder, where the pack knows several."""


@dataclass(frozen=True, eq=False, repr=False)
class Distilled(Result):
    """A pack that was taught by another."""

    path: Path
    teacher: str
    tower: str
    num_train: int
    agreement: Agreement | None
    """With the teacher on images that the student did not learn from; None where the shards hold no others."""
    notes: tuple[str, ...]

    def _facts(self) -> Mapping[str, object]:
        facts: dict[str, object] = {"student of": self.teacher, "tower": self.tower, "learned from": self.num_train}
        if self.agreement is not None:
            facts |= {
                "measured on": self.agreement.num_images,
                "mean cosine": str(self.agreement.cosine),
                "images/s": self.agreement.speed_in_words,
            }
        return facts | {"folder": self.path, "notes": " ".join(self.notes)}

    def _rows(self, most: int | None = None) -> list[dict[str, Any]]:
        return [] if self.agreement is None else self.agreement.rows()[:most]


def distil(
    what: Distilling, settings: Settings | None = None, progress: Progress | None = None, *, overwrite: bool = False
) -> Distilled:
    """Make a student of a pack; see `medclip.api.distil.distil`."""
    from medclip.training.loop import run_recipe

    progress, place = progress or Silent(), find_pack(what.pack)
    inputs = {"the pack that teaches": place}
    if claim_folder(what.out, "model pack", marks=(FILE_NAME,), inputs=inputs, in_one_step=True) and not overwrite:
        raise in_use(
            what.out, "this folder holds a model pack already", "Name another folder, or replace it with --overwrite."
        )
    check_tower(what.tower)
    teacher = load_model(place, device=what.device)
    _check_teacher(teacher)
    if not what.texts:
        _check_sentences(teacher, teacher.card)
    _check_modality(what, teacher)
    names = ("tower", "augmentations", "epochs", "size_px", "seed", "modality")
    facts = {"pack": pack_digest(place), "images": _state_of(Path(what.images)), "texts": list(what.texts)}
    claim_run(what.work, WHAT, facts | {name: getattr(what, name) for name in names}, NOTE)

    try:
        shards = _shards_of(what, teacher, settings, progress)
        card = card_of_images(teacher, shards)
        texts = what.texts or _check_sentences(teacher, card)
    except MedclipError:
        if [path.name for path in what.work.iterdir()] == [NOTE]:  # refused images are no reason to refuse the next
            shutil.rmtree(what.work)
        raise
    by_split = read_index(shards)["counts"]["by_split"]
    stored = reinforce(
        Reinforcing(
            str(shards),
            what.work / "reinforced",
            (str(place),),
            augmentations=what.augmentations,
            texts=texts,
            seed=what.seed,
        ),
        what.device,
        progress,
    )
    start = what.work / "start"
    if not start.is_dir():
        write_start(teacher, start, tower=what.tower, size_px=what.size_px, seed=what.seed)
    recipe = recipe_of(what, teacher, card, shards, start, stored.num_samples)
    pack = run_recipe(recipe, out=what.work / "run", progress=progress).pack
    if pack is None:
        raise MedclipError(
            Reason.NOTHING_TO_DO, "the training was stopped.", where=what.work, hint="The same call goes on."
        )
    split = next((name for name in _HELD_OUT if by_split.get(name)), None)
    agreement, notes = None, ["The shards have no split test or val: nothing was measured."]
    if split is not None:
        student = load_model(pack, device=what.device)
        agreement, notes = measure_agreement(teacher, student, shards, split, progress)
    _write_student(what, teacher, place, pack, agreement)
    title = f"{teacher.name} {teacher.card.version}"
    return Distilled(what.out, title, what.tower, stored.num_samples, agreement, tuple(notes))


def _check_teacher(teacher: Model) -> None:
    """Refuse a pack whose place a tower of square images could not take; `reinforce` refuses one without words."""
    if teacher.preprocess.takes != "images" or teacher.preprocess.budget is not None:
        raise MedclipError(
            Reason.NOT_SUPPORTED_YET,
            f"{teacher.name} does not take square images, and a student does.",
            hint="Name a pack of images, all of one size.",
        )


def _check_sentences(teacher: Model, card: Card) -> tuple[str, ...]:
    """Return the sentences of a card's tasks, and refuse a card that has none."""
    if texts := tuple(task_sentences(card)):
        return texts
    of_images = "" if card is teacher.card else " of these images"
    raise MedclipError(
        Reason.WRONG_USE,
        f"the card of {teacher.name} names no task{of_images} of whose sentences a student could be taught.",
        hint="Name a file of sentences, one a line: --texts FILE.",
    )


def _check_modality(what: Distilling, teacher: Model) -> None:
    """Refuse a folder of images of which nothing says of what kind they are, and a modality that is said twice."""
    source, known = Path(what.images), teacher.card.modalities
    is_folder = source.is_dir() and not (source / INDEX).is_file()
    if what.modality is not None and not is_folder:
        raise MedclipError(
            Reason.WRONG_USE,
            "--modality is of a folder of images; a table and shards say it of each image.",
            hint="Leave it out.",
        )
    if is_folder and (len(known) != 1 if what.modality is None else what.modality not in known):
        is_other = what.modality is not None
        raise MedclipError(
            Reason.WRONG_USE,
            f"these images are said to be {what.modality}, and {teacher.name} knows {list_of(known)}."
            if is_other
            else f"nothing says of which modality these images are; {teacher.name} knows {list_of(known)}.",
            where=source,
            hint="Name one that the pack knows."
            if is_other
            else "Say it: --modality M; or name a table with the columns file, patient and modality.",
        )


def card_of_images(teacher: Model, shards: Path) -> Card:
    """Return the teacher's card with the tasks alone that are of the modalities of the images learned from."""
    with ShardReader(shards, "train") as reader:
        seen = set(map(str, reader.columns.modalities))
    tasks = {
        name: task
        for name, task in teacher.card.tasks.items()
        if name in task_names() and seen.intersection(map(str, task.modalities or load_task(name).modalities))
    }
    return teacher.card.model_copy(update={"tasks": tasks})


def _files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("[!.]*") if path.is_file())


def _state_of(source: Path) -> str:
    """Return what tells images from others that came to the same place: stages of those are no stages of these."""
    if (source / INDEX).is_file():
        return file_sha256(source / INDEX)
    if not source.is_dir():
        return file_sha256(source) if source.is_file() else str(source)
    stats = [(str(path.relative_to(source)), path.stat()) for path in _files_in(source)]
    return digest_of([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])


def _shards_of(what: Distilling, teacher: Model, settings: Settings | None, progress: Progress) -> Path:
    """Return the shards: those that were named, or those of a table or a folder of images."""
    import pyarrow as pa

    source, shards = Path(what.images), what.work / "shards"
    if (source / INDEX).is_file():
        return source
    if (shards / INDEX).is_file():
        return shards
    if not source.is_dir():
        build_shards(source, shards, settings=settings, progress=progress)
        return shards
    files = _files_in(source)
    if not files:
        raise MedclipError(Reason.NOTHING_TO_DO, "the folder holds no files.", where=source)
    names = [str(p.relative_to(source)) for p in files]
    table = pa.table({"file": names, "modality": [str(what.modality or teacher.card.modalities[0])] * len(names)})
    build_shards(table, shards, images=source, patient="file", settings=settings, progress=progress)
    return shards


def recipe_of(what: Distilling, teacher: Model, card: Card, shards: Path, start: Path, num: int) -> dict[str, Any]:
    """Return the recipe of a student's training.

    Args:
        what: Number of epochs, seed and folders.
        teacher: Pack that teaches.
        card: Card with the tasks that are of the images (`card_of_images`).
        shards: Images, beside which the answers are stored in `what.work`.
        start: Pack that `write_start` wrote.
        num: Number of samples of the training split.
    """
    batch = max(2, min(_BATCH, num))
    warm = min(50, what.epochs * (num // batch) // 10)
    is_pretrained = start_of_tower(what.tower, teacher) is not None
    tasks = {name: task.model_dump(mode="json") for name, task in merged_tasks([card]).items() if name != MODALITY}
    return {
        "name": what.out.name,
        "version": "1",
        "seed": what.seed,
        "data": {
            "shards": str(shards),
            "reinforced": str(what.work / "reinforced"),
            "val_split": None,
            "test_split": None,
        },
        "model": {"start": str(start), "lock_text": True, "freeze_bn": is_pretrained},
        "objective": {"contrastive": 0, "losses": {"distill": {}}},
        "train": {
            "epochs": what.epochs,
            "batch_size": batch,
            "warmup_steps": warm,
            "image_lr_factor": 0.3 if is_pretrained else 1.0,
            "device": what.device,
        },
        "card": {
            "summary": f"Student of {teacher.name} {teacher.card.version}: a {what.tower} that was taught to answer as "
            "that pack does.",
            "intended_use": teacher.card.intended_use,
            "limits": [
                f"It answers as {teacher.name} does, or worse, also where that is wrong; figures of that pack are not "
                "its own.",
                *teacher.card.limits,
            ],
            "tasks": tasks,
        },
    }


def _write_student(what: Distilling, teacher: Model, place: Path, pack: Path, agreement: Agreement | None) -> None:
    """Copy the pack of the run, and say on its card whose student it is."""
    card = pack_card(pack)
    origin: dict[str, Any] = {STUDENT_OF: f"{teacher.name} {teacher.card.version} ({pack_digest(place)[:12]})"}
    if agreement is not None:
        origin["agreement"] = agreement.to_dict()
        note = f"Agreement with it was measured on {count(agreement.num_images, 'held-out image')}."
        card = card.model_copy(update={"summary": f"{card.summary} {note}"})
    with new_folder(what.out) as fresh:
        shutil.copytree(pack, fresh, dirs_exist_ok=True)
        update_pack(fresh, card=card.model_copy(update={"created_from": {**card.created_from, **origin}}))

"""The verb `pairs reinforce`: what teachers say of shards, stored once beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medclip.api.groups.asking import TeacherTexts
from medclip.api.groups.running import Device, Recipe, Told
from medclip.options import argument, option, options
from medclip.verbs import verb

if TYPE_CHECKING:
    from medclip.pairs.reinforcement import ReinforceResult


@options
class ReinforceOptions(Told, TeacherTexts, Recipe, Device):
    """What `pairs reinforce` is asked."""

    shards: str | Path = argument("Shards of one image a sample.", place=True)
    out: str | Path = argument(
        "Folder to write: for each tar one with augmentations, captions and vectors, and no image.",
        form="DIR",
        named=True,
        place=True,
    )
    teachers: Sequence[str | Path] = option(
        "Pack that teaches, by its name or folder; several are an ensemble.",
        default=(),
        word="teacher",
        form="PACK",
        kind=str,
        often=True,
    )
    augmentations: int = option("Number of augmentations of each image.", default=10, least=1, often=True)
    captions: int = option("Number of captions that are drawn of each sample.", default=3, least=1)
    within: float | None = option(
        "Largest distance of an augmentation's cosine with the captions from the sample's best, such as 0.05; others "
        "are dropped.",
        default=None,
        least=0,
    )
    split: str = option("Split that is reinforced.", default="train")
    seed: int = option("Seed of augmentations and captions.", default=0, least=0)


@verb(ReinforceOptions)
def reinforce(options: ReinforceOptions) -> ReinforceResult:
    """Store beside shards, once, what teachers say of them, so that students train at the cost of plain training.

    Of each sample augmentations that can be replayed are drawn, and captions; stored are these and the teachers'
    vectors of the changed images and of the captions. Images are not copied. `pretrain` with `data.reinforced` and
    `objective.losses.distill` reads them. The same call goes on after a kill, and ends in the same bytes.

    Returns:
        Counts, and how much room it takes.

    Raises:
        MedclipError: WRONG_USE for a teacher without a text tower, or of another modality, and for reinforced shards;
            NOT_SUPPORTED_YET for shards of volumes, ECGs or examinations; NOTHING_TO_DO where no sample has words;
            OUTPUT_IN_USE for a folder of another call.

    Example:
        >>> import medclip
        >>> medclip.pairs.reinforce("shards", "reinforced", teachers=["medclip-mini"])  # doctest: +SKIP
    """
    from medclip.errors import MedclipError, Reason
    from medclip.pairs.reinforcement import Reinforcing, reinforce

    named = options.teachers
    teachers = (named,) if isinstance(named, str | Path) else tuple(named)
    if not teachers:
        raise MedclipError(Reason.WRONG_USE, "there is no teacher.", hint="Name a pack: --teacher medclip-mini.")
    what = Reinforcing(
        str(options.shards),
        Path(options.out),
        tuple(map(str, teachers)),
        options.augmentations,
        options.captions,
        options.sentences,
        options.within,
        split=options.split,
        seed=options.seed,
    )
    return reinforce(what, options.device, options.progress)

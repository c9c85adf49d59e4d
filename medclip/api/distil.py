"""The verb `models distil`: a small student that answers as a pack does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from medclip.api.groups.asking import Pack, TeacherTexts
from medclip.api.groups.reading import Limits, NamedModality
from medclip.api.groups.running import Device, Machine, Overwriting, Recipe, Told, settings_of
from medclip.options import option, options
from medclip.verbs import verb

if TYPE_CHECKING:
    from medclip.pairs.distillation import Distilled


@options
class DistilOptions(Told, TeacherTexts, NamedModality, Limits, Recipe, Pack, Overwriting, Machine, Device):
    """What `models distil` is asked."""

    images: str | Path = option(
        "Folder of images of one modality, each of a patient of its own; a table with file, patient and modality; or "
        "shards. Learned from is the split train.",
        form="DIR|TABLE|SHARDS",
        often=True,
        place=True,
    )
    tower: str = option("Image tower of the student, by its name in timm or open_clip.", form="NAME", often=True)
    out: str | Path = option("Folder of the student's pack.", form="DIR", often=True, place=True)
    augmentations: int = option("Number of augmentations of each image.", default=4, least=1)
    epochs: int = option("Number of epochs.", default=20, least=1, often=True)
    size: int | None = option(
        "Side of the student's images in pixels. Default: that of the pack.", default=None, least=32, form="PX"
    )
    stages: str | Path | None = option(
        "Folder of the stages, with which the same call goes on after a stop. Default: OUT.work.",
        default=None,
        form="DIR",
        place=True,
    )
    seed: int = option("Seed of splits, augmentations and training.", default=0, least=0)


@verb(DistilOptions)
def distil(options: DistilOptions) -> Distilled:
    """Teach a small image tower to answer as a pack does, and measure how far the two agree.

    Images become shards, the pack is asked once of augmentations of each (`pairs reinforce`), and a student with the
    pack's own text tower, locked, is trained on what it said. Vectors of both can be compared. The same call goes on
    after a stop.

    Returns:
        The student: `.path`, `.agreement` with the pack on held-out images, and how much faster it is.

    Raises:
        MedclipError: WRONG_USE for a tower that is not there, for a pack without words or a card without tasks of the
            images where no texts are named, and for a folder of images of unknown modality; OUTPUT_IN_USE for the work
            folder of another call; what reading images raises.

    Reference: Vasu et al., MobileCLIP, CVPR 2024.

    Example:
        >>> import medclip
        >>> medclip.models.distil("medclip-mini", images="films", tower="fastvit_t8", out="nano")  # doctest: +SKIP
    """
    from medclip.pairs.distillation import Distilling, distil
    from medclip.runs.planning.options import parse_modality

    out = Path(options.out)
    what = Distilling(
        options.model if isinstance(options.model, str | Path) else options.model.path,
        options.images,
        options.tower,
        out,
        Path(options.stages) if options.stages is not None else out.with_name(f"{out.name}.work"),
        options.sentences,
        options.augmentations,
        options.epochs,
        options.size,
        options.seed,
        options.device,
        parse_modality(options.modality),
    )
    return distil(what, settings_of(options), options.progress, overwrite=options.overwrite)

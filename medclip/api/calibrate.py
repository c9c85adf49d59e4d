"""The verb `models calibrate`: what computes a pack's images on this processor."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.api.groups.asking import Pack, Questions
from medclip.api.groups.reading import Limits, NamedModality
from medclip.api.groups.running import Batches, Machine, Recipe, Told, settings_of
from medclip.options import option, options
from medclip.verbs import verb

if TYPE_CHECKING:
    from medclip.models.backends.backend_calibration import Calibration
    from medclip.scoring.calibrate_backend import NamedImage
    from medclip.settings import Settings


@options
class CalibrateOptions(Told, Limits, Recipe, Pack, Questions, NamedModality, Machine, Batches):
    """What `models calibrate` is asked."""

    images: Any = option(
        "Images like those that will be scored: a folder, or a table of them with `file`, perhaps `modality` and "
        "`patient`. In Python also a list of paths, or a data frame.",
        form="DIR|TABLE",
        kind=Path,
        place=True,
        present="folder or table",
    )
    out: str | Path | None = option(
        "Folder for calibration.json and the graph of the choice. Default: where --backend auto looks, in the "
        "settings' home.",
        default=None,
        often=True,
        place=True,
    )
    num_images: int = option(
        "Number of images that it is measured on, at most; evenly spaced ones are taken of more.", default=128, least=1
    )
    num_run_images: int = option(
        "Number of images of your runs. A back-end that each run has to compile first is chosen only where that time "
        "comes back within so many.",
        default=10_000,
        least=1,
    )
    max_seconds: float = option(
        "Seconds of processor time within which back-ends have to be ready; timing and judging what is left come "
        "on top. What is not expected to be ready by then is left out, and named; those of --candidate are tried all "
        "the same.",
        default=30.0,
        least=1,
    )
    candidate: str | Sequence[str] = option("Back-end to try. Default: all there are.", default=(), form="NAME")


@verb(CalibrateOptions)
def calibrate(options: CalibrateOptions) -> Calibration:
    """Choose the fastest back-end that leaves a pack's scores as they are, for --backend of score and embed.

    Every back-end computes the same few images; what breaks its bound there or is no faster goes no further, and the
    fastest of the others computes all of them. Probabilities of the pack's tasks are compared with those of torch in
    float32: floating point may change them by 0.001, int8 by 0.01 with every decision and rank as it was. What breaks
    its bound is not chosen, however fast. One half of the images chooses, and the other half judges the choice, with
    patients apart where the table or the headers name them. Without --out the calibration is kept where --backend auto
    looks for it.

    Returns:
        The calibration: `.choice`, `.pays_from` (number of images, None where it never pays), `.candidates` with what
        was measured of each, `.left_out` with what was not tried.

    Raises:
        MedclipError: WRONG_USE; MISSING_CODEC where no back-end that was named is installed; NOTHING_TO_DO where too
            few images can be read; what loading the pack raises.

    Example:
        >>> import medclip
        >>> medclip.models.calibrate("medclip-mini", images="films").choice  # doctest: +SKIP
        'onnx'
    """
    from dataclasses import replace

    from medclip.files.output import claim_folder
    from medclip.models.backends.backend_calibration import FILE_NAME, processor_s, write_calibration
    from medclip.models.backends.choice import calibration_home
    from medclip.models.backends.known import BACKENDS, find_backend
    from medclip.models.packs.manifest import pack_digest
    from medclip.models.packs.pack import find_pack, load_model
    from medclip.progress import Silent

    began = processor_s()  # what is imported below takes seconds
    from medclip.runs.planning.options import ScoreOptions, parse_modality
    from medclip.scoring.calibrate_backend import calibrate_backends, refuse_early, spread_out, with_batch
    from medclip.text.vocabulary.own_words import read_prompts

    settings = settings_of(options)
    names = (options.candidate,) if isinstance(options.candidate, str) else tuple(options.candidate)
    kinds = [find_backend(name) for name in names] or list(BACKENDS.values())
    asked = ScoreOptions(
        tasks=(options.task,) if isinstance(options.task, str) else tuple(options.task),
        prompts=read_prompts(options.prompt, options.against),
        modality=parse_modality(options.modality),
    )
    images = spread_out(_named(options.images, settings), options.num_images)
    refuse_early(len(images), kinds)
    pack = find_pack(options.model)
    folder = calibration_home(settings.home, pack_digest(pack)) if options.out is None else Path(options.out)
    claim_folder(folder, "calibration", marks=(FILE_NAME,), in_one_step=True)
    loaded = with_batch(load_model(pack), options.batch_size)
    calibration, graph = calibrate_backends(
        loaded,
        images,
        asked,
        kinds,
        settings,
        options.progress or Silent(),
        run_images=options.num_run_images,
        ends_s=None if names else began + options.max_seconds,
        began_s=began,
    )
    write_calibration(folder, calibration, graph)
    return replace(calibration, folder=folder)


def _named(images: Any, settings: Settings) -> list[NamedImage]:
    from medclip.errors import MedclipError, Reason
    from medclip.files.discover import walk
    from medclip.files.given_images import given_images
    from medclip.files.tables.manifest import file_named, read_manifest
    from medclip.scoring.calibrate_backend import NamedImage

    if not isinstance(images, (str, os.PathLike)):
        given = given_images(images)
        if not all(isinstance(image.image, Path) for image in given):
            raise MedclipError(Reason.WRONG_USE, "a calibration reads files; these images are arrays or were read.")
        return [NamedImage(image.image, image.modality) for image in given if isinstance(image.image, Path)]
    path = Path(images)
    if path.is_dir():
        refs = walk(path, follow_links=settings.follow_links)
        return [NamedImage(ref.path) for ref in refs if ref.problem is None]
    manifest = read_manifest(path)
    folder = manifest.folder or Path()
    return [NamedImage(file_named(folder / row.file), row.modality, row.patient) for row in manifest.rows]

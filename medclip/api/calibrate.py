"""Choose the back-end of a pack on this machine; as `medclip.models.calibrate` and `medclip models calibrate`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.errors import MedclipError, Reason
from medclip.files.discover import walk
from medclip.files.given_images import given_images
from medclip.models.backends.calibration import FILE_NAME, Calibration, write_calibration
from medclip.models.backends.choice import calibration_home
from medclip.models.backends.known import BACKENDS, find_backend
from medclip.models.devices import check_batch_size
from medclip.progress import Progress, Silent
from medclip.runs.planning.options import ScoreOptions, parse_modality
from medclip.settings import DEFAULT_MODEL, Settings
from medclip.text.vocabulary.own_words import Asked, read_prompts

if TYPE_CHECKING:
    from medclip.models.model import Model
    from medclip.scoring.calibration.calibrate import NamedImage

NUM_IMAGES = 128


def calibrate(
    model: str | Path | Model = DEFAULT_MODEL,
    *,
    images: Any,
    out: str | Path | None = None,
    task: str | Sequence[str] = (),
    prompt: Asked = (),
    modality: str | None = None,
    num_images: int = NUM_IMAGES,
    run_images: int = 10_000,
    backend: str | Sequence[str] = (),
    batch_size: int | None = None,
    workers: int | None = None,
    memory: int | str | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> Calibration:
    """Choose what computes a pack's images on this processor: the fastest back-end that leaves its scores as they are.

    Every back-end computes the same images. Probabilities of the pack's tasks are compared with those of torch in
    float32: floating point may change them by 0.001, int8 by 0.01 with every decision and rank as it was. What breaks
    its bound is not chosen, however fast. One half of the images chooses, and the other half judges the choice, with
    patients apart where the table or the headers name them.

    Args:
        model: Name or folder of a model pack, or a loaded model, which stands for its pack.
        images: A folder of images like those that will be scored; a table with `file`, perhaps `modality`, `patient`;
            or a list of paths, or a data frame.
        out: Folder for calibration.json and the graph of the choice. None puts them where `backend="auto"` looks: in
            the settings' home.
        task: Tasks whose answers are compared; those of the pack's card where neither tasks nor prompts are named.
        prompt: Questions in your own words, as `medclip.score` takes them.
        modality: Of images that neither the table nor their header names.
        num_images: Most images; evenly spaced ones are taken of more.
        run_images: Images that your runs have: a back-end that each run has to compile first is chosen only where that
            time comes back within so many.
        backend: Back-ends to try; all that there are where none is named.
        batch_size: Images in one forward pass; 4 where None. Score with the same.
        workers: Reading processes; the settings' where None.
        memory: What all processes may take together, such as "12GB".
        settings: Limits, and the home.
        progress: Told how far it is.

    Returns:
        The calibration: `.choice`, `.candidates` with what was measured of each, `.left_out` with what was not tried.

    Raises:
        MedclipError: WRONG_USE; NOTHING_TO_DO where too few images can be read; what loading the pack raises.

    Example:
        >>> import medclip
        >>> medclip.models.calibrate("medclip-mini", images="films").choice  # doctest: +SKIP
        'onnx'
    """
    check_batch_size(batch_size)
    settings = (settings or Settings()).on_machine(workers, memory)
    names = (backend,) if isinstance(backend, str) else tuple(backend)
    kinds = [find_backend(name) for name in names] or list(BACKENDS.values())
    options = ScoreOptions(
        tasks=(task,) if isinstance(task, str) else tuple(task),
        prompts=read_prompts(prompt, ()),
        modality=parse_modality(modality),
    )
    if num_images < 1:
        raise MedclipError(Reason.WRONG_USE, f"a calibration is measured on images, not on {num_images}.")
    if run_images < 1:
        raise MedclipError(Reason.WRONG_USE, f"a run has 1 image or more, not {run_images}.")
    named = _named(images, settings)
    from medclip.models.packs.manifest import pack_digest
    from medclip.models.packs.pack import find_pack, load_model
    from medclip.scoring.calibration.calibrate import calibrate_backends, spread_out, with_batch

    pack = find_pack(model)
    folder = calibration_home(settings.home, pack_digest(pack)) if out is None else Path(out)
    _claim(folder)
    loaded = with_batch(load_model(pack), batch_size)
    calibration, graph = calibrate_backends(
        loaded, spread_out(named, num_images), options, kinds, settings, progress or Silent(), run_images=run_images
    )
    write_calibration(folder, calibration, graph)
    return replace(calibration, folder=folder)


def _named(images: Any, settings: Settings) -> list[NamedImage]:
    from medclip.files.tables.manifest import file_named, read_manifest
    from medclip.scoring.calibration.calibrate import NamedImage

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


def _claim(folder: Path) -> None:
    from medclip.files.output import claim_folder

    claim_folder(folder, "calibration", marks=(FILE_NAME,), in_one_step=True)

"""Images of any form in, one vector each out: files and arrays through the adapters and processes that scoring has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Problem, Reason, did_you_mean
from medclip.files.given_images import GivenImage, Study, given_images, write_array
from medclip.files.grouping.studies import parse_modality
from medclip.files.temporary_folder import TemporaryFolder
from medclip.models.encoding.unit_reader import UnitReader, encode_units
from medclip.models.inputs.read_pixels import pixels_of
from medclip.models.prototypes.class_vectors import mean_vector
from medclip.progress import Progress, Silent
from medclip.sample import Modality
from medclip.settings import Settings
from medclip.wording import by_reason, count

if TYPE_CHECKING:
    from medclip.models.inputs.preprocess import Images

OnError = Literal["raise", "nan"]


@dataclass(frozen=True)
class _File:
    path: Path
    modality: Modality | None


def embed_images(
    model: Any,
    images: Any,
    *,
    modality: Modality | str | None = None,
    errors: OnError = "raise",
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Embed images with a loaded model, as its method `embed_images` says."""
    if errors not in get_args(OnError):
        choices = get_args(OnError)
        raise MedclipError(Reason.WRONG_USE, f"errors is {errors!r}.", hint=did_you_mean(errors, choices, "It takes"))
    inputs = given_images(images)
    otherwise = _otherwise(model, modality)
    for given in inputs:
        if isinstance(given.image, np.ndarray) and otherwise is None:
            raise MedclipError(
                Reason.WRONG_USE,
                "an array does not say of which modality it is, and the model knows several.",
                where=given.name,
                hint="Name it, such as modality='xray'.",
            )
    progress = progress or Silent()
    progress.stage("Embedding images", len(inputs))
    rows_ND = np.full((len(inputs), model.dim), np.nan, np.float32)
    reasons: Counter[str] = Counter()
    with UnitReader(model, settings or Settings()) as reader:
        for start in range(0, len(inputs), reader.at_once):
            part = inputs[start : start + reader.at_once]
            for number, features_VD in _features(model, reader, part, otherwise, progress):
                given = part[number]
                if not isinstance(features_VD, Problem):
                    rows_ND[start + number] = mean_vector(features_VD)
                elif errors == "raise":
                    raise features_VD.error(given.name)
                else:
                    reasons[str(features_VD.reason)] += 1
    if reasons:
        progress.note(f"{count(reasons.total(), 'image')} could not be read, and have no vector: {by_reason(reasons)}.")
    return rows_ND


def _features(
    model: Any, reader: UnitReader, inputs: Sequence[GivenImage], otherwise: Modality | None, progress: Progress
) -> Iterator[tuple[int, NDArray[np.float32] | Problem]]:
    """Yield the place of each input and the features of its views, or why there are none."""
    pixels: list[tuple[int, Images]] = []
    files: dict[int, _File] = {}
    with TemporaryFolder("arrays") as folder:
        for n, given in enumerate(inputs):
            image = given.image
            if isinstance(image, np.ndarray):
                image = write_array(image, Path(folder, f"{n}.tif"))
            if isinstance(image, Path):
                files[n] = _File(image, given.modality)
            else:
                try:
                    parts = image.samples() if isinstance(image, Study) else (image,)
                    pixels += [(n, part) for part in [pixels_of(part, model.preprocess) for part in parts]]
                except MedclipError as error:
                    yield n, error.problem()
        encoded = zip(pixels, encode_units(model, [part for _, part in pixels]), strict=True)
        for n, parts in groupby(encoded, key=lambda entry: entry[0][0]):  # a study may have several
            yield n, np.concatenate([features_VD for _, features_VD in parts])
        progress.step(len(inputs) - len(files))
        read = reader.read(list(files.values()), progress.step, keep_pixels=False, otherwise=otherwise)
        for n, unit in zip(files, read, strict=True):
            yield n, unit.features if unit.problem is None else unit.problem


def _otherwise(model: Any, modality: Modality | str | None) -> Modality | None:
    """Return the modality of what states none: the one that was named, else the model's only one."""
    modalities = model.card.modalities
    named = modality or (modalities[0] if len(modalities) == 1 else None)
    return None if named is None else parse_modality(named, or_unknown=True)

"""The sets with masks of a suite, one after the other: what is kept in a folder is not measured again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medclip.adaptation.maps.decoders import VERSION
from medclip.adaptation.maps.feature_maps import check_grid
from medclip.errors import MedclipError
from medclip.evaluation.dense.figures import TITLES, DenseFigures
from medclip.evaluation.dense.masked_set import MaskedSet
from medclip.evaluation.dense.measure import Towers, measure_masks
from medclip.evaluation.dense.towers import IMAGENET, OTHER, PACK, same_tower
from medclip.files.output import digest_of
from medclip.files.temporary_folder import TemporaryFolder
from medclip.models.packs.card import training_hashes
from medclip.progress import Progress
from medclip.settings import Settings

if TYPE_CHECKING:
    from medclip.evaluation.zero_shot.suite_result import SuiteStore
    from medclip.models.model import Model


@dataclass(frozen=True)
class Probing:
    """How heads are learned and measured."""

    num_resamples: int
    device: str
    settings: Settings
    progress: Progress
    base: Path
    """Folder that files are named below in fingerprints."""


def probe_sets(
    model: Model,
    other: tuple[Model, str] | None,
    sets: Sequence[MaskedSet],
    probing: Probing,
    store: SuiteStore | None,
) -> tuple[list[DenseFigures], list[tuple[MaskedSet, MedclipError]], list[str]]:
    """Measure sets with masks on a pack, on its architecture with other weights, and perhaps on another pack.

    Args:
        model: The pack.
        other: Pack to compare with and the digest of its manifest; None for none.
        sets: Sets that are there.
        probing: Resamples, settings and progress.
        store: Folder of results; None where nothing is kept.

    Returns:
        Figures of the sets; those that could not be measured, with why; and what has to be said of all.

    Raises:
        MedclipError: NOT_SUPPORTED_YET for a pack whose images have no grid of places; that of the first set where none
            could be measured.
    """
    check_grid(model)
    if other is not None:
        check_grid(other[0])
    weights = TemporaryFolder("weights")  # goes when this function ends
    beside, notes = same_tower(model, weights.path)
    models = {PACK: model, **beside} if other is None else {PACK: model, OTHER: other[0], **beside}
    titles = {**TITLES, PACK: f"{model.name} {model.card.version}"}
    if other is not None:
        again = other[0].name == model.name and other[0].card.version == model.card.version
        titles[OTHER] = f"{other[0].name} {other[0].card.version}" + (f" ({other[1][:7]})" if again else "")
    towers = Towers(models, titles, training_hashes(model.path, model.card))
    figures: list[DenseFigures] = []
    failed: list[tuple[MaskedSet, MedclipError]] = []
    for masked in sets:
        values = [VERSION, masked.digest(probing.base), masked.part.model_dump(mode="json"), probing.num_resamples]
        values += [probing.device, model.batch_size, probing.settings.policy.changes(), IMAGENET in models]
        fingerprint = digest_of([*values, None if other is None else other[1]])
        kept = None if store is None else store.kept_dense(masked.part.id, fingerprint)
        if kept is not None:
            figures.append(kept)
            continue
        try:
            measured, table, drawn = measure_masks(
                towers,
                masked,
                num_resamples=probing.num_resamples,
                settings=probing.settings,
                progress=probing.progress,
            )
        except MedclipError as error:
            failed.append((masked, error))
            continue
        if store is not None:
            store.keep_dense(masked.part.id, fingerprint, measured, table, drawn)
        figures.append(measured)
    if failed and not figures:
        raise failed[0][1]
    return figures, failed, notes

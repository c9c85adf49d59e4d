"""Evidence: what a check may look at of an audited model; images and vectors are read when a check first asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medclip.auditing.checks.leakage.file_hashes import (
    HashedFiles,
    collected,
    flags_of_files,
    flags_of_headers,
    hash_files,
)
from medclip.auditing.groups.measure import Measured
from medclip.auditing.input.groups import CROSS
from medclip.auditing.input.options import ReadOptions
from medclip.auditing.input.score_table import ScoreSource
from medclip.auditing.options import ImageChecks, MeasureOptions
from medclip.embeddings.embeddings_reader import EmbeddingsReader, needs_images, open_for
from medclip.embeddings.open_embeddings import is_embeddings
from medclip.errors import MedclipError, Reason
from medclip.files.tables.table import Table, is_blank
from medclip.imaging.perceptual_hash import from_bytes, look_of_views
from medclip.models.packs.pack import find_pack
from medclip.progress import Progress
from medclip.sample import Modality
from medclip.settings import Settings
from medclip.statistics.cohort import Attribute, Cohort

if TYPE_CHECKING:
    from medclip.embeddings.open_embeddings import Embeddings
    from medclip.models.model import Model


@dataclass(frozen=True, eq=False)
class Evidence:
    """One audited model, its tables and its images."""

    measured: Measured
    """Cohort, thresholds, resamples of patients, which cells may be shown, and how counts are rounded."""
    is_first: bool
    """Whether it is the audited model itself, and none that it is compared with."""
    source: ScoreSource
    labels: Table | None
    """The label table; None where it is the table of scores."""
    label: Sequence[str] | None
    """Labels that are audited, as the user named them; None for all."""
    choosing: Cohort | None
    """Cohort that thresholds were chosen on; None where they were not chosen from data."""
    reading: ReadOptions
    options: MeasureOptions
    pack: Model | None
    stored: Embeddings | None
    """What `medclip embed` wrote, which stands for the images."""
    settings: Settings
    progress: Progress

    @property
    def cohort(self) -> Cohort:
        """The audit set."""
        return self.measured.cohort

    @property
    def label_table(self) -> Table:
        """The table of truths, audited rows and others."""
        return self.source.table if self.labels is None else self.labels

    @property
    def single_attributes(self) -> list[Attribute]:
        """Attributes that are no intersections of others."""
        return [a for a in self.cohort.attributes if CROSS not in a.name]

    @property
    def modality(self) -> Modality:
        """Modality of the images."""
        return modality_of(self.options.image_checks, self.pack)

    @property
    def files(self) -> HashedFiles | None:
        """Hashes of each row's file; None where they cannot be had."""
        return self._images[0]

    @property
    def vectors_ND(self) -> NDArray[np.float32] | None:
        """Unit vector of each row, NaN where there is none; None where there are no embeddings."""
        return self._images[1]

    @property
    def image_notes(self) -> tuple[str, ...]:
        """Sentences on images that could not be read and vectors that lack."""
        return self._images[2]

    @cached_property
    def _images(self) -> tuple[HashedFiles | None, NDArray[np.float32] | None, tuple[str, ...]]:
        from medclip.auditing.checks.embeddings.vectors import embed_images, read_embeddings

        cohort, wanted, model, settings = self.cohort, self.options.image_checks, self.pack, self.settings
        written, headers = cohort.columns.get("sha256"), cohort.columns.get("headers")
        files = None
        if written is not None:
            flags = () if headers is None else flags_of_headers(headers.tolist())
            files = HashedFiles(tuple("" if is_blank(str(x)) else str(x) for x in written), burned_in=flags)
        if wanted.embeddings is not None:
            read = read_embeddings(wanted.embeddings, cohort.keys)
            return files, read.vectors_ND, read.notes
        if wanted.images is None:
            return files, None, ()
        if not cohort.files:
            raise MedclipError(
                Reason.WRONG_USE,
                "the label table names no files, so that no images can be read.",
                hint="Give it a column `file`, or leave out the folder of images.",
            )
        paths = [wanted.images / name if name else None for name in cohort.files]
        self.progress.stage("Reading images", len(set(paths)))
        if model is None:
            return hash_files(paths, self.modality, settings, step=self.progress.step), None, ()
        also = look_of_views if model.preprocess.shows_all else None  # the part that is shown is not known again
        embedded = embed_images(
            model, paths, self.modality, settings, also=also, step=self.progress.step, stored=self.stored
        )
        if self.stored is not None:
            reader = EmbeddingsReader(self.stored, self.stored.folder)
            looks = [from_bytes(look) if look else None for look in reader.facts(paths, "look")]
            files = collected(embedded.hashes, looks, flags_of_headers(reader.facts(paths, "headers")))
        elif also is None:
            files = hash_files(paths, self.modality, model.preprocess.reading(settings))
        else:
            files = collected(embedded.hashes, embedded.also, flags_of_files(paths, settings))
        return files, embedded.vectors_ND, embedded.notes


def open_stored(options: MeasureOptions, settings: Settings) -> Embeddings | None:
    """Open the folder of images where it is one of embeddings, after what needs images themselves is refused.

    Returns:
        None for a folder of images, and where there is none.

    Raises:
        MedclipError: WRONG_USE; what `open_for` raises.
    """
    wanted = options.image_checks
    if wanted.images is None or wanted.model is None or not is_embeddings(wanted.images):
        return None
    if wanted.show_images:
        raise needs_images("the page is to show images of errors")
    if options.stress is not None:
        raise needs_images("the stress test shows the model other images")
    return open_for(wanted.images, find_pack(wanted.model), settings, wanted.key_file)


def modality_of(wanted: ImageChecks, model: Model | None) -> Modality:
    """Return the modality of the images: the one that was named, else the pack's only one.

    Raises:
        MedclipError: WRONG_USE where neither says which.
    """
    from medclip.files.grouping.studies import parse_modality

    if wanted.modality is not None:
        return parse_modality(wanted.modality)
    modalities = model.card.modalities if model is not None else ()
    if len(modalities) != 1:
        raise MedclipError(
            Reason.WRONG_USE,
            "which modality the images are of is not known.",
            hint="Name it, such as --modality xray.",
        )
    return parse_modality(modalities[0])

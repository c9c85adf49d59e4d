"""One training sample: read, decoded, captioned, augmented; chance is a function of (seed, purpose, epoch, index)."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.imaging.volume.voxels import Voxels
from medclip.models.preprocess import Preprocess
from medclip.objectives.keys import key_of
from medclip.sample import Modality
from medclip.shards.reading.foreign import FOREIGN, is_empty_record
from medclip.shards.stored_image import DRAFT_GAP
from medclip.text.captions.draw import draw_caption
from medclip.text.captions.record import CaptionRecord
from medclip.text.free_text.sentences import Native
from medclip.text.tokenizers.tokenizer import Tokenizer
from medclip.training.batches.augment import Change, apply_change, draw_change, largest_px, names_a_side
from medclip.training.batches.augment_clips import draw_clip_change, make_clip
from medclip.training.batches.order import ORDER
from medclip.training.batches.slots import Arrays
from medclip.training.recipe.sections.augment import Augment
from medclip.training.recipe.sections.data import Decode

if TYPE_CHECKING:
    from PIL import Image

    from medclip.shards.reading.samples import ShardReader

CAPTION, AUGMENT, VALIDATION = 0, 1, 3  # one stream of chance per purpose; the fourth is that of the order
assert ORDER not in (CAPTION, AUGMENT, VALIDATION)
_RECORD_BYTES = 2000
"""What a record is counted as in the cache; a report comes on top."""


@dataclass(frozen=True)
class Drawing:
    """How samples are made; small, so that it travels to other processes."""

    preprocess: Preprocess
    """How the model takes images; the adapters were done with them when the shards were built."""
    seed: int
    augment: Augment | None
    """None for validation: images as the model is used with, captions that stay the same."""
    native_share: float
    report_share: float
    report_words: int = 60
    native: Native = "sentences"
    """How texts and reports are quoted; those of foreign sets always whole, and always before anything else."""
    decode: Decode = "auto"
    """How much of a JPEG is decoded."""
    words: bool = True
    """False where no caption is read: none is drawn, and a sample without one is as good as any."""

    @property
    def wanted_px(self) -> int:
        """Longest side that is needed of a stored image: with a token budget that of an image four times as long as
        wide, so that longer ones still have more pixels than are drawn (`DRAFT_GAP`); where the shorter side counts
        that of one twice as long as wide.
        """
        pixels, budget = self.preprocess, self.preprocess.budget
        if budget is not None:
            size = 2 * math.isqrt(budget.max_tokens) * budget.patch_px
        else:
            size = (pixels.resize_px or pixels.size_px) * (2 if pixels.resize == "shortest" else 1)
        return size if self.augment is None else largest_px(self.augment, size)

    @property
    def scale(self) -> tuple[int | None, float]:
        """Arguments of `medclip.shards.stored_image.decode`. Validation has the pixels that a model is used with."""
        if self.decode == "full":
            return None, DRAFT_GAP
        return self.wanted_px, 1.0 if self.decode == "scaled" and self.augment is not None else DRAFT_GAP

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of what `draw` returns."""
        side, budget, volume = self.preprocess.size_px, self.preprocess.budget, self.preprocess.volume
        if volume is not None:
            return volume.num_frames, side, side, volume.channels
        return (side, side, 3) if budget is None else budget.packed_shape

    def clip(self, stored: Voxels, rng: np.random.Generator, may_flip: bool) -> NDArray[np.uint8]:
        """Make what a model of volumes takes of a stored one.

        Raises:
            MedclipError: It is none that the model takes.
        """
        taken = self.preprocess.volume
        assert taken is not None
        change = None if self.augment is None else draw_clip_change(self.augment, rng, may_flip=may_flip)
        return make_clip(stored, change, taken, self.preprocess.size_px)

    def draw(self, stored: Image.Image, change: Change | None) -> NDArray[np.uint8]:
        """Make what the model takes of a stored image: a square, or what `TokenBudget.pack` returns."""
        pixels, budget = self.preprocess, self.preprocess.budget
        if change is None:
            image = pixels.fit(np.atleast_3d(np.asarray(stored)))
        elif budget is not None:
            image = apply_change(stored, change, budget.size_px(stored.height, stored.width))
        else:
            image = apply_change(stored, change, pixels.size_px, pixels.extent(stored.height, stored.width))
        return image if budget is None else budget.pack(image)


Strings = tuple[str, str, str, str, str]
"""Caption, label key, study, key in the shard and fault of a row."""


@dataclass(frozen=True, eq=False)
class Made:
    """One row of a batch."""

    image: NDArray[np.uint8] | None
    """uint8 [S, S, 3], packed patches, or a clip (`Drawing.image_shape`); None for a bad sample."""
    tokens: NDArray[np.int32]
    """int32 [L]."""
    text: str = ""
    label_key: str = ""
    study: str = ""
    key: str = ""
    bad: str = ""
    """Why the sample is bad, "" for a good one."""

    def write(self, arrays: Arrays, place: int) -> Strings:
        """Write image, tokens and keys to their place in a batch; returns the rest.

        Keys are those of label set, caption (in whatever case) and study, as the columns of `Batch.pair_keys`.
        """
        arrays.images[place] = 0 if self.image is None else self.image
        arrays.tokens[place] = self.tokens
        arrays.pair_keys[place] = key_of(self.label_key), key_of(self.text.strip().lower()), key_of(self.study)
        return self.text, self.label_key, self.study, self.key, self.bad


@dataclass(frozen=True, eq=False)
class _Stored:
    stored: NDArray[np.uint8] | Voxels
    """H x W, or H x W x 3; or a volume."""
    record: CaptionRecord
    meta: Mapping[str, Any]


class Room:
    """Bytes that caches may still fill. Safe in threads."""

    def __init__(self, num_bytes: int) -> None:
        self._left = num_bytes
        self._lock = threading.Lock()

    def take(self, num_bytes: int) -> bool:
        """Take some, where so many are left."""
        with self._lock:
            if num_bytes > self._left:
                return False
            self._left -= num_bytes
            return True


class Samples:
    """Makes samples by number; safe in threads.

    Args:
        reader: The split.
        drawing: How samples are made.
        room: What decoded images may take in memory. The first that fit stay: an epoch reads each sample once, so that
            throwing the oldest out would keep none that is wanted again soon.
        tokenizer: Cuts the captions into tokens.
    """

    def __init__(self, reader: ShardReader, drawing: Drawing, room: Room, tokenizer: Tokenizer | None = None) -> None:
        self.reader, self.drawing, self._tokenizer = reader, drawing, tokenizer
        self._cache: dict[int, _Stored] = {}
        self._room = room

    def make(self, epoch: int, index: int, repeat: int = 0) -> Made:
        """Make one sample.

        Args:
            epoch: Number of the epoch.
            index: Number of the sample in the split.
            repeat: How often the sample stood before in this epoch; another one is drawn for each.

        Returns:
            The sample; a bad one where its bytes, its image or its caption are of no use.

        Raises:
            MedclipError: Its shard is gone or not what the index says; its labels name an unknown task.
        """
        d = self.drawing
        try:
            stored, record, meta = self._read(index)
        except _BadSample as e:
            return self.bad(index, e.reason)
        again = (repeat,) if repeat else ()
        text = self._caption(record, meta, (epoch, index, *again)) if d.words else ""
        if d.words and not text:
            return self.bad(index, Reason.EMPTY_CAPTION)
        rng = np.random.default_rng((d.seed, AUGMENT, epoch, index, *again))
        # A mirrored ECG runs backwards in time.
        may_flip = record.laterality is None and record.modality is not Modality.ECG and not names_a_side(text)
        try:
            image = (
                d.clip(stored, rng, may_flip)
                if isinstance(stored, Voxels)
                else self._image(stored, record, rng, may_flip)
            )
        except MedclipError as e:
            return self.bad(index, e.reason)
        study = str(meta.get("study", ""))
        return Made(image, self._tokens(text), text, label_key(record), study, self.reader.key(index))

    def _image(
        self, stored: Image.Image, record: CaptionRecord, rng: np.random.Generator, may_flip: bool
    ) -> NDArray[np.uint8]:
        d, change = self.drawing, None
        if d.augment is not None:
            may_tint = record.modality is not Modality.PATHOLOGY or d.augment.stain_jitter
            change = draw_change(d.augment, rng, may_flip=may_flip, may_tint=may_tint)
        return d.draw(stored, change)

    def _caption(self, record: CaptionRecord, meta: Mapping[str, Any], which: tuple[int, ...]) -> str:
        """Draw a caption; "" where the record says nothing."""
        d = self.drawing
        rng = np.random.default_rng((d.seed, VALIDATION if d.augment is None else CAPTION, *which))
        foreign = meta.get("adapter") == FOREIGN
        text = draw_caption(
            record,
            rng,
            native_share=1.0 if foreign else d.native_share,
            report_share=1.0 if foreign else d.report_share,
            report_words=d.report_words,
            native="whole" if foreign else d.native,
        )
        return "" if not text.strip() or (foreign and is_empty_record(record)) else text

    def bad(self, index: int, reason: str) -> Made:
        """Return a sample that is of no use."""
        return Made(None, self._tokens(""), key=self.reader.key(index), bad=reason)

    def _tokens(self, text: str) -> NDArray[np.int32]:
        if self._tokenizer is None:
            return np.zeros(0, np.int32)
        return self._tokenizer.encode([text])[0].astype(np.int32)

    def _read(self, index: int) -> tuple[Image.Image | Voxels, CaptionRecord, Mapping[str, Any]]:
        from PIL import Image

        kept = self._cache.get(index)
        if kept is not None:
            stored = kept.stored if isinstance(kept.stored, Voxels) else Image.fromarray(kept.stored)
            return stored, kept.record, kept.meta
        raw = self.reader.raw(index)  # what goes wrong here is the shard's fault: it ends the run
        try:
            parts = self.reader.unpack(index, raw)
            record, meta = self.reader.understand(index, parts)
            if self.drawing.preprocess.volume is not None:
                stored = self.reader.voxels(parts)
            else:
                stored = self.reader.image(parts, *self.drawing.scale)
        except MedclipError as e:
            raise _BadSample(str(e.reason)) from e
        self._keep(index, stored, record, meta)
        return stored, record, meta

    def _keep(self, index: int, stored: Image.Image | Voxels, record: CaptionRecord, meta: Mapping[str, Any]) -> None:
        is_volume = isinstance(stored, Voxels)
        pixels = stored.values.nbytes if is_volume else stored.width * stored.height * len(stored.getbands())
        if index not in self._cache and self._room.take(pixels + _RECORD_BYTES + 2 * len(record.report or "")):
            self._cache[index] = _Stored(stored if is_volume else np.asarray(stored), record, meta)


class _BadSample(Exception):
    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def label_key(record: CaptionRecord) -> str:
    """Return a text that is equal for records which the same statements are true of.

    It is empty where only a text of its own is known of an image: what it says is not what the texts of others say.
    """
    if not (record.generic or record.labels) and (record.texts or record.report):
        return ""
    view = None if record.generic else record.view
    labels: Mapping[str, Any] = {} if record.generic else record.labels
    return json.dumps([record.generic, record.modality, view, labels], sort_keys=True)

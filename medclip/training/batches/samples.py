"""One training sample: read, decoded, captioned, augmented; chance is a function of (seed, purpose, epoch, index)."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.imaging.ecg.recording import Recording
from medclip.imaging.volume.voxels import Voxels
from medclip.models.inputs.preprocess import Preprocess
from medclip.objectives.keys import NO_KEY, key_of
from medclip.sample import SIDES, Modality
from medclip.shards.reading.foreign import FOREIGN, is_empty_record
from medclip.shards.sample_json import VIEW_KIND, SampleView
from medclip.shards.stored_data import DRAFT_GAP
from medclip.text.captions.candidates import SYNTHETIC, WeighedCaption, draw_candidate
from medclip.text.captions.draw import draw_stated
from medclip.text.captions.false_captions import draw_false
from medclip.text.captions.record import CaptionRecord, Region
from medclip.text.free_text import Native
from medclip.text.tokenizers.tokenizer import Tokenizer
from medclip.training.batches.augment import (
    Change,
    apply_change,
    change_of_plain,
    draw_change,
    draw_clip_change,
    largest_px,
    make_clip,
    names_a_side,
)
from medclip.training.batches.augment_signals import apply_signal_change, draw_signal_change, prepare_record
from medclip.training.batches.mobileclip_replay import StoredChange, change_of_params, replay
from medclip.training.batches.order import ORDER
from medclip.training.batches.regions import keeping, place_regions
from medclip.training.batches.sample_texts import (
    ALL_SIDES,
    ROLES,
    DrawnRole,
    Subject,
    kin_of,
    label_key,
    subjects_of,
    types_of,
)
from medclip.training.batches.slots import Arrays
from medclip.training.recipe.augment import Augment, SignalAugment
from medclip.training.recipe.data import Candidates, Decode

if TYPE_CHECKING:
    from PIL import Image

    from medclip.shards.reading.reinforced import ReinforcedShards
    from medclip.shards.reading.samples import ShardReader

    _Read = Image.Image | Voxels | NDArray[np.int16]
    """An image, a volume or loop, or an ECG as its model takes it."""

CAPTION, AUGMENT, VALIDATION, ROLE, STORED = 0, 1, 3, 4, 5  # one stream of chance per purpose, and one of the order
assert ORDER not in (CAPTION, AUGMENT, VALIDATION, ROLE, STORED)
_RECENT = 16
"""Decoded samples that are kept beyond the cache, where they stand side by side in a batch."""
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
    num_views: int = 1
    """Images of a sample, V: its image changed anew each time, or the views of its examination."""
    num_texts: int = 1
    """Captions of a sample, T."""
    of_exam: bool = False
    """The views are those of a sample, V at most; a sample of one image is an examination of one view."""
    roles: tuple[DrawnRole, ...] = ()
    """Texts that are drawn of a sample beside its captions; of an examination, of what is known of the whole."""
    false_of_labels: bool = False
    """Hard negatives are drawn from labels beside each caption that states them, in the place of stored ones."""
    keeps_recent: bool = False
    """Samples stand side by side in a batch: each is decoded once for all of its places."""
    candidates: Candidates | None = None
    """How one of the weighed captions of a sample is drawn; None draws from none."""
    reinforced: ReinforcedShards | None = None
    """Stored changes, captions and vectors, of which one each is drawn; None draws changes and captions anew."""

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
        """Arguments of `medclip.shards.stored_data.decode`. Validation has the pixels that a model is used with."""
        if self.decode == "full" or (self.reinforced is not None and self.reinforced.is_foreign):
            return None, DRAFT_GAP
        return self.wanted_px, 1.0 if self.decode == "scaled" and self.augment is not None else DRAFT_GAP

    def clip(self, stored: Voxels, rng: np.random.Generator, may_flip: bool) -> NDArray[np.uint8]:
        """Make what a model of volumes takes of a stored one.

        Raises:
            MedclipError: It is none that the model takes.
        """
        taken = self.preprocess.volume
        assert taken is not None
        change = None if self.augment is None else draw_clip_change(self.augment, rng, may_flip=may_flip)
        return make_clip(stored, change, taken, self.preprocess.size_px)

    def record(self, recording: Recording) -> NDArray[np.int16]:
        """Make of a stored ECG what its model is shown, with room for shifts where it is augmented."""
        taken, settings = self.preprocess.signal, self.of_signals
        assert taken is not None
        return prepare_record(recording, taken, 0.0 if settings is None else settings.shift)

    def signal(self, record: NDArray[np.int16], rng: np.random.Generator) -> NDArray[np.int16]:
        """Make what a model of ECGs takes of what `record` returned."""
        taken, settings = self.preprocess.signal, self.of_signals
        assert taken is not None
        if settings is None:
            return record
        return apply_signal_change(record, draw_signal_change(settings, rng), taken.num_samples, taken.sampling_hz)

    @property
    def of_signals(self) -> SignalAugment | None:
        """What is done to ECGs; None for validation."""
        return None if self.augment is None else self.augment.signal or SignalAugment()

    def change(self, record: CaptionRecord, rng: np.random.Generator, may_flip: bool) -> Change | None:
        """Draw what is done to an image; None for validation."""
        if self.augment is None:
            return None
        may_tint = record.modality is not Modality.PATHOLOGY or self.augment.stain_jitter
        return draw_change(self.augment, rng, may_flip=may_flip, may_tint=may_tint)

    def caption(
        self, record: CaptionRecord, meta: Mapping[str, Any], rng: np.random.Generator, *, quoted: bool = False
    ) -> Caption:
        """Draw a caption; a blank one where the record says nothing."""
        if self.candidates is not None and not record.generic:
            shares = self.candidates
            candidate = draw_candidate(record.candidates, rng, p_raw=shares.p_raw, p_syn=shares.p_syn)
            if candidate is not None:
                return Caption(candidate.text, is_stated=False, is_raw=candidate.is_raw)
        foreign = meta.get("adapter") == FOREIGN
        text, is_stated = draw_stated(
            record,
            rng,
            native_share=1.0 if foreign or quoted else self.native_share,
            report_share=1.0 if foreign else self.report_share,
            report_words=self.report_words,
            native="whole" if foreign else self.native,
        )
        return Caption("" if not text.strip() or (foreign and is_empty_record(record)) else text, is_stated)

    def keep_regions(
        self, regions: Sequence[Region], change: Change, stored: Image.Image, *, may_change: bool
    ) -> tuple[Change, tuple[Region, ...]]:
        """Return a change that cuts no region off, and where it puts them; a stored change stays as it is."""
        budget, own = self.preprocess.budget, (stored.height, stored.width)
        extent = self.preprocess.extent(*own) if budget is None else own
        change = keeping(change, regions, stored.size, extent) if may_change else change
        return change, place_regions(regions, change, stored.size, extent)

    def draw(self, stored: Image.Image, change: Change | StoredChange | None) -> NDArray[np.uint8]:
        """Make what the model takes of a stored image: a square, or what `TokenBudget.pack` returns."""
        pixels, budget = self.preprocess, self.preprocess.budget
        if change is None:
            image = pixels.fit(np.atleast_3d(np.asarray(stored)))
        elif isinstance(change, StoredChange):
            return replay(stored, change, pixels.size_px)
        elif budget is not None:
            image = apply_change(stored, change, budget.size_px(stored.height, stored.width))
        else:
            image = apply_change(stored, change, pixels.size_px, pixels.extent(stored.height, stored.width))
        return image if budget is None else budget.pack(image)


Strings = tuple[tuple[str, ...], str, str, str, str, tuple[tuple[str, ...], ...], bytes, tuple[Region, ...]]
"""Captions, label key, study, key in the shard, fault, the texts of each role, stored vectors and regions of a row."""
NOTHING: Strings = ((), "", "", "", "", (), b"", ())
_NEXT_VIEW = 1 << 20
"""Added to how often a sample stood before in its epoch, for each further view: no sample stands there so often."""


class Caption(NamedTuple):
    """A caption that was drawn."""

    text: str
    is_stated: bool = True
    """It states labels and metadata alone, and fits every sample that is labelled alike."""
    is_raw: bool = False
    """It is the raw text of a rewritten sample."""


@dataclass(frozen=True, eq=False)
class Made:
    """One row of a batch."""

    images: tuple[NDArray[Any], ...]
    """uint8 [S, S, 3], packed patches, a clip or an ECG (`Preprocess.image_shape`), of each view; none for a bad
    sample."""
    tokens: NDArray[np.int32]
    """int32 [T, L]."""
    texts: tuple[str, ...] = ("",)
    """T captions."""
    label_key: str = ""
    study: str = ""
    key: str = ""
    bad: str = ""
    """Why the sample is bad, "" for a good one."""
    kin: str = ""
    """Equal for samples that the same is true of; "" where nothing is known that could be equal."""
    types: tuple[tuple[int, int, int], ...] = ()
    """Of an examination: numbers of side, position and kind of each view."""
    text_parts: tuple[int, ...] = (-1,)
    """Number of the side that each caption is about, -1 for all that is shown."""
    kind: str = ""
    """Modality, and for mammograms that are no standard ones how they were made; "" where it is not known."""
    source: str = ""
    """Where it is from; "" where that is not known."""
    quoted: tuple[bool, ...] = (False,)
    """Whether each caption is quoted from the record's own texts."""
    role_texts: tuple[tuple[str, ...], ...] = ()
    """Texts of each drawn role, as `DrawnRole.draw` returns them."""
    role_tokens: NDArray[np.int32] | None = None
    """int32 [R, L]: of those that the text tower reads."""
    stored: bytes = b""
    """Vectors of teachers, bits of bfloat16: of the image, the caption and the synthetic one; zeros where none."""
    regions: tuple[Region, ...] = ()
    """Where what the texts name lies in the first image, as shares of it; none where that is not known."""

    @property
    def image(self) -> NDArray[Any] | None:
        """The first image; None for a bad sample."""
        return self.images[0] if self.images else None

    @property
    def text(self) -> str:
        """The first caption."""
        return self.texts[0]

    def write(self, arrays: Arrays, place: int) -> Strings:
        """Write image, tokens and keys to their place in a batch; returns the rest.

        Keys are those of label set, caption (in whatever case), study, kind, source, and of the label set where the
        caption says nothing else, as the columns of `Batch.pair_keys`.
        """
        num_views, num_texts = len(self.images), len(self.texts)
        for image, of_view in zip(self.images, arrays.images, strict=False):
            of_view[place] = image
        arrays.images[num_views:, place] = 0
        arrays.view_types[place] = -1
        if self.types:
            arrays.view_types[place, :num_views] = self.types
        arrays.tokens[:num_texts, place] = self.tokens
        arrays.text_parts[:num_texts, place] = self.text_parts
        if self.role_tokens is not None:
            arrays.role_tokens[:, place] = self.role_tokens
        kin, *others = (key_of(value) for value in (self.kin, self.study, self.kind, self.source))
        arrays.pair_keys[:num_texts, place] = [
            (kin, key_of(text.strip().lower()), *others, NO_KEY if is_quoted else kin)
            for text, is_quoted in zip(
                self.texts, self.quoted * (num_texts if len(self.quoted) == 1 else 1), strict=True
            )
        ]
        return self.texts, self.label_key, self.study, self.key, self.bad, self.role_texts, self.stored, self.regions


class _Stored(NamedTuple):
    """What was drawn of the stored changes, captions and vectors of a sample."""

    change: Change | StoredChange | None
    text: str
    """"" where nothing is stored of it: it is a sample without a caption."""
    synthetic: str
    vectors: bytes


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
        drawing: Settings of making samples.
        room: Room in memory for decoded images. The first that fit stay: an epoch reads each sample once, so that
            throwing the oldest out would keep none that is wanted again soon.
        tokenizer: Tokenizer that cuts the captions into tokens.
    """

    def __init__(self, reader: ShardReader, drawing: Drawing, room: Room, tokenizer: Tokenizer | None = None) -> None:
        self.reader, self.drawing, self._tokenizer = reader, drawing, tokenizer
        self._cache: dict[
            int,
            tuple[tuple[NDArray[Any] | Voxels, ...], CaptionRecord, Mapping[str, Any], tuple[SampleView, ...]],
        ] = {}  # as `_read` returns them, images as arrays
        self._room = room
        self._recent: OrderedDict[int, Any] = OrderedDict()
        self._locks = [threading.Lock() for _ in range(_RECENT)] if drawing.keeps_recent else []

    def make(self, epoch: int, index: int, repeat: int = 0) -> Made:
        """Make one sample.

        Args:
            epoch: Number of the epoch.
            index: Number of the sample in the split.
            repeat: Number of times the sample stood before in this epoch; another one is drawn for each.

        Returns:
            The sample; a bad one where its bytes, its image or its caption are of no use.

        Raises:
            MedclipError: Its shard is gone or not what the index says; its labels name an unknown task.
        """
        d = self.drawing
        try:
            several, record, meta, views = self._read(index)
        except _BadSample as e:
            return self.bad(index, e.reason)
        views = views[: d.num_views]
        views_stored = several[: d.num_views] if d.of_exam else several * d.num_views
        subjects = subjects_of(record, views, d.num_texts) if d.of_exam else [Subject(record)] * d.num_texts
        drawn = [(epoch, index, *_again(repeat, n)) for n in range(max(d.num_views, d.num_texts))]
        captions = [
            self._caption(subject, meta, which) if d.words else Caption("")
            for subject, which in zip(subjects, drawn, strict=False)
        ]
        stored = None if d.reinforced is None else self._stored(d.reinforced, index, drawn[0])
        if stored is not None:
            captions = [Caption(stored.text, is_stated=False)]
            record = replace(record, candidates=(WeighedCaption(SYNTHETIC, stored.synthetic, 1.0),))
        texts = tuple(caption.text for caption in captions)
        if d.words and not all(texts):
            return self.bad(index, Reason.EMPTY_CAPTION)
        types = types_of(record, views) if d.of_exam else ()
        is_raw = any(caption.is_raw for caption in captions)
        if d.false_of_labels:
            record = replace(record, negatives=self._false_of(subjects[0].record, captions[0], drawn[0]))
        role_texts = self._role_texts(record, (epoch, index, *_again(repeat, 0)), is_raw=is_raw)
        # The image of a mirrored ECG runs backwards in time. Each image is compared with every caption, and with what
        # is drawn beside it: a false text of the other side would be true of a mirrored image.
        may_flip = record.laterality is None and record.modality is not Modality.ECG
        may_flip &= not any(map(names_a_side, (*texts, *(text for of_role in role_texts for text in of_role))))
        may_flip &= not any(side < len(SIDES) for side, *_ in types)
        images, regions = [], ()
        try:
            for one, which in zip(views_stored, drawn, strict=False):
                rng = np.random.default_rng((d.seed, AUGMENT, *which))
                if isinstance(one, Voxels):
                    images.append(d.clip(one, rng, may_flip))
                elif isinstance(one, np.ndarray):
                    images.append(d.signal(one, rng))
                else:
                    change = stored.change if stored else d.change(record, rng, may_flip)
                    placed = ()
                    if record.regions and isinstance(change, Change) and not d.of_exam:
                        change, placed = d.keep_regions(record.regions, change, one, may_change=stored is None)
                    regions = regions or placed
                    images.append(d.draw(one, change))
        except MedclipError as e:
            return self.bad(index, e.reason)
        return Made(
            tuple(images),
            self._tokens(texts),
            texts,
            label_key(record),
            str(meta.get("study", "")) if not d.of_exam else str(meta.get("patient") or meta.get("study", "")),
            self.reader.key(index),
            kin=kin_of(record, views),
            types=types,
            text_parts=tuple(subject.side for subject in subjects),
            kind=" ".join(filter(None, (record.modality or "", meta.get(VIEW_KIND, "")))),
            source=str(meta.get("source") or ""),
            quoted=tuple(not caption.is_stated for caption in captions),
            role_texts=role_texts,
            role_tokens=self._role_tokens(role_texts),
            stored=stored.vectors if stored is not None else b"",
            regions=regions,
        )

    def _stored(self, of: ReinforcedShards, index: int, which: tuple[int, ...]) -> _Stored:
        """Draw one of the stored changes, captions and synthetic captions of a sample, with their vectors."""
        stored = of[index]
        rng = np.random.default_rng((self.drawing.seed, STORED, *which))
        a, k, s = (int(of_all * draw) for of_all, draw in zip(stored.sizes, rng.random(3), strict=True))
        if not stored.changes or not stored.texts:
            return _Stored(None, "", "", b"")
        rows_3E = np.zeros((3, stored.image_AE.shape[1]), np.uint16)
        rows_3E[0], rows_3E[1] = stored.image_AE[a], stored.text_KE[k]
        if stored.synthetic:
            rows_3E[2] = stored.text_KE[len(stored.texts) + s]
        synthetic = stored.synthetic[s] if stored.synthetic else ""
        values = stored.changes[a]
        change = change_of_params(values) if isinstance(values, list) else change_of_plain(values)
        return _Stored(change, stored.texts[k], synthetic, rows_3E.tobytes())

    def _caption(self, subject: Subject, meta: Mapping[str, Any], which: tuple[int, ...]) -> Caption:
        d = self.drawing
        rng = np.random.default_rng((d.seed, VALIDATION if d.augment is None else CAPTION, *which))
        return d.caption(subject.record, meta, rng, quoted=subject.quoted)

    def _false_of(self, record: CaptionRecord, caption: Caption, which: tuple[int, ...]) -> tuple[str, ...]:
        """Draw a false caption of labels in the form of a true one; none beside a caption that is quoted."""
        if not caption.is_stated or not caption.text:
            return ()
        seed, number = self.drawing.seed, list(ROLES).index("negative")
        again = np.random.default_rng((seed, CAPTION, *which))
        text = draw_false(record, caption.text, np.random.default_rng((seed, ROLE, number, *which)), again)
        return (text,) if text else ()

    def bad(self, index: int, reason: str) -> Made:
        """Return a sample that is of no use."""
        nothing = ("",) * self.drawing.num_texts
        none = ((),) * len(self.drawing.roles)
        return Made(
            (),
            self._tokens(nothing),
            nothing,
            key=self.reader.key(index),
            bad=reason,
            text_parts=(ALL_SIDES,) * len(nothing),
            role_texts=none,
            role_tokens=self._role_tokens(none),
        )

    def _role_texts(
        self, record: CaptionRecord, which: tuple[int, ...], *, is_raw: bool
    ) -> tuple[tuple[str, ...], ...]:
        """Draw the texts of each role. Beside a raw caption no false text is any: it differs by more than a change."""
        d = self.drawing
        record = replace(record, negatives=()) if is_raw else record
        numbers = {name: number for number, name in enumerate(ROLES)}
        return tuple(
            role.draw(record, np.random.default_rng((d.seed, ROLE, numbers[role.name], *which))) for role in d.roles
        )

    def _role_tokens(self, role_texts: Sequence[tuple[str, ...]]) -> NDArray[np.int32] | None:
        """Cut what the text tower reads into tokens; None where it reads nothing beside captions."""
        texts: list[str] = []
        for role, drawn in zip(self.drawing.roles, role_texts, strict=True):
            if ROLES[role.name].is_encoded:
                texts += drawn or [""] * role.num_texts
        return self._tokens(texts) if texts else None

    def _tokens(self, texts: Sequence[str]) -> NDArray[np.int32]:
        if self._tokenizer is None:
            return np.zeros((len(texts), 0), np.int32)
        return self._tokenizer.encode(texts).astype(np.int32)

    def _read(self, index: int) -> tuple[tuple[_Read, ...], CaptionRecord, Mapping[str, Any], tuple[SampleView, ...]]:
        if not self._locks:
            return self._read_alone(index)
        with self._locks[index % _RECENT]:  # who comes second waits for what the first decodes
            return self._read_alone(index)

    def _read_alone(
        self, index: int
    ) -> tuple[tuple[_Read, ...], CaptionRecord, Mapping[str, Any], tuple[SampleView, ...]]:
        from PIL import Image

        kept = self._cache.get(index) or self._recent.get(index)
        if kept is not None:
            arrays, record, meta, views = kept
            is_image = self.drawing.preprocess.takes == "images"
            again = tuple(Image.fromarray(one) if is_image else one for one in arrays)  # type: ignore[arg-type]
            return again, record, meta, views
        raw = self.reader.raw(index)  # what goes wrong here is the shard's fault: it ends the run
        try:
            parts = self.reader.unpack(index, raw)
            record, meta = self.reader.understand(index, parts)
            views = ()
            if self.drawing.preprocess.signal is not None:
                stored: tuple[_Read, ...] = (self.drawing.record(self.reader.recording(parts)),)
            elif self.drawing.preprocess.volume is not None:
                stored = (self.reader.voxels(parts),)
            elif self.drawing.of_exam:
                views, stored = self.reader.views(index, parts), self.reader.images(parts, *self.drawing.scale)
            else:
                stored = (self.reader.image(parts, *self.drawing.scale),)
        except MedclipError as e:
            raise _BadSample(str(e.reason)) from e
        self._keep(index, stored, record, meta, views)
        return stored, record, meta, views

    def _keep(
        self,
        index: int,
        stored: Sequence[_Read],
        record: CaptionRecord,
        meta: Mapping[str, Any],
        views: tuple[SampleView, ...],
    ) -> None:
        texts = [record.report or "", *record.negatives, *record.long_captions, *record.tags, *record.absent_tags]
        texts += [candidate.text for candidate in record.candidates]
        texts += [text for view in views for text in (*view.texts, view.report or "")]
        size = sum(map(_num_bytes, stored)) + _RECORD_BYTES * (1 + len(views)) + 2 * sum(map(len, texts))
        if index in self._cache:
            return
        has_room = self._room.take(size)
        if not has_room and not self._locks:
            return
        arrays = tuple(one if isinstance(one, Voxels) else np.asarray(one) for one in stored)
        if has_room:
            self._cache[index] = arrays, record, meta, views
        else:
            self._recent[index] = arrays, record, meta, views
            while len(self._recent) > _RECENT:
                self._recent.popitem(last=False)


def _num_bytes(stored: _Read) -> int:
    if isinstance(stored, Voxels):
        return stored.values.nbytes
    if isinstance(stored, np.ndarray):
        return stored.nbytes
    return stored.width * stored.height * len(stored.getbands())


def _again(repeat: int, view: int) -> tuple[int, ...]:
    """Return what the chance of a further draw of a sample depends on: nothing for the first image of an epoch."""
    number = repeat + view * _NEXT_VIEW
    return (number,) if number else ()


class _BadSample(Exception):
    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

"""Store beside shards, once, what teachers say: augmentations that can be replayed, captions, vectors of both.

MobileCLIP's dataset reinforcement: students then train at the cost of plain training. Nothing is copied: images stay in
their shards, and for each tar of them one of the same name holds what belongs to its samples. All chance is that of the
seed and the number of the sample; a tar appears when it is whole, so that a run that was killed is given again and ends
in the same bytes.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medclip.errors import MedclipError, Reason
from medclip.files.output import claim_run, digest_of, new_file, remove_drafts
from medclip.models.packs.pack import load_model
from medclip.models.packs.words import no_words
from medclip.pairs.selection.pack_vectors import pack_facts
from medclip.progress import Progress, Silent
from medclip.result import Result, named_counts
from medclip.sample import Modality
from medclip.shards.folder import STORED_WORDS, counts_of, read_index, write_index
from medclip.shards.reading.reinforced import REINFORCED, Reinforcement, to_bfloat16
from medclip.shards.reading.samples import ShardReader
from medclip.shards.writing.rewrite import TRAIN
from medclip.shards.writing.tar import TarShard, split_name
from medclip.text.captions.candidates import SYNTHETIC
from medclip.training.batches.augment import change_to_plain, names_a_side, pixels_identity
from medclip.training.batches.samples import Drawing
from medclip.training.recipe.augment import Augment, MedicalAugment

if TYPE_CHECKING:
    from medclip.models.model import Model
    from medclip.text.captions.record import CaptionRecord

NOTE, WHAT, VERSION = "reinforced.json", "reinforced shards", 1
AUGMENT = Augment(crop_scale=(0.5, 1.0), medical=MedicalAugment())
"""What is done to images: half of the area stays, so that what is looked for does, and nothing is mirrored."""
_MEMBERS = 3
"""Members of a sample."""
_TEXT, _CHANGE, _SENTENCE = range(3)


@dataclass(frozen=True)
class Reinforcing:
    """What is stored, of which shards, and where."""

    place: str
    out: Path
    teachers: tuple[str, ...]
    augmentations: int = 10
    captions: int = 3
    texts: tuple[str, ...] = ()
    """Sentences that stand for the captions of samples that have none."""
    within: float | None = None
    """Augmentations stay whose cosine with the captions is at most so far below the sample's best."""
    augment: Augment = AUGMENT
    split: str = TRAIN
    seed: int = 0


@dataclass(frozen=True, repr=False)
class ReinforceResult(Result):
    """What was stored."""

    out: Path
    num_samples: int
    num_augmentations: int
    num_captions: int
    num_synthetic: int
    counts_by_reason: Mapping[str, int]
    """Samples of which nothing could be stored; training leaves them out."""
    num_bytes: int
    teachers: tuple[str, ...]

    def _facts(self) -> dict[str, object]:
        nothing = named_counts(self.counts_by_reason)
        return {
            "teachers": ", ".join(self.teachers),
            "samples": self.num_samples,
            "augmentations": self.num_augmentations,
            "captions": f"{self.num_captions}, and {self.num_synthetic} synthetic",
            **({"nothing stored": nothing} if nothing else {}),
            "size": f"{self.num_bytes / 1e6:.3g} MB",
            "folder": self.out,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data for JSON."""
        return vars(self) | {"out": str(self.out), "counts_by_reason": dict(self.counts_by_reason)}


def reinforce(what: Reinforcing, device: str = "cpu", progress: Progress | None = None) -> ReinforceResult:
    """Store what teachers say of a split; see `medclip.api.reinforce.reinforce`."""
    progress = progress or Silent()
    index = read_index(what.place)
    if (index.get("options") or {}).get(REINFORCED):
        raise MedclipError(
            Reason.WRONG_USE,
            "these are reinforced shards, which hold no images.",
            where=what.place,
            hint="Name the shards of their images.",
        )
    with ShardReader(what.place, what.split, verify="full") as reader:
        if reader.holds != "images" or reader.holds_views:
            held = "examinations of several views" if reader.holds_views else STORED_WORDS[reader.holds]
            raise MedclipError(
                Reason.NOT_SUPPORTED_YET,
                f"these shards hold {held}; reinforced are shards of one image a sample.",
                where=reader.folder,
                hint="Build shards of single images.",
            )
        models = [load_model(teacher, device=device) for teacher in what.teachers]
        for model in models:
            _refuse(model, reader)
        pixels = pixels_identity() | {"preprocessing": dict(reader.preprocessing)}
        facts = {
            "version": VERSION,
            "pixels": pixels,
            "pixels_hash": digest_of([pixels, [model.preprocess.digest() for model in models]]),
            "teachers": [_facts(model) for model in models],
            "augment": what.augment.model_dump(mode="json"),
            "images": list(reader.shard_hashes),
        }
        chosen = {
            name: getattr(what, name) for name in ("augmentations", "captions", "texts", "within", "split", "seed")
        }
        claim_run(what.out, WHAT, {**facts, **chosen, "texts": digest_of(what.texts)}, NOTE)
        _write_tars(what, reader, models, progress)
        return _write_index(what, reader, index, facts)


def _facts(model: Model) -> dict[str, Any]:
    bias = getattr(model.clip, "logit_bias", None)
    return {
        **pack_facts(model),
        "dim": model.dim,
        "scale": model.logit_scale,
        "bias": 0.0 if bias is None else float(bias),
        "preprocess": model.preprocess.digest(),
    }


def _refuse(model: Model, reader: ShardReader) -> None:
    if not model.has_text:
        raise no_words(model.name, ", and a teacher says how well images fit words")
    if model.preprocess.takes != "images":
        raise MedclipError(
            Reason.WRONG_USE,
            f"the teacher {model.name} takes {model.preprocess.takes}, and these shards hold images.",
            where=reader.folder,
            hint="Name a teacher of images.",
        )
    learned = set(map(str, model.card.modalities))
    others = sorted({name for name in reader.columns.modalities if name} - learned)
    if learned and others:
        raise MedclipError(
            Reason.WRONG_USE,
            f"the teacher {model.name} knows {', '.join(sorted(learned))}, and these shards hold {', '.join(others)}.",
            where=reader.folder,
            hint="Name a teacher of that modality, or build shards of what it knows.",
        )


def _write_tars(what: Reinforcing, reader: ShardReader, models: Sequence[Model], progress: Progress) -> None:
    """Write each tar that is not there yet."""
    remove_drafts(what.out)
    drawings = [
        Drawing(replace(model.preprocess, crop="modality"), what.seed, what.augment, 0.3, 0.5) for model in models
    ]
    shard_N = reader.columns.shard_N
    missing = [number for number, shard in enumerate(reader.shards) if not (what.out / shard.name).exists()]
    progress.stage("Asking teachers", len(reader), len(reader) - int(np.isin(shard_N, missing).sum()))
    for number in missing:
        shard, samples = reader.shards[number], np.flatnonzero(shard_N == number).tolist()
        fresh = [model.without_sentences() for model in models]  # what texts of other tars they keep is no use
        with new_file(what.out / shard.name) as draft, TarShard(draft) as tar:
            for i in samples:
                tar.add(reader.key(i), list(_stored_of(what, reader, i, fresh, drawings).members().items()))
                progress.step()
            tar.close()


def _stored_of(
    what: Reinforcing, reader: ShardReader, i: int, models: Sequence[Model], drawings: Sequence[Drawing]
) -> Reinforcement:
    """Ask the teachers of one sample; nothing is stored of one that cannot be read or has no words."""
    width = sum(model.dim for model in models)
    nothing = Reinforcement((), (), (), *(np.zeros((0, width), np.uint16) for _ in range(2)))
    try:
        parts = reader.members(i)
        record, meta = reader.understand(i, parts)
        images = [reader.image(parts, *drawing.scale) for drawing in drawings]
    except MedclipError:
        return nothing
    texts = _texts_of(what, record, meta, drawings[0], i)
    if not texts:
        return nothing
    synthetic = tuple(dict.fromkeys(c.text for c in record.candidates if c.kind == SYNTHETIC))
    may_flip = record.laterality is None and record.modality is not Modality.ECG
    may_flip &= not any(map(names_a_side, (*texts, *synthetic)))
    draws = [np.random.default_rng((what.seed, i, _CHANGE, a)) for a in range(what.augmentations)]
    changes = [change for rng in draws if (change := drawings[0].change(record, rng, may_flip)) is not None]
    image_AE = np.concatenate(
        [
            model.encode_image(model.preprocess.together([drawing.draw(image, change) for change in changes]))
            for model, drawing, image in zip(models, drawings, images, strict=True)
        ],
        axis=1,
    )
    text_KE = np.concatenate([model.encode_text([*texts, *synthetic]) for model in models], axis=1)
    if what.within is not None:
        cosine_A = (image_AE @ text_KE[: len(texts)].T).mean(1) / len(models)
        kept = np.flatnonzero(cosine_A >= cosine_A.max() - what.within)
        changes, image_AE = [changes[a] for a in kept.tolist()], image_AE[kept]
    plain = tuple(map(change_to_plain, changes))
    return Reinforcement(plain, texts, synthetic, to_bfloat16(image_AE), to_bfloat16(text_KE))


def _texts_of(
    what: Reinforcing, record: CaptionRecord, meta: Mapping[str, Any], drawing: Drawing, i: int
) -> tuple[str, ...]:
    """Draw captions as training would; sentences of the file where the sample has none."""
    draws = [np.random.default_rng((what.seed, i, _TEXT, k)) for k in range(what.captions)]
    texts = [text for rng in draws if (text := drawing.caption(record, meta, rng).text)]
    is_silent = not (record.labels or record.texts or record.report or record.candidates)
    if (not texts or record.generic or is_silent) and what.texts:
        order = np.random.default_rng((what.seed, i, _SENTENCE)).permutation(len(what.texts))
        texts = [what.texts[n] for n in order[: what.captions].tolist()]
    return tuple(dict.fromkeys(texts))


def _write_index(
    what: Reinforcing, reader: ShardReader, index: Mapping[str, Any], facts: Mapping[str, Any]
) -> ReinforceResult:
    """Find the samples in the tars, count what they hold, and write the index last."""
    rows, shards, counts = [], [], Counter[str]()
    by_reason: Counter[str] = Counter()
    of_split = reader.rows
    at = 0
    for number, shard in enumerate(reader.shards):
        path = what.out / shard.name
        size = int((reader.columns.shard_N == number).sum())
        for row, (offset, length, stored) in zip(of_split[at : at + size], _samples_of(path), strict=True):
            rows.append({**row, "shard": shard.name, "offset": offset, "size": length})
            for name, num in zip(("augmentations", "captions", "synthetic"), stored.sizes, strict=True):
                counts[name] += num
            by_reason["nothing stored"] += not stored.changes
        at += size
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        shards.append(
            {
                "name": shard.name,
                "split": what.split,
                "samples": size,
                "bytes": path.stat().st_size,
                "sha256": sha256,
            }
        )
    if not counts["augmentations"]:
        raise MedclipError(
            Reason.NOTHING_TO_DO,
            "of no sample can anything be stored: none has words and an image that can be read.",
            where=what.place,
            hint="Name sentences for samples without words: --texts FILE.",
        )
    write_index(
        what.out,
        rows,
        [],
        shards=shards,
        counts={
            "samples": len(rows),
            **{f"by_{of}": counts_of(rows, of) for of in ("split", "modality")},
            "by_reason": {},
            "patients_by_split": {what.split: len({row["patient"] for row in rows})},
            "duplicates_across_splits": 0,
        },
        preprocessing=index["preprocessing"],
        options={REINFORCED: {**facts, "synthetic": counts["synthetic"]}},
        columns=(),
    )
    return ReinforceResult(
        out=what.out,
        num_samples=len(rows),
        num_augmentations=counts["augmentations"],
        num_captions=counts["captions"],
        num_synthetic=counts["synthetic"],
        counts_by_reason={reason: num for reason, num in by_reason.items() if num},
        num_bytes=sum(shard["bytes"] for shard in shards),
        teachers=tuple(str(teacher["name"]) for teacher in facts["teachers"]),
    )


def _samples_of(path: Path) -> Iterator[tuple[int, int, Reinforcement]]:
    """Yield offset, size and content of each sample of a tar that was written here."""
    with tarfile.open(path, "r:") as tar:
        infos = tar.getmembers()
        contents = [tar.extractfile(info) for info in infos]
        parts = [(split_name(info.name)[1], c.read()) for info, c in zip(infos, contents, strict=True) if c is not None]
    for n in range(0, len(infos), _MEMBERS):
        last = infos[n + _MEMBERS - 1]
        end = last.offset_data + -(-last.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        yield infos[n].offset, end - infos[n].offset, Reinforcement.of_members(dict(parts[n : n + _MEMBERS]))

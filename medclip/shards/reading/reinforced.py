"""What teachers said of samples, stored beside their shards: augmentations, captions and vectors, no image.

`medclip pairs reinforce` writes it as shards of the same keys and numbers, of which a sample has three members, named
as in MobileCLIP's: `paug.json` (how its image is changed), `syn.json` (its captions) and `npz` (the vectors of each
changed image and of each caption, those of the teachers side by side, as the bits of bfloat16).
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from medclip.errors import MedclipError, Reason
from medclip.files.stores import Place
from medclip.shards.folder import read_index
from medclip.shards.reading.samples import ShardReader

if TYPE_CHECKING:
    from numpy.typing import NDArray

CHANGES, TEXTS, VECTORS = "paug.json", "syn.json", "npz"
REINFORCED = "reinforced"
"""Key of the facts among the options of the index."""


@dataclass(frozen=True, eq=False)
class Reinforcement:
    """What is stored of one sample."""

    changes: tuple[Any, ...]
    """Plain values of A changes of its image, of shards of others lists as MobileCLIP has them; none where nothing
    could be made of it."""
    texts: tuple[str, ...]
    """Its K captions."""
    synthetic: tuple[str, ...]
    """S captions that a model wrote."""
    image_AE: NDArray[np.uint16]
    """Bits of bfloat16: vectors of the changed images."""
    text_KE: NDArray[np.uint16]
    """Of the captions, and then of the synthetic ones."""

    @property
    def sizes(self) -> tuple[int, int, int]:
        """A, K and S."""
        return len(self.changes), len(self.texts), len(self.synthetic)

    def members(self) -> dict[str, bytes]:
        """Return the members of its sample, by extension; equal values are equal bytes."""
        file = io.BytesIO()
        np.savez(file, image_emb=self.image_AE, text_emb=self.text_KE)
        values = {
            CHANGES: {"changes": [*self.changes]},
            TEXTS: {"texts": [*self.texts], "syn_text": [*self.synthetic]},
        }
        return {name: _plain(value) for name, value in values.items()} | {VECTORS: file.getvalue()}

    @classmethod
    def of_members(cls, parts: Mapping[str, bytes], captions: Sequence[str] = ()) -> Reinforcement:
        """Read what `members` returned, or the members of MobileCLIP's own shards.

        Args:
            parts: Members of a sample, by extension.
            captions: Captions of the sample, for shards that do not say them in `syn.json`.

        Raises:
            KeyError, ValueError, TypeError: It is something else.
        """
        changes, texts = json.loads(parts[CHANGES]), json.loads(parts[TEXTS])
        with np.load(io.BytesIO(parts[VECTORS]), allow_pickle=False) as vectors:
            image_AE, text_KE = vectors["image_emb"], vectors["text_emb"]
        if "param_aug" in changes:
            synthetic = tuple(map(str, texts["syn_text"]))
            image_AE, text_KE = (to_bfloat16(np.asarray(of, np.float32)) for of in (image_AE, text_KE))
            value = cls(tuple(changes["param_aug"]), tuple(captions), synthetic, image_AE, text_KE)
        else:
            value = cls(tuple(changes["changes"]), tuple(texts["texts"]), tuple(texts["syn_text"]), image_AE, text_KE)
        sizes = len(value.changes), len(value.texts) + len(value.synthetic)
        if (len(image_AE), len(text_KE)) != sizes or {image_AE.dtype, text_KE.dtype} != {np.dtype(np.uint16)}:
            raise ValueError("vectors of other changes or captions")
        return value


def _plain(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def to_bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Round to the bits of bfloat16, half to even.

    Example:
        >>> to_bfloat16(np.array([1.0, -2.0], np.float32)).tolist()
        [16256, 49152]
    """
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bfloat16(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Return the float32 of the bits of bfloat16."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


class ReinforcedShards:
    """What is stored beside a split, by the numbers of its samples. Safe in threads; travels to other processes.

    Args:
        stored: The folders of `medclip pairs reinforce`, opened with the selection that the split is read with.
        reader: The split.

    Raises:
        MedclipError: WRONG_USE where a folder is none of these; PREPROCESSING_MISMATCH where it is of other images,
            or two are of different teachers.
    """

    def __init__(self, stored: ShardReader, reader: ShardReader) -> None:
        self._stored = stored
        self.facts = facts_of(stored)
        self.is_foreign = any(facts["pixels"] is None for facts in self.facts)
        """They are shards of others: images, captions and vectors lie in the same tars."""
        if self.is_foreign and VECTORS not in (parts := stored.members(0)):
            kind = "pth.gz, a pickle" if "pth.gz" in parts else "no npz"
            raise MedclipError(
                Reason.NOT_SUPPORTED_YET,
                f"the vectors of these shards lie in {kind}, which is not opened.",
                where=stored.folder,
                hint="Store image_emb and text_emb of each sample with numpy.savez; or run medclip pairs reinforce.",
            )
        hashes = [digest for facts in self.facts for digest in facts["images"]]
        if hashes != list(reader.shard_hashes) or len(stored) != len(reader):
            raise MedclipError(
                Reason.PREPROCESSING_MISMATCH,
                "what is stored here is of other images than those of data.shards.",
                where=stored.folder,
                hint="Name them in the order of data.shards, or reinforce these shards: medclip pairs reinforce.",
            )
        first = self.facts[0]
        if any(facts[name] != first[name] for facts in self.facts for name in ("teachers", "augment", "pixels")):
            raise MedclipError(
                Reason.PREPROCESSING_MISMATCH,
                "these folders were made with different teachers or augmentations.",
                where=stored.folder,
                hint="Reinforce all shards with the same ones.",
            )

    @cached_property
    def dims(self) -> tuple[int, ...]:
        """Widths of the teachers."""
        return tuple(int(teacher["dim"]) for teacher in self.facts[0]["teachers"])

    @property
    def folder(self) -> Place:
        """The first folder."""
        return self._stored.folder

    @property
    def shard_hashes(self) -> tuple[str, ...]:
        """sha256 of each tar."""
        return self._stored.shard_hashes

    def __getitem__(self, i: int) -> Reinforcement:
        """Read what is stored of sample i.

        Raises:
            MedclipError: CORRUPT; as `ShardReader.members`.
        """
        try:
            parts = self._stored.members(i)
            return Reinforcement.of_members(
                parts, self._stored.understand(i, parts)[0].texts if self.is_foreign else ()
            )
        except (KeyError, ValueError, TypeError, zipfile.BadZipFile) as e:
            raise MedclipError(
                Reason.CORRUPT, f"what is stored of sample {i} is not readable.", where=self._stored.folder
            ) from e


def facts_of(stored: ShardReader) -> list[dict[str, Any]]:
    """Return what the index of each folder says of teachers, augmentations and images.

    Raises:
        MedclipError: WRONG_USE where one says nothing.
    """
    facts = []
    for folder in stored.folders:
        index = read_index(folder)
        one = (index.get("options") or {}).get(REINFORCED)
        if one is None and "foreign" in index:
            images = [shard["sha256"] for shard in index["shards"] if shard["split"] == stored.split]
            one = {"pixels": None, "augment": None, "teachers": [], "synthetic": 1, "images": images}
        if one is None:
            raise MedclipError(
                Reason.WRONG_USE,
                "these shards hold no vectors of teachers.",
                where=folder,
                hint="Name a folder of `medclip pairs reinforce`; the shards of its images stand in data.shards.",
            )
        facts.append(one)
    return facts

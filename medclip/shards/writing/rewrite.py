"""Write shards again with other JSON and captions, fewer samples, or more: edited partners, and synthetic ones.

Keys, splits and the order of the samples that stay are as they were. An edited partner stands behind its sample of the
training split; synthetic samples stand behind all others of their split.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from medclip.errors import MedclipError, Reason
from medclip.files.output import new_folder
from medclip.files.stores import Place
from medclip.files.tables.parquet_stream import read_stream
from medclip.shards.folder import (
    EDIT_PAIR,
    REJECTS,
    SAMPLES,
    SYNTHETIC,
    claim_shards,
    counts_of,
    open_table,
    read_index,
    write_index,
)
from medclip.shards.reading.samples import ShardReader
from medclip.shards.writing.tar import SHARD_NAME, TarShard

_IN_A_TAR = 2_000
"""Synthetic samples in one tar."""
TRAIN = "train"
"""The split that edited partners are written into."""
Change = Callable[[str, dict[str, bytes]], dict[str, bytes] | None]
"""What makes the new members of a sample of its key and members, by extension; None leaves the sample out."""


@dataclass(frozen=True)
class Addition:
    """A sample that was made of another one."""

    key: str
    source: str
    """Key of the sample whose row it has: its patient, and so its split."""
    kind: str
    """How it was made."""
    members: Mapping[str, bytes]
    """By extension."""


@dataclass(frozen=True)
class Partner:
    """A sample that differs from another by one edit."""

    source: dict[str, bytes]
    """Members of that other one, which name the pair, too."""
    key: str
    members: dict[str, bytes]
    pair: str
    sha256: str
    """Of its image."""
    kind: str
    """The edit: it is a synthetic sample as others that nobody took of a patient."""


Beside = Callable[[str, dict[str, bytes]], Partner | None]
"""What makes an edited partner of a training sample of its key and changed members; None where it has none."""


def rewrite_shards(
    folder: Place,
    out: Path,
    change: Change,
    additions: Mapping[str, Iterable[Addition]] | None = None,
    beside: Beside | None = None,
    pairs: Mapping[str, str] | None = None,
) -> None:
    """Copy shards with changed members. The same input gives the same bytes.

    Args:
        folder: Shards that `build_shards` made.
        out: Folder to make; it appears only when it is complete.
        change: Function that makes the new members of each sample.
        additions: Synthetic samples by split; they lie in tars of their own behind the others.
        beside: Function that makes partners, which follow their samples; only of those of the split `TRAIN`.
        pairs: Name of the edit pair by key of samples that are partners of each other as they are.

    Raises:
        MedclipError: OUTPUT_IN_USE; WRONG_USE for an index of tars that others wrote; as `ShardReader`.
    """
    claim_shards(out)
    index = read_index(folder)
    if "foreign" in index:
        raise MedclipError(
            Reason.WRONG_USE,
            "these are tars of others; shards that medclip built can be written again.",
            where=folder,
            hint="The table is written all the same: build shards of it.",
        )
    rows = _rows(folder, index, SAMPLES)
    samples: list[dict[str, Any]] = []
    shards: list[dict[str, Any]] = []
    with new_folder(out) as work:
        for split in dict.fromkeys(str(shard["split"]) for shard in index["shards"]):
            of_split = [row for row in rows if row["split"] == split]
            with ShardReader(folder, split, verify="full") as reader:
                at = 0
                for shard in (s for s in index["shards"] if s["split"] == split):
                    with TarShard(work / shard["name"]) as tar:
                        while at < len(of_split) and of_split[at]["shard"] == shard["name"]:
                            key = reader.key(at)
                            members = change(key, reader.members(at))
                            if members is None:
                                at += 1
                                continue
                            partner = beside(key, members) if beside is not None and split == TRAIN else None
                            row, new = dict(of_split[at]), [(key, members)]
                            rows_of_sample = [row]
                            if pairs and key in pairs:
                                row[EDIT_PAIR] = pairs[key]
                            if partner is not None:
                                row[EDIT_PAIR] = partner.pair
                                new = [(key, partner.source), (partner.key, partner.members)]
                                rows_of_sample.append(
                                    {**row, "key": partner.key, "sha256": partner.sha256, SYNTHETIC: partner.kind}
                                )
                            for of_sample, (name, parts) in zip(rows_of_sample, new, strict=True):
                                offset, size = tar.add(name, list(parts.items()))
                                samples.append({**of_sample, "offset": offset, "size": size})
                            at += 1
                        shards.append(_closed(tar, split))
            row_of = {row["key"]: row for row in of_split}
            waiting = iter((additions or {}).get(split, ()))
            while part := list(islice(waiting, _IN_A_TAR)):
                number = sum(shard["split"] == split for shard in shards)
                with TarShard(work / SHARD_NAME.format(split=split, number=number)) as tar:
                    for one in part:
                        offset, size = tar.add(one.key, list(one.members.items()))
                        place = {"key": one.key, "shard": tar.path.name, "offset": offset, "size": size}
                        samples.append({**row_of[one.source], **place, SYNTHETIC: one.kind, EDIT_PAIR: None})
                    shards.append(_closed(tar, split))
        write_index(
            work,
            samples,
            _rows(folder, index, REJECTS),
            shards=shards,
            counts={**index["counts"], **{f"by_{of}": counts_of(samples, of) for of in ("split", "modality")}},
            preprocessing=index["preprocessing"],
            options=index.get("options", {}),
            columns=index.get("columns", ()),
        )


def _closed(tar: TarShard, split: str) -> dict[str, Any]:
    sha256, num_bytes = tar.close()
    return {
        "name": tar.path.name,
        "split": split,
        "samples": tar.num_samples,
        "bytes": num_bytes,
        "sha256": sha256,
    }


def _rows(folder: Place, index: Any, name: str) -> list[dict[str, Any]]:
    with open_table(folder, index, name) as file:
        return read_stream(file).to_pylist()

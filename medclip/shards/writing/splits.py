"""Who goes where: splits by patient, decided by a hash, so that a patient never changes sides when rows are added."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from medclip.errors import MedclipError, Reason
from medclip.files.key_value import key_values
from medclip.files.pseudonyms import keyed_hash
from medclip.shards.writing.table import ShardRow

DEFAULT_SPLITS: Mapping[str, float] = {"train": 0.7, "val": 0.1, "test": 0.2}


def place(patient: str, seed: int) -> float:
    """Return a patient's place in [0, 1): the first 53 bits of blake2b over the seed and the identifier."""
    digest = hashlib.blake2b(f"{seed}\0{patient}".encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def split_of(patient: str, splits: Mapping[str, float], seed: int) -> str:
    """Return the split whose share of [0, 1) holds the patient's place, in the order of `splits`."""
    at, upper = place(patient, seed), 0.0
    for name, share in splits.items():
        upper += share
        if at < upper:
            return name
    return [name for name, share in splits.items() if share > 0][-1]


def read_shares(splits: str | Sequence[str] | Mapping[str, float]) -> Mapping[str, float]:
    """Read shares as `--splits` takes them, several in a text or one in each; `DEFAULT_SPLITS` where there is none.

    Raises:
        MedclipError: WRONG_USE for what is no share.

    Example:
        >>> read_shares("train=0.8,test=0.2") == read_shares(["train=0.8", "test=0.2"])
        True
    """
    if isinstance(splits, Mapping):
        return splits or DEFAULT_SPLITS
    texts = [part for text in ([splits] if isinstance(splits, str) else splits) for part in text.split(",")]
    form = ",".join(f"{name}={share:g}" for name, share in DEFAULT_SPLITS.items())
    try:
        return {name: float(share) for name, share in key_values(texts, "--splits", form).items()} or DEFAULT_SPLITS
    except ValueError:
        raise MedclipError(Reason.WRONG_USE, f"--splits takes {form}, which {','.join(texts)!r} is not.") from None


def check_shares(splits: Mapping[str, float]) -> None:
    """Refuse shares that are none.

    Raises:
        MedclipError: WRONG_USE when they do not sum to 1.
    """
    if not splits or any(s < 0 for s in splits.values()) or abs(sum(splits.values()) - 1) > 1e-6:
        raise MedclipError(
            Reason.WRONG_USE,
            f"the shares of the splits ({', '.join(f'{k}={v:g}' for k, v in splits.items())}) do not sum to 1.",
        )


def assign(rows: Sequence[ShardRow], splits: Mapping[str, float], seed: int, key: bytes) -> tuple[str, ...]:
    """Return every row its split. The table's own `split` stands, and holds for all rows of that patient.

    Args:
        rows: The table's rows.
        splits: Shares of the splits by name, which sum to 1.
        seed: Seed of the division.
        key: Key that names patients in the error, and is used for nothing else.

    Returns:
        One split name per row.

    Raises:
        MedclipError: WRONG_USE when the shares do not sum to 1; PATIENT_OVERLAP when the table puts a patient on two
            sides.
    """
    check_shares(splits)
    stated: dict[str, set[str]] = {}
    for row in rows:
        if row.split is not None:
            stated.setdefault(row.patient, set()).add(row.split)
    torn = sorted(keyed_hash("patient", p, key) for p, sides in stated.items() if len(sides) > 1)
    if torn:
        raise MedclipError(
            Reason.PATIENT_OVERLAP,
            f"the column `split` puts {len(torn)} patients on more than one side (hashed): {', '.join(torn[:5])}.",
            hint="Give all images of a patient the same split, or leave the column blank.",
        )
    return tuple(next(iter(stated.get(r.patient, ())), None) or split_of(r.patient, splits, seed) for r in rows)

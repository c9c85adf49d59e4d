"""Check that a pack can be scored with; as `medclip.models.verify` and `medclip models verify`."""

from __future__ import annotations

from pathlib import Path

from medclip.adaptation.pack.pack_head import read_pack_heads
from medclip.models.packs.pack import PackInfo, check_pack, pack_card
from medclip.runs.planning.options import ScoreOptions
from medclip.scoring.tasks import asked_tasks


def verify(model: str | Path) -> PackInfo:
    """Check a pack's files, weights, architecture, preprocessing, head and tasks: all that `medclip.score` asks of it.

    Args:
        model: Name of a pack, or its folder.

    Raises:
        MedclipError: PACK_NOT_FOUND, UNSAFE_WEIGHTS, PACK_INVALID, PREPROCESSING_MISMATCH; WRONG_USE for a task that
            the vocabulary does not have.

    Example:
        >>> verify("medclip-mini").name
        'medclip-mini'
    """
    info = check_pack(model)
    card = pack_card(info.path)
    heads = read_pack_heads(info.path, card)
    asked_tasks(card, ScoreOptions(), {name: head.text for name, head in heads.items()})
    return info

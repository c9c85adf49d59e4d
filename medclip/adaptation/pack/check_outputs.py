"""Where an adaptation writes to, looked at before anything is read or learned."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.adaptation.pack.adapted_model import DESCRIPTION, check_checkpoint, described_in
from medclip.adaptation.pack.replacing import apart, manifest_digest, refuse_other
from medclip.adaptation.pack.write_pack import adaptation_in, check_place
from medclip.models.packs.manifest import FILE_NAME as MANIFEST

if TYPE_CHECKING:
    from medclip.adaptation.pack.adapted_model import Draw


def check_places(
    out: Path | None,
    checkpoint: Path | None,
    base: Path,
    *,
    method: str,
    draw: Draw,
    options: Mapping[str, Any],
    replace: bool,
) -> None:
    """Refuse folders that the pack and the checkpoint of this adaptation cannot go to.

    What only learning tells (the task, the shots, settings that are chosen) is compared again when they are written.

    Args:
        out: Of the pack; None where none is written.
        checkpoint: Of the checkpoint; None where none is written.
        base: The base's folder.
        method: Its name.
        draw: How shots are drawn.
        options: The method's own, as given.
        replace: Replace whatever pack or checkpoint lies there.

    Raises:
        MedclipError: WRONG_USE for places that are no folder, or of which one lies in another; OUTPUT_IN_USE.
    """
    if out is not None:
        check_place(out, base)
    if checkpoint is not None:
        check_checkpoint(checkpoint)
    apart({"the base": base, "--out": out, "--checkpoint": checkpoint})
    if replace:
        return
    digest = manifest_digest(base)
    drawn = {"shots": draw.shots, "seed": draw.seed, "init_seed": draw.init_seed}
    if out is not None and (out / MANIFEST).is_file():
        there = adaptation_in(out)
        asked = {"base_digest": digest, "method": method, **drawn, **_settings(options, there)}
        refuse_other(out, there, asked, "pack")
    if checkpoint is not None and (checkpoint / DESCRIPTION).is_file():
        there = described_in(checkpoint)
        asked = {"base": {"digest": digest}, "method": method, "draw": drawn, **_settings(options, there)}
        refuse_other(checkpoint, there, asked, "checkpoint")


def _settings(options: Mapping[str, Any], there: Mapping[str, Any] | None) -> dict[str, Any]:
    """Give the numbers and words among the options that were written down there."""
    known = (there or {}).get("settings", {})
    return {"settings": {k: v for k, v in options.items() if k in known and isinstance(v, int | float | str)}}

"""Where an adaptation writes to, looked at before anything is read or learned."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.adaptation.pack.adapted_model import CHECKPOINT, DESCRIPTION, REPLACE, check_checkpoint
from medclip.adaptation.pack.write_pack import TITLES, adaptation_in, check_place
from medclip.errors import MedclipError, Reason
from medclip.files.output import read_note, refuse_other
from medclip.models.packs.manifest import FILE_NAME as MANIFEST
from medclip.models.packs.manifest import pack_digest

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
        out: Folder of the pack; None where none is written.
        checkpoint: Folder of the checkpoint; None where none is written.
        base: The base's folder.
        method: Name of the method.
        draw: Way in which shots are drawn.
        options: Options of the method, as given.
        replace: Whether any pack or checkpoint that lies there is replaced.

    Raises:
        MedclipError: WRONG_USE for places that are no folder, or of which one lies in another; OUTPUT_IN_USE.
    """
    if out is not None:
        check_place(out, base)
    if checkpoint is not None:
        check_checkpoint(checkpoint)
    _apart({"the base": base, "--out": out, "--checkpoint": checkpoint})
    if replace:
        return
    digest = pack_digest(base) if (base / MANIFEST).is_file() else None
    drawn = {"shots": draw.shots, "seed": draw.seed, "init_seed": draw.init_seed}
    if out is not None and (out / MANIFEST).is_file():
        present = adaptation_in(out)
        asked = {"base_digest": digest, "method": method, **drawn, **_settings(options, present)}
        refuse_other(out, "model pack", present, asked, titles=TITLES, remedy=REPLACE)
    if checkpoint is not None and (checkpoint / DESCRIPTION).is_file():
        present = read_note(checkpoint / DESCRIPTION)
        asked = {"base": {"digest": digest}, "method": method, "draw": drawn, **_settings(options, present)}
        refuse_other(checkpoint, CHECKPOINT, present, asked, remedy=REPLACE)


def _settings(options: Mapping[str, Any], present: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the numbers and words among the options that were written down there."""
    known = (present or {}).get("settings", {})
    return {"settings": {k: v for k, v in options.items() if k in known and isinstance(v, int | float | str)}}


def _apart(places: Mapping[str, Path | None]) -> None:
    """Refuse folders of which one is another or lies in another.

    Args:
        places: Folder by what it is called: {"--out": ..., "the base": ...}.

    Raises:
        MedclipError: WRONG_USE.
    """
    resolved = [(name, path.resolve()) for name, path in places.items() if path is not None]
    for n, (name, path) in enumerate(resolved):
        for other, second in resolved[:n]:
            if path.is_relative_to(second) or second.is_relative_to(path):
                how = "are the same folder" if path == second else "lie one inside the other"
                raise MedclipError(
                    Reason.WRONG_USE, f"{other} and {name} {how}.", where=path, hint="Name a new folder beside it."
                )

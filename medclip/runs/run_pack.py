"""The model pack of a run: checked before anything is read, and loaded by whoever computes with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medclip.errors import MedclipError, Reason
from medclip.models.devices import check_batch_size, check_device
from medclip.runs.call import Call
from medclip.settings import Settings


@dataclass(frozen=True)
class RunPack:
    """The model pack of a run, checked and not loaded."""

    path: Path
    card: Any
    digest: str

    @property
    def identity(self) -> str:
        """Name, version and hash."""
        return f"{self.card.name} {self.card.version} {self.digest}"


def pack_of_run(model: Any, settings: Settings, device: str = "cpu", batch_size: int | None = None) -> RunPack:
    """Check all that can be checked of a run's model without loading it.

    Args:
        model: Name or folder of a pack, or a loaded model. A loaded model stands for its pack, which is loaded again:
            the run is bound to the pack's hashes.
        settings: Settings of the run; other pixels than models are trained with are refused.
        device: Device that the model is to compute on.
        batch_size: Images in one forward pass.

    Raises:
        MedclipError: WRONG_USE, PREPROCESSING_MISMATCH, and what `verify_pack` raises.
    """
    from medclip.models.packs.card import read_card
    from medclip.models.packs.manifest import pack_digest
    from medclip.models.packs.pack import find_pack, verify_pack

    if "pixels" in settings.policy.changes():
        raise MedclipError(
            Reason.PREPROCESSING_MISMATCH,
            "the settings ask for other pixels than models are trained with.",
            hint="Score with the default PixelPolicy; medclip.open_study and medclip.view take any.",
        )
    check_batch_size(batch_size)
    named = getattr(model, "path", model)
    if not isinstance(named, (str, Path)):
        raise MedclipError(
            Reason.WRONG_USE,
            f"a model is named by a pack's name or folder, or is a loaded model, not {type(model).__name__}.",
        )
    pack = find_pack(named)
    check_device(device)
    verify_pack(pack)
    return RunPack(pack, read_card(pack), pack_digest(pack))


def pack_of_call(call: Call) -> RunPack:
    """Check the model of a call. The device is asked for here unless an engine computes elsewhere, which asks its own.

    Raises:
        MedclipError: As `pack_of_run`.
    """
    device = call.device if call.engine is None else "cpu"
    return pack_of_run(call.model, call.settings, device, call.batch_size)

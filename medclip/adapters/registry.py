"""Which adapter reads which modality: one explicit table, plus entry points of other packages."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from medclip.adapters.base import Adapter, Source, preprocessing_hash
from medclip.adapters.model_images import DRAWN, drawing_hash
from medclip.dicom.header.read import modality_from_header as modality_from_header
from medclip.errors import MedclipError, Reason
from medclip.lazy import import_name, plug_ins
from medclip.sample import UNKNOWN, Kind, Modality, Sample, spoken
from medclip.settings import ReadPolicy, Settings

GENERIC = "generic"
ENTRY_POINTS = "medclip.adapters"
ADAPTERS: Mapping[str, str] = {
    "xray": "medclip.adapters.xray:XrayAdapter",
    "mammography": "medclip.adapters.mammography:MammographyAdapter",
    "mri": "medclip.adapters.mri:MriAdapter",
    "fundus": "medclip.adapters.fundus:FundusAdapter",
    "dermatology": "medclip.adapters.dermatology:DermatologyAdapter",
    "ct": "medclip.adapters.ct:CtAdapter",
    "ultrasound": "medclip.adapters.ultrasound:UltrasoundAdapter",
    "pathology": "medclip.adapters.pathology:PathologyAdapter",
    "endoscopy": "medclip.adapters.endoscopy:EndoscopyAdapter",
    "oct": "medclip.adapters.oct:OctAdapter",
    "ecg": "medclip.adapters.ecg:EcgAdapter",
    GENERIC: "medclip.adapters.generic:GenericAdapter",
}
"""Name of the modality (or "generic") -> "module:Class". A new adapter is one file and one line here."""


@cache
def _load(target: str) -> Adapter:
    return import_name(target)()


def adapter_names() -> tuple[str, ...]:
    """List the names of all adapters, built-in ones first."""
    return (*ADAPTERS, *plug_ins(ENTRY_POINTS, ADAPTERS))


def get_adapter(modality: Modality | str | None) -> Adapter:
    """Return the adapter of a modality.

    Args:
        modality: A modality or its name; None, "unknown" or "generic" for the rendering that the modality is inferred
            from.

    Raises:
        MedclipError: NOT_SUPPORTED_YET if there is none.
    """
    name = slot(modality, Kind.IMAGE)
    target = ADAPTERS.get(name) or plug_ins(ENTRY_POINTS, ADAPTERS).get(name)
    if target is None:
        readable = ", ".join(spoken(other) for other in adapter_names() if other != GENERIC)
        printed = spoken(name)
        raise MedclipError(
            Reason.NOT_SUPPORTED_YET,
            f"{printed} images are not read yet; this version reads {readable}.",
        )
    return _load(target)


def slot(modality: Modality | str | None, kind: Kind) -> str:
    """Name a way of reading, as index files and pack manifests do: "xray", "generic", "ct:volume"."""
    name = GENERIC if modality in (None, UNKNOWN) else str(modality)
    return name if kind is Kind.IMAGE else f"{name}:{kind}"


def preprocessing_of(name: str, policy: ReadPolicy | None = None) -> str:
    """Return today's preprocessing hash of a slot: what the provenance of its samples says.

    Args:
        name: Name of the slot, see `slot`; or `DRAWN`, how a record is drawn for a model that takes images.
        policy: Policy of what is read otherwise than by default.

    Raises:
        MedclipError: NOT_SUPPORTED_YET if there is no such adapter; ValueError for another kind than there are.
    """
    if name == DRAWN:
        return drawing_hash()
    modality, _, kind = name.partition(":")
    adapter = get_adapter(modality)
    plain = adapter.preprocessing_of(Kind(kind or Kind.IMAGE))
    changes = {} if policy is None else policy.changes()
    return preprocessing_hash(plain, adapter.version, changes) if changes else plain


def read_unit(source: Source, modality: Modality | str | None, settings: Settings) -> Sample:
    """Read one unit (an image, a series, a record, a slide) as a modality.

    Args:
        source: The unit's files in reading order.
        modality: Modality that it shows; None for the generic rendering.
        settings: Limits and policy.

    Raises:
        MedclipError: The problem that inspection found, NOT_SUPPORTED_YET if no adapter reads the unit, or the reason
            why decoding failed.
    """
    for path, facts in zip(source.paths, source.facts, strict=True):
        if facts.problem is not None:
            raise facts.problem.error(path)
    try:
        adapter = get_adapter(modality)
    except MedclipError as error:
        raise error.at(source.path) from None
    return adapter.read(source, settings)

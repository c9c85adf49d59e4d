"""Decide which files are read together, as what: images, sorted series, records, slides."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from medclip.dicom.header.codes import WAVEFORMS
from medclip.dicom.header.read import DicomHeader, modality_code, modality_from_header
from medclip.errors import Problem, Reason
from medclip.files.grouping.series import Slice, Uneven, stacks
from medclip.files.recognise.sniff import Format
from medclip.sample import FileRef, Kind, Modality, Unit

if TYPE_CHECKING:
    from medclip.files.recognise.inspect import FileFacts

_BY_FORMAT: Mapping[Format, Kind] = {
    Format.NIFTI: Kind.VOLUME,
    Format.VOLUME_DATA: Kind.VOLUME,
    Format.MINC: Kind.VOLUME,
    Format.NRRD: Kind.VOLUME,
    Format.METAIMAGE: Kind.VOLUME,
    Format.SLIDE: Kind.SLIDE,
    Format.WFDB: Kind.SIGNAL,
    Format.WFDB_SIGNAL: Kind.SIGNAL,
    Format.EDF: Kind.SIGNAL,
    Format.SCP_ECG: Kind.SIGNAL,
    Format.XML_ECG: Kind.SIGNAL,
    Format.MATLAB: Kind.SIGNAL,
    Format.MP4: Kind.CINE,
    Format.AVI: Kind.CINE,
}
_SLICES = frozenset({"CT", "MR", "PT"})
_SLIDES = frozenset({"SM"})
_SECONDARY = "1.2.840.10008.5.1.4.1.1.7"
_SCREENS = frozenset({"SCREEN SAVE", "SCREENSAVE", "SCREEN_SAVE", "SCREENSHOT"})
_PARTS = frozenset({Format.WFDB_SIGNAL, Format.VOLUME_DATA})
_ORPHAN = Problem(
    Reason.COMPANION, "the file belongs to a header beside it that is not read, and cannot be read on its own."
)

_LEAST_CAPTURES = 4
"""Fewer captures are images, even where they state positions."""
_CAPTURE = "an image made of other images (secondary capture), kept apart from the series"
_CAPTURED: Mapping[str, str] = {
    "CT": "slices exported as secondary captures: values may not be HU",
    "MR": "slices exported as secondary captures",
}
_MOSAIC = "a mosaic: the slices of a volume side by side in one frame"

_Pair = tuple[FileRef, "FileFacts"]
"""A file with what inspection said of it."""


def kind_of(facts: FileFacts) -> Kind:
    """Return what one file on its own is.

    CT, MR and PET objects are volumes even where there is a single slice, but for images made of them (secondary
    captures); other DICOM objects of several frames are cine.
    """
    header = facts.header
    if facts.format is not Format.DICOM or header is None:
        return _BY_FORMAT.get(facts.format, Kind.IMAGE)
    if header.sop_class.startswith(WAVEFORMS):
        return Kind.SIGNAL
    code = modality_code(header)
    if code in _SLIDES:
        return Kind.SLIDE
    if code in _SLICES and not is_secondary(header):
        return Kind.VOLUME
    return Kind.CINE if header.frames > 1 else Kind.IMAGE


def modality_of(facts: FileFacts) -> Modality | None:
    """Return the modality that a file names itself: its header, or a format that holds nothing else.

    A volume in one file (NIfTI) does not say whether it is CT or MR.
    """
    if facts.header is not None:
        return modality_from_header(facts.header)
    kind = _BY_FORMAT.get(facts.format)
    return {Kind.SIGNAL: Modality.ECG, Kind.SLIDE: Modality.PATHOLOGY}.get(kind) if kind is not None else None


def is_secondary(header: DicomHeader) -> bool:
    """Return whether an object of a volume's modality is an image made of it: a screen capture, a colour map."""
    if header.sop_class == _SECONDARY or header.sop_class.startswith(f"{_SECONDARY}."):
        return True
    colour = header.samples_per_pixel > 1 or header.photometric == "PALETTE COLOR"
    return colour or any(word in _SCREENS for word in header.image_type)


def units_of(files: Sequence[_Pair], *, uneven: Uneven = "reject") -> tuple[Unit, ...]:
    """Tie files into what is read together.

    Args:
        files: Readable files with their facts, in any order.
        uneven: Whether gaps and uneven distances between slices are a problem or a note.

    Returns:
        Units in the order of their first file in `files`. Every file is in exactly one.
    """
    position = {ref.name: index for index, (ref, _) in enumerate(files)}
    groups: dict[tuple[str, ...] | None, list[_Pair]] = {}
    for pair in files:
        groups.setdefault(_group_key(*pair), []).append(pair)
    units = _with_parts(groups.pop(None, []))
    for key, members in groups.items():
        make = _MAKE[key[0]] if key is not None else _series
        units += make(members, uneven)
    return tuple(sorted(units, key=lambda unit: min(position[ref.name] for ref in unit.files)))


def _folder(ref: FileRef) -> str:
    return str(PurePosixPath(ref.name).parent)


def _group_key(ref: FileRef, facts: FileFacts) -> tuple[str, ...] | None:
    """Name the series of a DICOM slice or slide level; anything else is looked at by itself and its neighbours."""
    header, kind = facts.header, kind_of(facts)
    if facts.format is not Format.DICOM or header is None:
        return None
    captured = _is_exported_slice(header)
    if kind not in (Kind.VOLUME, Kind.SLIDE) and not captured:
        return None
    # Some exports lose the series UID; a folder is then the best there is.
    place = header.series_uid or f"{_folder(ref)}\0{header.series_number}"
    who = (header.patient_id, header.study_uid, place)
    if kind is Kind.SLIDE:
        return ("slide", *who) if header.series_uid else None
    if header.frames > 1 or header.mosaic:
        return None
    return "captures" if captured else "series", *who, modality_code(header), header.frame_of_reference


def _is_exported_slice(header: DicomHeader) -> bool:
    """Return whether a secondary capture may be a slice that a workstation wrote anew, with its place and its values.

    A CT image of 8 bits is what a screen showed: its window is gone, so it stays an image.
    """
    code = modality_code(header)
    placed = header.image_position is not None and header.image_orientation is not None
    grey = header.photometric.startswith("MONOCHROME") and header.frames == 1
    deep = header.bits_stored > 8 or code == "MR"
    is_screen = any(word in _SCREENS for word in header.image_type)
    return code in _CAPTURED and is_secondary(header) and placed and grey and deep and not is_screen


def _series(members: Sequence[_Pair], uneven: Uneven) -> list[Unit]:
    refs = {ref.name: ref for ref, _ in members}
    slices = [Slice(ref.name, facts.header, facts.sha256) for ref, facts in members if facts.header is not None]
    return [
        Unit(Kind.VOLUME, tuple(refs[item.name] for item in stack.slices), stack.problem, stack.notes)
        for stack in stacks(slices, uneven=uneven)
    ]


def _captures(members: Sequence[_Pair], uneven: Uneven) -> list[Unit]:
    """Make a volume of captures that lie evenly above one another; else each stays an image."""
    units = []
    for unit in _series(members, uneven):
        if unit.problem is None and len(unit.files) >= _LEAST_CAPTURES:
            header = members[0][1].header
            note = _CAPTURED[modality_code(header)] if header is not None else _CAPTURE
            units.append(replace(unit, notes=(note, *unit.notes)))
        else:
            units += [Unit(Kind.IMAGE, (ref,), None, (_CAPTURE,)) for ref in unit.files]
    return units


def _slide(members: Sequence[_Pair], uneven: Uneven) -> list[Unit]:
    """Order files: the largest level first, labels and overviews last."""

    def rank(pair: _Pair) -> tuple[bool, int, str]:
        ref, facts = pair
        header = facts.header or DicomHeader()
        return "VOLUME" not in header.image_type, -header.matrix_columns * header.matrix_rows, ref.name

    return [Unit(Kind.SLIDE, tuple(ref for ref, _ in sorted(members, key=rank)))]


_MAKE: Mapping[str, Callable[[Sequence[_Pair], Uneven], list[Unit]]] = {
    "series": _series,
    "captures": _captures,
    "slide": _slide,
}


def _with_parts(members: Sequence[_Pair]) -> list[Unit]:
    """Make units of single files, with the neighbours that some of them name."""
    by_name = {_place(ref, ref.path.name): (ref, facts) for ref, facts in members}
    taken: set[str] = set()
    units: list[Unit] = []
    for ref, facts in sorted(members, key=_turn):
        if not facts.parts or ref.name in taken:
            continue
        files, shared = _collect(ref, facts, by_name, taken)
        is_volume = kind_of(facts) is Kind.VOLUME
        what, whose = ("voxels", "header") if is_volume else ("signals", "record")
        notes = (f"its {what} are also those of another {whose}",) if shared else ()
        taken.update(file.name for file in files)
        units.append(Unit(kind_of(facts), tuple(files), None, notes))
    for ref, facts in members:
        if ref.name not in taken:
            problem = _ORPHAN if facts.format in _PARTS else None
            units.append(Unit(kind_of(facts), (ref,), problem, _notes(facts)))
    return units


def _turn(pair: _Pair) -> tuple[bool, bool, str]:
    """Return which header takes its parts first: one of segments (their headers belong to it), then one named alike."""
    ref, facts = pair
    segments = any(name.lower().endswith(".hea") for name in facts.parts)
    namesake = any(PurePosixPath(name).stem.casefold() == ref.path.stem.casefold() for name in facts.parts)
    return not segments, not namesake, ref.name


def _collect(
    ref: FileRef, facts: FileFacts, by_name: Mapping[str, _Pair], taken: set[str]
) -> tuple[list[FileRef], bool]:
    """List a header, then its parts and theirs; say whether some part is another header's already."""
    files, shared = [ref], False
    waiting = list(facts.parts)
    while waiting:
        partner = by_name.get(_place(ref, waiting.pop(0)))
        if partner is None or partner[0] in files:
            continue
        if partner[0].name in taken:
            shared = True
            continue
        files.append(partner[0])
        waiting = [*partner[1].parts, *waiting]
    return files, shared


def _place(ref: FileRef, name: str) -> str:
    return f"{_folder(ref)}\0{name.casefold()}"


def _notes(facts: FileFacts) -> tuple[str, ...]:
    header = facts.header
    if header is None:
        return ()
    if modality_code(header) in _SLICES and kind_of(facts) is not Kind.VOLUME:
        return (_CAPTURE,)
    return (_MOSAIC,) if header.mosaic else ()

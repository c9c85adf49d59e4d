"""Why a file is skipped after it was read: the sentences of its row."""

from __future__ import annotations

from medclip.dicom.header.codes import DEVICES, SOP_MODALITIES
from medclip.dicom.header.read import DicomHeader, modality_code
from medclip.errors import Problem, Reason
from medclip.modalities import MODALITIES
from medclip.sample import Kind, Modality, ModalitySource, spoken


def no_modality(kind: Kind = Kind.IMAGE) -> Problem:
    """Return the problem of a unit that states no modality, where none can be inferred."""
    if kind is not Kind.IMAGE:
        return Problem(
            Reason.MODALITY_UNKNOWN,
            f"the file is a {kind} and does not say of which modality; name it with --modality or in a table.",
        )
    return Problem(
        Reason.MODALITY_UNKNOWN,
        "the file does not say what modality it is, and this model cannot infer it; name it with --modality or in a "
        "table.",
    )


def no_adapter(other: str) -> Problem:
    """Return the problem of a DICOM object whose modality medclip has no name for."""
    return Problem(Reason.NO_TASK, f"the DICOM object is {other}; no task is about such images. It can be viewed.")


def not_trained(modality: Modality, kind: Kind) -> Problem:
    """Return the problem of a kind of input that the model has never been trained on."""
    return Problem(
        Reason.OTHER_INPUT,
        f"this model was not trained on {spoken(modality)} {kind}s, and the file belongs to one; choose another model "
        "with --model.",
    )


def uncertain(name: str, probability: float, least: float) -> Problem | None:
    """Return the problem of an inferred modality that is less probable than it must be."""
    if probability >= least:
        return None
    return Problem(
        Reason.MODALITY_UNCERTAIN,
        f"the image looks most like {spoken(name)} (probability {probability:.2f}; {least:.2f} is needed); "
        "name its modality with --modality or in a table.",
    )


_SAY_SO = (
    "only where you know what it is, name it with --modality or in a table: the image is not checked then, and of "
    "anything else the answers mean nothing."
)
"""How the problem of an image that is like nothing known ends: a modality that is named is believed."""
_WHO_SAYS: dict[ModalitySource | None, str] = {
    ModalitySource.HEADER: "the header says {}",
    ModalitySource.OPTION: "--modality says {}",
    ModalitySource.PACK: "the model knows {} alone",
}


def guess_problem(name: str, probability: float, least: float, *, coloured: bool) -> Problem | None:
    """Return the problem of an inferred modality: colours that do not go with it, or too little probability.

    Colour comes first: of an image that cannot be a CT nobody should read that it looks like one, however unsure; nor
    of a grey one that it looks like skin.

    Args:
        name: The likeliest modality.
        probability: Probability of that modality.
        least: Least probability that is believed.
        coloured: Whether the image shows colours.
    """
    problem = in_colour(name, ModalitySource.INFERRED) if coloured else _in_grey(name)
    return problem or uncertain(name, probability, least)


def _colour(name: str) -> bool | None:
    return MODALITIES[name].in_colour if name in MODALITIES else None


def in_colour(name: str, source: ModalitySource | None) -> Problem | None:
    """Return the problem of an image in colour that is said to be of a modality without colour.

    A header may come from the program that exported a photograph, and --modality is of a whole folder. A row of a table
    is a person's word about one file, and is believed.

    Args:
        name: The modality.
        source: Source that states the modality.
    """
    if _colour(name) is not False or (source is not ModalitySource.INFERRED and source not in _WHO_SAYS):
        return None
    if source is ModalitySource.INFERRED:
        return Problem(
            Reason.MODALITY_UNCERTAIN,
            f"the image is in colour, and of none of the kinds in colour that the model knows; {_SAY_SO}",
        )
    return Problem(
        Reason.MODALITY_UNCERTAIN,
        f"{_WHO_SAYS[source].format(spoken(name))}, but the image is in colour, and such images are grey; "
        "name its modality in a table to score it all the same.",
    )


def _in_grey(name: str) -> Problem | None:
    """Return the problem of a grey image that is taken for a modality which is never grey."""
    if not _colour(name):
        return None
    return Problem(
        Reason.MODALITY_UNCERTAIN,
        f"the image is grey, and of none of the grey kinds that the model knows; {_SAY_SO}",
    )


_NAME_IT = "name its modality in a table to score it all the same."
_PROJECTIONS = frozenset({"LOCALIZER", "SCOUT", "TOPOGRAM", "SURVIEW"})
"""Values of a CT's ImageType that say that it plans a scan: a projection, no slice."""


def header_contradiction(header: DicomHeader) -> Problem | None:
    """Return the problem of an object whose header says two things of what made it; None where it says one.

    Modalities of one device (CR, DX, MG, ...) are used for one another; an object class that fits any device, such as
    the secondary capture, contradicts none.
    """
    code, of_class = modality_code(header), SOP_MODALITIES.get(header.sop_class, "")
    device, other = DEVICES.get(code), DEVICES.get(of_class)
    if device is not None and other is not None and device != other:
        return Problem(
            Reason.MODALITY_UNCERTAIN,
            f"the header contradicts itself: its Modality is {code}, its SOP class that of {other} object; {_NAME_IT}",
        )
    words = sorted(_PROJECTIONS & {*header.image_type})
    if code == "CT" and words:
        return Problem(
            Reason.MODALITY_UNCERTAIN,
            f"the header says CT and, of its type, {words[0]}: a projection that plans a scan, not a slice; {_NAME_IT}",
        )
    return None


def capture_unlike(name: str) -> Problem:
    """Return the problem of a secondary capture that does not look like the modality its header says."""
    return Problem(
        Reason.MODALITY_UNCERTAIN,
        f"the header says {spoken(name)}, but the object is a copy of a screen, sheet or film (secondary capture) "
        f"without a slice position, and does not look like the {spoken(name)} images that the model has seen; "
        f"{_NAME_IT}",
    )


def flat() -> Problem:
    """Return the problem of an image that is drawn, a mask or a label map."""
    return Problem(
        Reason.MODALITY_UNCERTAIN,
        "the image is nothing but up to four areas of one grey value each, as a mask, a label map or a drawing is, and "
        f"no image of a patient; {_NAME_IT}",
    )


def untypical(name: str) -> Problem:
    """Return the problem of an image unlike those the model has seen."""
    modality_name = spoken(name)
    return Problem(
        Reason.MODALITY_UNCERTAIN,
        f"of the modalities that the model knows the image looks most like {modality_name}, but unlike the "
        f"{modality_name} images it has seen; {_SAY_SO}",
    )

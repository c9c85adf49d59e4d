"""Why a file is skipped after it was read: the sentences of its row."""

from __future__ import annotations

from medclip.errors import Problem, Reason
from medclip.sample import Kind, Modality, spoken


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


GREY = frozenset({Modality.XRAY, Modality.MAMMOGRAPHY, Modality.CT, Modality.MRI})
"""Modalities without colour: an image in colour is never inferred to be of one."""


def in_colour(name: str) -> Problem:
    """Return the problem of an image in colour that looks most like a modality without colour."""
    return Problem(
        Reason.MODALITY_UNCERTAIN,
        f"the image looks most like {spoken(name)}, but it is in colour, and such images are grey; "
        "name its modality with --modality or in a table.",
    )


def untypical(name: str) -> Problem:
    """Return the problem of an image unlike those the model has seen."""
    modality_name = spoken(name)
    return Problem(
        Reason.MODALITY_UNCERTAIN,
        f"of the modalities that the model knows the image looks most like {modality_name}, but unlike the "
        f"{modality_name} images it has seen; name its modality with --modality or in a table.",
    )

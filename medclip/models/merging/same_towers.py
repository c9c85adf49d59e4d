"""Whether weights can be merged at all: the same tensors by name and shape."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from medclip.errors import MedclipError, Reason


def refuse_other_tensors(
    one: Mapping[str, Tensor], other: Mapping[str, Tensor], name_of_one: str, name_of_other: str
) -> None:
    """Refuse state dicts that differ in a tensor's name or shape.

    Raises:
        MedclipError: PACK_INVALID naming the first such tensor, in the order of the first state dict.
    """
    for name in [*one, *(n for n in other if n not in one)]:
        if name in one and name in other and one[name].shape == other[name].shape:
            continue
        shapes = [str(list(state[name].shape)) if name in state else "absent" for state in (one, other)]
        raise MedclipError(
            Reason.PACK_INVALID,
            f"the towers differ: {name} is {shapes[0]} in {name_of_one} and {shapes[1]} in {name_of_other}.",
            hint="Only models that began with the same weights can be merged.",
        )

"""Refuse a pack whose config describes towers that its weights cannot fill; no torch here.

Towers are built, with random numbers, before the weights are read into them. A config that states a width of a million
would take all memory, and one of a billion layers would never end, before anybody saw that the weights do not fit.

Limits: towers that timm builds by a name have the size that timm gives them (up to some gigabytes). What is refused is
16 times off, since layers may share their weights and embeddings may be factors of narrower ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from medclip.errors import MedclipError, Reason

_MOST_LAYERS = 1000
_LAYERS = frozenset({"layers", "depth", "num_hidden_layers", "num_layers", "depths", "blocks"})
_WIDTHS = ("width", "hidden_size", "embed_dim", "dim")
_TIMES_OFF = 16
_MATRICES = 4
"""Of width x width that each layer of a transformer has at the least: queries, keys, values and their mixture."""


def check_plausible(config: Mapping[str, Any], weights_bytes: int) -> None:
    """Refuse a config whose towers have many more numbers than the weights have bytes, or layers without end.

    Args:
        config: The `model_cfg`, or the config of a text model of Hugging Face.
        weights_bytes: Size of the file of weights; int8, the smallest type, has a byte for each number.

    Raises:
        MedclipError: PACK_INVALID.
    """
    for part in _parts(config):
        layers = [int(n) for name in _LAYERS for n in _numbers(part.get(name))]
        if max(layers, default=0) > _MOST_LAYERS:
            raise _refusal(f"{max(layers):,} layers")
        widths = [int(n) for name in _WIDTHS for n in _numbers(part.get(name))]
        width, rows = max(widths, default=0), int(max(_numbers(part.get("vocab_size")), default=0))
        has_transformer = bool(layers) and not isinstance(part.get("layers"), list)
        least = max(rows * width, _MATRICES * width * width * sum(layers) if has_transformer else width)
        if least > _TIMES_OFF * weights_bytes:
            raise _refusal(f"at least {least:,} numbers")


def _parts(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield a mapping and those in it."""
    yield config
    for value in config.values():
        if isinstance(value, Mapping):
            yield from _parts(value)


def _numbers(value: Any) -> list[float]:
    values = value if isinstance(value, list | tuple) else [value]
    return [min(v, 1e18) for v in values if isinstance(v, int | float) and not isinstance(v, bool) and v > 0]


def _refusal(what: str) -> MedclipError:
    return MedclipError(
        Reason.PACK_INVALID,
        f"its config describes {what}, and its weights cannot hold them.",
        hint="Take the pack from its source again.",
    )

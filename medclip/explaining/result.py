"""What `explain` returns: one row for each unit, maps as arrays, overlays that show themselves."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.exit_codes import ExitCode
from medclip.explaining.explanation import Explanation
from medclip.result import Result, named_counts
from medclip.wording import percent

_SHOWN = 8
"""Overlays in a notebook."""
_MOSTLY = 0.5
"""Share of a map on padding from which on it is said of the whole result."""


def padding_notes(units: Iterable[Explanation]) -> tuple[str, ...]:
    """Write which maps lie mostly where there is no image, by the image that carries most of the score.

    Args:
        units: Units, explained ones and others.
    """
    return tuple(
        f"Row {unit.row}: {percent(heat.padding[heat.top])} of the map of {heat.title} lies on padding, where there is "
        "no image: it does not show what the score rests on."
        for unit in units
        for heat in unit.maps
        if heat.padding[heat.top] > _MOSTLY
    )


@dataclass(frozen=True, repr=False, eq=False)
class Explained(Result):
    """Heat maps of what scores rest on."""

    units: tuple[Explanation, ...]
    model: str
    """Name and version of the pack."""
    pack: str
    """Hash of its manifest."""
    notes: tuple[str, ...] = ()
    """What is worth knowing of what was asked, such as a prompt that was cut."""
    out: Path | None = None
    """Folder that was written."""

    def __len__(self) -> int:
        return len(self.units)

    def __iter__(self) -> Iterator[Explanation]:
        return iter(self.units)

    def __getitem__(self, index: int) -> Explanation:
        return self.units[index]

    @property
    def maps(self) -> tuple[dict[str, tuple[NDArray[np.float32], ...]], ...]:
        """For each unit the maps of each prompt, one for each image: float32 [H, W] in the image's own coordinates.

        NaN stands where the model saw nothing.
        """
        return tuple(unit.in_images() for unit in self.units)

    @property
    def counts(self) -> dict[str, int]:
        """Units by status: explained, empty, skipped, failed."""
        return dict(Counter(unit.status for unit in self.units))

    @property
    def exit_code(self) -> ExitCode:
        """0 where every unit has a map; 3 where one failed or its maps are empty."""
        bad = any(unit.status in ("failed", "empty") for unit in self.units)
        return ExitCode.SOME_FAILED if bad else ExitCode.COMPLETE

    def facts(self) -> dict[str, Any]:
        """Return all but the arrays and images, as explain.json holds it."""
        return {
            "model": self.model,
            "pack": self.pack,
            "what_it_is": "model attention evidence: no localisation, no cause, no diagnosis",
            "notes": list(self.notes),
            "counts": self.counts,
            "rows": [unit.facts() for unit in self.units],
        }

    def _facts(self) -> dict[str, object]:
        heats = [heat for unit in self.units for heat in unit.maps]
        grey = dict.fromkeys(f"{heat.name}: {heat.caution}" for heat in heats if heat.caution)
        return {
            "units": named_counts(self.counts),
            "prompts": "; ".join(dict.fromkeys(heat.title for heat in heats)) or "none",
            **({"grey": "; ".join(grey)} if grey else {}),
            "method": ", ".join(dict.fromkeys(f"{heat.method} at {heat.layer}" for heat in heats)) or "none",
            "model": self.model,
            "notes": "; ".join(self.notes) or "none",
            "out": self.out or "nothing was written",
        }

    def _rows(self, most: int | None = None) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for unit in self.units:
            shared = {"row": unit.row, "modality": unit.modality, "kind": unit.kind, "status": unit.status}
            if not unit.maps:
                nothing = dict.fromkeys(("prompt", "against", "score"))
                rows.append({**shared, **nothing, "message": unit.message, "caution": None})
            for heat in unit.maps:
                what = {"prompt": heat.name, "against": heat.against, "score": heat.score}
                rows.append({**shared, **what, "message": unit.message, "caution": heat.caution or None})
        return rows[:most]

    def _caution(self, row: Mapping[str, Any]) -> str:
        return row["caution"] or ""

    def _repr_html_(self) -> str:
        """Return the overlays before the facts."""
        images = "".join(
            f'<img style="max-width:100%" alt="Heat map of row {unit.row}" '
            f'src="data:image/png;base64,{base64.b64encode(unit.overlay).decode()}">'
            for unit in self.units[:_SHOWN]
            if unit.overlay
        )
        warning = "Model attention evidence: no localisation, no cause, no diagnosis."
        return f"{images}<p>{escape(warning)}</p>{super()._repr_html_()}"

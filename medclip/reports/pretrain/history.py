"""What the log of a run says, sorted by what a report shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medclip.wording import real


@dataclass(frozen=True)
class History:
    """The entries of a log, in order."""

    entries: Sequence[Mapping[str, Any]]

    def of(self, kind: str) -> list[Mapping[str, Any]]:
        """Return the entries of a kind: step, val, skip, bad, note or resume."""
        return [entry for entry in self.entries if entry.get("kind") == kind]

    def column(self, name: str) -> list[tuple[float, float]]:
        """Return (step, value) of each logged step that has a finite value."""
        return [(e["step"], value) for e in self.of("step") if (value := real(e.get(name))) is not None]

    def validation(self, name: str) -> list[tuple[float, float]]:
        """Return (step, value) of each validation that has a finite value."""
        return [(e["step"], value) for e in self.of("val") if (value := real(e.get(name))) is not None]

    @property
    def skipped(self) -> list[int]:
        """Steps whose loss or gradient was not finite."""
        return [e["step"] for e in self.of("skip")]

    @property
    def resumed(self) -> list[int]:
        """Steps that the run was taken up at; a run that was finished already is not taken up."""
        last = max((e["step"] for e in self.of("step")), default=0)
        return sorted({e["step"] for e in self.of("resume") if e["step"] < last})

    @property
    def bad(self) -> dict[str, int]:
        """Samples that could not be read, by reason, up to the last count."""
        counts = self.of("bad")
        return {} if not counts else {k: v for k, v in counts[-1].items() if k not in ("kind", "step")}

    @property
    def notes(self) -> list[str]:
        """What the run noted, each once."""
        return list(dict.fromkeys(str(e["note"]) for e in self.of("note")))

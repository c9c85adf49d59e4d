"""Where the time of a run over slides goes: storage, decoding, model, writing."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any


@dataclass(eq=False)
class Shares:
    """Seconds by what they were spent on, summed over all processes and threads."""

    read_s: float = 0.0
    """Reading processes without work inside a job: they wait for storage, or for a core."""
    decode_s: float = 0.0
    """Reading processes at work: decoding, resizing, finding tissue, measuring."""
    model_s: float = 0.0
    """Threads inside the model."""
    write_s: float = 0.0
    """Bringing results to the disk."""
    num_patches: int = 0
    """Patches that were read."""
    wall_s: float = 0.0
    """From the first work to the end of the last."""
    idle_s: float = 0.0
    """Of `wall_s`: no patch was inside the model."""
    _busy: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _since: float = 0.0
    _begun: float = 0.0

    def begin(self) -> None:
        """Start the clock, if it does not run."""
        if not self._begun:
            self._begun = self._since = time.perf_counter()

    def enter_model(self) -> None:
        """Count a block that is on its way into the model."""
        with self._lock:
            if not self._busy:
                self.idle_s += time.perf_counter() - self._since
            self._busy += 1

    def leave_model(self) -> None:
        """Count a block that left it."""
        with self._lock:
            self._busy -= 1
            if not self._busy:
                self._since = time.perf_counter()

    def end(self) -> None:
        """Stop the clock."""
        if self._begun:
            self.wall_s = time.perf_counter() - self._begun
            self.idle_s += time.perf_counter() - self._since if not self._busy else 0.0

    @property
    def data_wait(self) -> float:
        """Share of the time in which the model had nothing to do, 0-1."""
        return self.idle_s / self.wall_s if self.wall_s else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the shares of all seconds of work by name, and what goes with them, as plain data for JSON."""
        parts = {"read": self.read_s, "decode": self.decode_s, "model": self.model_s, "write": self.write_s}
        total = sum(parts.values()) or 1.0
        return {
            "shares": {name: round(seconds / total, 4) for name, seconds in parts.items()},
            "data_wait": round(self.data_wait, 4),
            "wall_s": round(self.wall_s, 3),
            "num_patches": self.num_patches,
            "patches_per_s": round(self.num_patches / self.wall_s, 2) if self.wall_s else None,
        }

"""Frozen settings: folders, limits and worker counts. Passed as a value; there is no global state."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path


def _config_home() -> Path:
    base = os.environ.get("MEDCLIP_HOME") or os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "medclip"


@dataclass(frozen=True)
class Settings:
    """Limits and places used by every room. Build a changed copy with `dataclasses.replace`."""

    max_pixels: int = 200_000_000
    """Refuse images with more pixels than this before anything is allocated. The largest clinical projection image
    in common use (a 14k x 14k scanned film) has 196 million."""

    max_file_bytes: int = 4 * 1024**3
    """Refuse larger files for decoding (they are still hashed and get their row)."""

    decode_timeout_s: float = 120.0
    """Seconds one file may take in a reading worker before the worker is stopped and the file fails."""

    workers: int = field(default_factory=lambda: max(1, min(os.cpu_count() or 1, 16)))
    """Reading processes."""

    home: Path = field(default_factory=_config_home)
    """Where the identity key lives. Set MEDCLIP_HOME to move it."""

"""Fixtures of these tests: a tiny pack and a small folder of studies."""

from __future__ import annotations

from tests.kits.scoring import pack, studies

__all__ = ["pack", "studies"]

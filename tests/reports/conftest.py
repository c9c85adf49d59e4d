"""Fixtures of these tests: a tiny pack and a small folder of studies."""

from __future__ import annotations

from tests.scoring.kit import pack, studies

__all__ = ["pack", "studies"]

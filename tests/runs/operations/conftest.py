"""Fixtures of these tests: a tiny pack."""

from __future__ import annotations

from tests.kits.scoring import pack

__all__ = ["pack"]

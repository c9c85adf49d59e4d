"""Runs that are stopped in this process, between two steps, as if they had been killed there."""

from __future__ import annotations

import os
from typing import Any

import pytest

from medclip.runs.ledger.ledger import Ledger


class Stopped(BaseException):
    """Stands for a stop at an arbitrary point."""


class Budget:
    """Stops a run after some steps: a commit of the ledger, or a file put in place.

    Args:
        monkeypatch: Puts the steps back at the end of the test.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.num_left = 0
        insert, replace = Ledger._insert, os.replace

        def stopping_insert(ledger: Ledger, *values: Any) -> None:
            insert(ledger, *values)
            self._spend()

        def stopping_replace(source: Any, target: Any) -> None:
            self._spend()
            replace(source, target)

        monkeypatch.setattr(Ledger, "_insert", stopping_insert)
        monkeypatch.setattr(os, "replace", stopping_replace)

    def _spend(self) -> None:
        self.num_left -= 1
        if self.num_left < 0:
            raise Stopped

"""Plan, ledger, units and rows: what every run over files shares; as `medclip.runs`, what can be done to one.

`read` returns a finished run of `medclip score` from its folder, `status` how far one is that goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from medclip.lazy import lazy_names

if TYPE_CHECKING:
    from medclip.runs.run_status import read_status as status
    from medclip.runs.score_run import read_run as read

__all__ = ["read", "status"]

__getattr__, __dir__ = lazy_names(
    __name__, {"read": "medclip.runs.score_run:read_run", "status": "medclip.runs.run_status:read_status"}
)

"""Plan, ledger, units and rows: what every run over files shares; as `medclip.runs`, what can be done to one.

`read` returns a finished run of `medclip score` from its folder, `open_embeddings` one of `medclip embed`; `status`
says how far a run is that goes on; `merge` puts the shards of a run together; `purge` removes what a run has beside its
tables.
"""

from __future__ import annotations

from medclip.lazy import lazy_names

__all__ = ["merge", "open_embeddings", "purge", "read", "status"]  # pyright: ignore[reportUnsupportedDunderAll] (they stand in __init__.pyi)

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "merge": "medclip.api.merge:merge",
        "open_embeddings": "medclip.embeddings.open_embeddings:open_embeddings",
        "purge": "medclip.runs.operations.purge:purge",
        "read": "medclip.runs.outputs.score_run:read_run",
        "status": "medclip.runs.operations.run_status:read_status",
    },
)

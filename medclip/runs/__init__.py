"""Plan, ledger, units and rows: what every run over files shares; as `medclip.runs`, what can be done to one.

`read` returns a finished run of `medclip score` from its folder, `open_embeddings` one of `medclip embed`; `status`
says how far a run is that goes on; `merge` puts the shards of a run together; `report` writes the page of one anew,
`export` its results for other systems; `purge` removes what a run has beside its tables.
"""

from __future__ import annotations

from medclip.lazy import lazy_names

__all__ = [  # they stand in __init__.pyi
    "export",
    "merge",
    "open_embeddings",
    "purge",
    "read",
    "report",
    "status",  # pyright: ignore[reportUnsupportedDunderAll]
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "export": "medclip.api.export:export",
        "merge": "medclip.api.runs:merge",
        "open_embeddings": "medclip.embeddings.open_embeddings:open_embeddings",
        "purge": "medclip.api.runs:purge",
        "read": "medclip.runs.outputs.score_run:read_run",
        "report": "medclip.api.report:report",
        "status": "medclip.api.runs:status",
    },
)

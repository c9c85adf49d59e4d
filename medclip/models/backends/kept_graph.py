"""The graph of a back-end that was named without a calibration, kept so that only its first run exports it.

Beside the graph lies what it is: its hash, the pack, the libraries. A graph whose bytes or whose facts are others is
made again; the hash is there against damage, and whoever may write into the settings' home may change both.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.errors import MedclipError
from medclip.files.output import write_file
from medclip.models.backends.known import BackendKind
from medclip.version import __version__

if TYPE_CHECKING:
    from medclip.models.model import Model

_ONLY_RUN_IT = frozenset({"onnxruntime", "openvino"})
"""Libraries that compute a graph and do not make it in float32."""


def kept_graph(model: Model, kind: BackendKind, digest: str, home: Path) -> bytes | None:
    """Return the graph that a back-end runs, from the settings' home where it lies there; None for one that runs none.

    Args:
        model: Model that was loaded from the pack; its tower is exported where there is no graph yet.
        kind: The back-end; not one whose scales are set on images.
        digest: Digest of the pack.
        home: The settings' home. Where it cannot be written to, the graph is made for this run alone.

    Raises:
        MedclipError: As `medclip.models.backends.load.make_graph`.
    """
    if not kind.runs_graph:
        return None
    folder = home / "graphs" / digest[:16]
    name = kind.name if kind.quantise else "float32"
    path, note = folder / f"{name}.onnx", folder / f"{name}.json"
    facts = _facts(kind, digest)
    graph = _read(path, note, facts)
    if graph is not None:
        return graph
    from medclip.models.backends.load import make_graph

    graph = make_graph(model, kind)
    assert graph is not None
    content = {**facts, "sha256": hashlib.sha256(graph).hexdigest(), "num_bytes": len(graph)}
    with suppress(MedclipError):  # a full disk, or a home that nobody may write to
        write_file(path, graph)
        write_file(note, json.dumps(content, indent=1) + "\n")
    return graph


def _facts(kind: BackendKind, digest: str) -> dict[str, Any]:
    libraries = {
        name: version for name, version in kind.versions().items() if kind.quantise or name not in _ONLY_RUN_IT
    }
    return {"pack": digest, "medclip": __version__, "made_with": libraries}


def _read(path: Path, note: Path, facts: dict[str, Any]) -> bytes | None:
    try:
        known = json.loads(note.read_text(encoding="utf-8"))
        if not isinstance(known, dict) or {name: known.get(name) for name in facts} != facts:
            return None
        graph = path.read_bytes()
    except (OSError, ValueError):
        return None
    return graph if hashlib.sha256(graph).hexdigest() == known.get("sha256") else None

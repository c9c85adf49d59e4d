"""Metrics of a run in the text format of Prometheus, for the textfile collector of node_exporter.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format. The file appears whole (rename),
as the collector asks. It holds numbers, names of reasons, and the name of the file itself, which is the label `run`:
the collector refuses two files that state the same metric with the same labels.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from medclip.errors import MedclipError, Reason
from medclip.files.output import claim_file, disk_errors, new_file

SUFFIX = ".prom"
"""Other files are not read by the collector."""
_MODE = 0o644
"""The collector runs as a user of its own, and there is nothing in the file that is not for it."""
_PREFIX = "medclip_run_"
_MOST_BYTES = 1 << 20
"""Read of a file that is there; ours have some kilobytes."""


@dataclass(frozen=True)
class Metric:
    """A metric with its values."""

    name: str
    """Without the prefix."""
    kind: str
    """gauge or counter."""
    help: str
    values: tuple[tuple[Mapping[str, str], float], ...]
    """Labels and value."""


def check_metrics_file(path: Path) -> None:
    """Refuse a file that cannot be written, or that others write.

    Raises:
        MedclipError: WRONG_USE; as `medclip.files.output.claim_file`.
    """
    claim_file(path, overwrite=True)
    with disk_errors(path):
        is_ours = not path.is_file() or _is_ours(path)
    if not is_ours:
        raise MedclipError(
            Reason.WRONG_USE,
            "this file holds metrics that medclip did not write; it was left as it is.",
            where=path,
            hint="Name another file, with a name of its own for each folder of results.",
        )


def _is_ours(path: Path) -> bool:
    """Return whether a file is empty or holds metrics of a run and no others."""
    with path.open("rb") as file:
        lines = file.read(_MOST_BYTES).decode(errors="replace").splitlines()
    named = (line.removeprefix("# HELP ").removeprefix("# TYPE ") for line in lines if line.strip())
    return all(name.startswith(_PREFIX) for name in named)


def write_metrics(path: Path, metrics: Iterable[Metric]) -> None:
    """Write metrics; readable for all.

    Raises:
        MedclipError: As `medclip.files.output.disk_errors`.
    """
    text = metrics_text(metrics, run=path.stem)
    with new_file(path) as draft:
        draft.write_text(text, encoding="utf-8")
    with suppress(OSError):  # file systems without modes
        os.chmod(path, _MODE)


def metrics_text(metrics: Iterable[Metric], run: str) -> str:
    """Return metrics as text; `run` becomes a label of each value."""
    lines = []
    for metric in metrics:
        name = f"{_PREFIX}{metric.name}"
        lines += [f"# HELP {name} {_escaped(metric.help)}", f"# TYPE {name} {metric.kind}"]
        for labels, value in metric.values:
            pairs = ",".join(f'{key}="{_quoted(text)}"' for key, text in {"run": run, **labels}.items())
            lines.append(f"{name}{{{pairs}}} {value:.15g}")
    return "".join(f"{line}\n" for line in lines)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _quoted(text: str) -> str:
    return _escaped(text).replace('"', '\\"')

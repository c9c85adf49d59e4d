"""The folder of a comparison: one small file for each run, so that one that was stopped goes on where it was.

Runs are kept by what they are (method, shots, seeds), not by what was asked for: asking for more methods, shots or
seeds in the same folder computes those only, and tables and page are written anew from the files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.evaluation.few_shot.plan import RunKey
from medclip.files.output import claim_run, write_file

IDENTITY = "run.json"
COMPARISON = "comparison"
"""What the folder holds, in sentences."""
_RUNS = "runs"


@dataclass(frozen=True, eq=False)
class Run:
    """What one run left: predictions, and facts that JSON can hold."""

    logits_NC: NDArray[np.float32] | None
    """float32 [N, C] over the test images; None where the method failed."""
    novel_NC: NDArray[np.float32] | None
    """For runs from base to novel classes: over test images of the novel classes; `logits_NC` is over the base ones."""
    facts: Mapping[str, Any]

    @property
    def failed(self) -> bool:
        """Whether the method gave its reason instead of predictions."""
        return self.logits_NC is None


class RunStore:
    """Runs of one base pack on one data set.

    Args:
        folder: Folder of the runs; made if it is not there.
        identity: Identity of the runs (base, data, division). A folder of something else is refused.

    Raises:
        MedclipError: OUTPUT_IN_USE for a folder that holds anything else; as `medclip.files.output.disk_errors`.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self.folder = folder
        claim_run(folder, COMPARISON, identity, IDENTITY)

    def kept(self, key: RunKey, asked: str) -> Run | None:
        """Return a run that is done; None where it is not, was asked for otherwise, or failed (it is tried again).

        Args:
            key: Key of the run.
            asked: Fingerprint of what the run is made of beyond its key: the shots that were drawn.
        """
        run = self._read(key)
        return run if run is not None and run.facts.get("asked") == asked and not run.failed else None

    def _read(self, key: RunKey) -> Run | None:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.folder / _RUNS / key.file, framework="numpy") as f:
                facts = json.loads((f.metadata() or {}).get("facts", "{}"))
                tensors = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118 - not a mapping
        except (OSError, SafetensorError, ValueError):
            return None
        return Run(tensors.get("logits"), tensors.get("novel"), facts)

    def keep(self, key: RunKey, run: Run) -> Run:
        """Store a run in one step, and give it back as it will be read."""
        from safetensors.numpy import save

        arrays = {"logits": run.logits_NC, "novel": run.novel_NC}
        tensors = {n: np.ascontiguousarray(a, np.float32) for n, a in arrays.items() if a is not None}
        facts = json.dumps(dict(run.facts), sort_keys=True, default=_plain)
        write_file(self.folder / _RUNS / key.file, save(tensors or {"none": np.zeros(1, np.float32)}, {"facts": facts}))
        return Run(tensors.get("logits"), tensors.get("novel"), json.loads(facts))


def _plain(value: Any) -> Any:
    """Write numbers of numpy as numbers, and anything else as text."""
    return value.item() if isinstance(value, np.generic) else str(value)

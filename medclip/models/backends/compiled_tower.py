"""A tower that torch compiles to code of this processor or card (AOTInductor): exported once, with a free batch.

It is compiled ahead of time and not as it runs: what runs has no guards that could send a batch another way, so that a
vector does not depend on which thread or which batch came first. Compiling medclip-mini takes 30 s of processor time,
which each run pays anew; its images then take 5.3 ms in the place of 13.6 (one thread of an AMD EPYC). Nothing compiled
is kept or taken from a cache: machine code that lies in a shared folder is code that anybody may have put there.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from medclip.errors import MedclipError, Reason
from medclip.files.temporary_folder import TemporaryFolder
from medclip.models.backends.quiet import quiet
from medclip.models.devices import torch_threads


class CompiledTower:
    """Runs a tower that was compiled.

    Args:
        tower: Tower in eval mode; its weights have one dtype and lie on one device.
        example: Input of the tower, [B, ...] with B > 1, of that dtype and on that device.
        num_threads: Batches that may be computed at once, each with one thread.

    Raises:
        MedclipError: PACK_INVALID where the tower cannot be exported or compiled.
    """

    def __init__(self, tower: nn.Module, example: Tensor, num_threads: int) -> None:
        try:
            with torch_threads(1), torch.no_grad(), quiet():
                self._run = _compile(tower, example.contiguous(), num_threads)
        except Exception as e:  # exporter, inductor and compiler have errors of many classes, some of them private
            raise MedclipError(
                Reason.PACK_INVALID,
                f"this image tower cannot be compiled ({type(e).__name__}).",
                hint="Use another back-end.",
            ) from e

    def __call__(self, batch: Tensor) -> Tensor:
        """Compute features [B, D] of a batch [B, ...], both of the dtype of the example."""
        return self._run(batch.contiguous())


def _compile(tower: nn.Module, example: Tensor, num_runners: int) -> Any:
    from torch._inductor import aoti_compile_and_package
    from torch._inductor.package.package import load_package
    from torch._inductor.utils import fresh_cache

    batch = torch.export.Dim("batch", min=1, max=4096)
    program = torch.export.export(tower, (example,), dynamic_shapes=({0: batch},))
    with TemporaryFolder("compile") as folder, fresh_cache(dir=str(folder)):
        package = str(folder / "tower.pt2")
        aoti_compile_and_package(program, package_path=package, inductor_configs=_SETTINGS)
        card = -1 if example.device.index is None else example.device.index
        return load_package(package, num_runners=num_runners, device_index=card)  # maps the code; the files may go then


_SETTINGS = {
    "cpp.threads": 1,  # of a batch; a run computes several batches at once
    "compile_threads": 1,  # no helpers that would outlive a run that is killed
    "freezing": True,  # weights are constants: normalisations fold into convolutions
}

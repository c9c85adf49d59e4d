"""torchvision is imported without torch's compiler, and both work as ever afterwards."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys
from medclip.models.towers.quick_towers import import_torchvision
import_torchvision()
assert "torchvision" in sys.modules
assert "torch._dynamo" not in sys.modules and "torch._dynamo.utils" not in sys.modules
import torch, torchvision.ops
boxes = torchvision.ops.roi_align(torch.ones(1, 1, 8, 8), torch.tensor([[0, 0, 0, 4, 4.0]]), 2)
assert boxes.tolist() == [[[[1, 1], [1, 1]]]]
import torch._dynamo.utils
assert torch._dynamo.utils.__file__
asked = torchvision.ops.roi_align.__globals__["is_compile_supported"]
assert asked("cpu") == torch._dynamo.utils.is_compile_supported("cpu")
assert torch.compile(lambda x: x + 1, backend="eager")(torch.ones(2)).tolist() == [2, 2]
"""
FAILS = """
import sys, types
from medclip.models.towers import quick_towers
quick_towers.ModuleType = lambda name: type("Other", (types.ModuleType,), {"__setattr__": lambda *a: None})(name)
quick_towers.import_torchvision()
import torchvision.ops, torch._dynamo.utils
assert torch._dynamo.utils.__file__
"""


@pytest.mark.slow
@pytest.mark.parametrize("program", [PROGRAM, FAILS])
def test_the_compiler_is_left_for_whoever_asks(program: str):
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr

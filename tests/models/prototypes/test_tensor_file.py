"""Small files of tensors: their bytes depend on the content alone, and the library reads them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file

from medclip.models.prototypes.tensor_file import save_tensors


def test_equal_content_gives_equal_bytes_that_the_library_reads(tmp_path: Path) -> None:
    tensors = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.array(0.1)}
    about = {name: f"{name} ä" for name in "hgfedcba"}
    for n, texts in enumerate((about, dict(sorted(about.items())))):
        save_tensors(tmp_path / str(n), tensors, texts)
    assert (tmp_path / "0").read_bytes() == (tmp_path / "1").read_bytes()
    read = load_file(tmp_path / "0")
    assert read.keys() == tensors.keys()
    assert all(np.array_equal(read[name], values) for name, values in tensors.items())
    with safe_open(tmp_path / "0", "np") as file:
        assert file.metadata() == about
    data = (tmp_path / "0").read_bytes()
    size = int.from_bytes(data[:8], "little")
    assert list(json.loads(data[8 : 8 + size])["__metadata__"]) == sorted(about)
    assert size % 8 == 0

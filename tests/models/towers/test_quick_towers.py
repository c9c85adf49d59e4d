"""A model loads without the towers and text models it is not made of, and both libraries work as ever afterwards."""

from __future__ import annotations

import subprocess
import sys

import pytest

LOADED = """
import sys, medclip
model = medclip.models.load("medclip-mini")
assert model.encode_text(["a chest x-ray"]).shape == (1, 256)
assert not {"transformers", "torch._dynamo", "sympy"} & set(sys.modules)
families = [name for name in sys.modules if name.startswith("timm.models.") and "._" not in name]
assert len(families) < 10, families
"""
AFTERWARDS = """
import timm, open_clip, open_clip.model
assert timm.is_model("resnet18") and not timm.is_model("resnet_of_nobody")
assert "timm.models.beit" in sys.modules  # all towers were asked for a name that none of them has
assert {"beit_base_patch16_224", "tf_efficientnet_lite0"} <= set(timm.list_models())
assert timm.models.create_model("resnet10t", num_classes=2).num_classes == 2
assert timm.create_model.__name__ == "create_model"
model, _, _ = open_clip.create_model_and_transforms("RN50", pretrained=None)
assert type(model) is open_clip.model.CLIP
"""
TEXT_MODEL = """
import json, sys, tempfile, torch
from pathlib import Path
from medclip.models.towers.quick_towers import import_towers
import_towers()
from medclip.models.towers.bert import bert_text_cfg
from medclip.models.towers.build import build_clip
assert "transformers" not in sys.modules
folder = Path(tempfile.mkdtemp())
sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
(folder / "config.json").write_text(json.dumps({"model_type": "bert", "vocab_size": 100, **sizes}))
vision = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
for pooling in ("mean", "eos"):
    text = bert_text_cfg(pooling=pooling, context_length=8)
    clip = build_clip({"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}, folder)
    assert clip.encode_text(torch.ones(2, 8, dtype=torch.long)).shape == (2, 16)
    import open_clip.hf_model
    assert type(clip.text) is open_clip.hf_model.HFTextEncoder
"""
OTHER_VERSION = """
import sys, medclip
from medclip.models.towers import quick_towers
def fails(*arguments):
    raise ImportError
quick_towers.defer_module = fails
model = medclip.models.load("medclip-mini")
assert "timm.models.beit" in sys.modules and "open_clip.factory" in sys.modules
"""


@pytest.mark.slow
@pytest.mark.parametrize("program", [LOADED + AFTERWARDS, TEXT_MODEL, OTHER_VERSION])
def test_only_what_a_model_is_made_of_is_imported(program: str) -> None:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr

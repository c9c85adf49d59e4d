"""A BERT alone, as it is downloaded, becomes the text folder that a run starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from medclip.api.models import import_model
from medclip.errors import MedclipError, Reason
from medclip.models.interchange.load_start import load_start
from tests.kits.layouts import BPE_TEXT, VIT, add_architecture, bert_folder, bert_text, plain_state, random_model


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    return bert_folder(tmp_path / "bert")


def weights(bert: Path, prefix: str = "") -> dict[str, Tensor]:
    model: Any = random_model({"embed_dim": 16, "vision_cfg": VIT, "text_cfg": bert_text(bert)}, seed=5)
    return {prefix + k: v for k, v in plain_state(model.text.transformer).items()}


def refusal(source: Path, out: Path, **options: Any) -> MedclipError:
    with pytest.raises(MedclipError) as caught:
        import_model(source, out, **options)
    return caught.value


@pytest.mark.parametrize("prefix", ["", "bert."])
@pytest.mark.parametrize("file", ["pytorch_model.bin", "model.safetensors"])
def test_a_run_starts_from_the_folder_it_becomes(bert: Path, tmp_path: Path, prefix: str, file: str) -> None:
    state = weights(bert, prefix)
    if file.endswith(".bin"):
        torch.save(state, bert / file)
    else:
        save_file(state, bert / file)
    made = import_model(bert, tmp_path / "weights" / "text")
    names = ["config.json", "model.safetensors", "tokenizer_config.json", "vocab.txt"]
    assert sorted(p.name for p in made.iterdir()) == names
    assert all(torch.equal(v, load_file(made / "model.safetensors")[k]) for k, v in state.items())
    name = add_architecture(
        tmp_path / "configs", "tiny-ViT", {"embed_dim": 16, "vision_cfg": VIT, "text_cfg": BPE_TEXT}
    )
    started: Any = load_start(name, text_folder=made)
    own = started.model.text.transformer.state_dict()
    assert all(torch.equal(own[k.removeprefix(prefix)], v) for k, v in state.items())


def test_it_is_no_pack_and_no_model_to_start_from(bert: Path, tmp_path: Path) -> None:
    torch.save(weights(bert), bert / "pytorch_model.bin")
    assert refusal(bert, tmp_path / "out", license="MIT").reason is Reason.WRONG_USE
    with pytest.raises(MedclipError, match="text model alone") as caught:
        load_start(bert)
    assert caught.value.reason is Reason.WRONG_USE
    assert "model.text_folder" in caught.value.hint


def test_an_older_text_folder_stays_unless_asked(bert: Path, tmp_path: Path) -> None:
    torch.save(weights(bert), bert / "pytorch_model.bin")
    import_model(bert, tmp_path / "out")
    assert "holds a text model already" in str(refusal(bert, tmp_path / "out"))
    import_model(bert, tmp_path / "out", overwrite=True)
    assert "source lies here" in str(refusal(bert, bert, overwrite=True))
    assert (bert / "pytorch_model.bin").is_file()


def test_weights_that_do_not_belong_to_it_are_refused_and_leave_nothing(bert: Path, tmp_path: Path) -> None:
    other = bert_folder(tmp_path / "other", hidden=16)
    file = bert / "pytorch_model.bin"
    torch.save(weights(other), file)
    refused = refusal(bert, tmp_path / "out")
    assert (refused.reason, refused.where) == (Reason.PACK_INVALID, str(file))
    state = weights(bert)
    state["embeddings.word_embeddings.weight"][3, 3] = float("nan")
    torch.save(state, file)
    refused = refusal(bert, tmp_path / "out")
    assert (refused.reason, refused.where) == (Reason.NON_FINITE, str(file))
    file.unlink()
    assert refusal(bert, tmp_path / "out").reason is Reason.MISSING_FILE
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bert", "other"]

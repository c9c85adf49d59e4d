from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medclip.errors import MedclipError, Reason
from medclip.pairs.selection.patches import prompts_for
from medclip.pairs.words.agent import CaptionedPatch, caption_patch
from medclip.pairs.words.asking_agents import LocalAgent
from medclip.pairs.words.patch_caption_check import Room

PATCH = CaptionedPatch(np.full((40, 40, 3), 120, np.uint8), 0.5, prompts_for("colon"))
ROOM = Room(77, lambda text: len(text.split()))


@pytest.fixture(scope="module")
def vlm(tmp_path_factory) -> Path:
    """A LLaVA with random weights: a CLIP tower of one layer, a Llama of one layer, a byte-pair tokenizer."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )

    folder = tmp_path_factory.mktemp("vlm")
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>", "<image>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    backend.train_from_iterator(["round nuclei in rows of glands"], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        extra_special_tokens={"image_token": "<image>"},
    )
    images = CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    LlavaProcessor(
        images,
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        image_token="<image>",
        num_additional_image_tokens=1,
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=28,
            patch_size=14,
            projection_dim=16,
        ),
        text_config=LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            max_position_embeddings=1024,
        ),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    return folder


def test_a_model_in_a_folder_writes_a_caption_the_same_every_time(vlm):
    agent = LocalAgent(vlm, most_tokens=8)
    first, again = (caption_patch(agent, PATCH, ROOM) for _ in range(2))
    assert first.draft
    assert (first.draft, first.caption) == (again.draft, again.caption)
    assert first.usage.calls == 3
    assert first.usage.prompt_tokens > 100
    assert 3 <= first.usage.completion_tokens <= 24


def test_the_image_is_looked_at(vlm):
    import torch
    from PIL import Image

    agent = LocalAgent(vlm)
    processor, model = agent._loaded
    prompt = agent._prompt(processor, "What?", True)
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)
    with torch.inference_mode():
        first, other = (
            model(**processor(text=[prompt], images=[Image.fromarray(pixels)], return_tensors="pt")).logits
            for pixels in (PATCH.pixels, noise)
        )
    assert not torch.equal(first, other)
    assert agent.ask("What?", PATCH).usage.prompt_tokens > agent.ask("What?").usage.prompt_tokens


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(MedclipError, match="no model of transformers here") as error:
        LocalAgent(tmp_path).describe(PATCH)
    assert error.value.reason is Reason.MISSING_FILE
    (tmp_path / "config.json").write_text('{"model_type": "nothing"}')
    with pytest.raises(MedclipError) as error:
        LocalAgent(tmp_path).describe(PATCH)
    assert error.value.reason is Reason.PACK_INVALID

"""An agent on this machine: a vision-language model of transformers from a folder, without a network."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

from medclip.captioning.agents.agent import AgentRefused, Answer, CaptionedPatch, Room, Usage
from medclip.captioning.agents.requests import VERSION, AskingAgent, summarise_request
from medclip.errors import MedclipError, Reason
from medclip.files.output import digest_of


@dataclass(frozen=True)
class LocalAgent(AskingAgent):
    """Asks a model that lies in a folder, as the hub lays it out: weights as safetensors, a processor, a tokenizer."""

    folder: Path
    device: str = "cpu"
    most_tokens: int = 200
    name: str = "local"
    at_once: int = 1

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        transformers: Any = import_module("transformers")  # its types take a type checker a minute

        if not (self.folder / "config.json").is_file():
            raise MedclipError(
                Reason.MISSING_FILE,
                "there is no model of transformers here (no config.json).",
                where=self.folder,
                hint="Name the folder that holds a vision-language model as the hub lays it out.",
            )
        try:
            processor = transformers.AutoProcessor.from_pretrained(self.folder, local_files_only=True)
            model: Any = transformers.AutoModelForImageTextToText.from_pretrained(
                self.folder, local_files_only=True, use_safetensors=True
            )
        except (OSError, ValueError, KeyError, ImportError) as e:
            raise MedclipError(
                Reason.PACK_INVALID,
                f"this folder holds no vision-language model that transformers can load ({type(e).__name__}).",
                where=self.folder,
                hint="It needs weights as safetensors, a processor and a tokenizer.",
            ) from e
        return processor, model.to(self.device).eval()

    @property
    def identity(self) -> Mapping[str, Any]:
        """The model's files by name and size, and the wording of the requests."""
        files = sorted((p.name, p.stat().st_size) for p in self.folder.iterdir() if p.is_file())
        return {"agent": self.name, "model": digest_of(files), "most_tokens": self.most_tokens, "requests": VERSION}

    def summarise(self, text: str, room: Room) -> Answer:
        """Ask for a caption, of the text alone."""
        return self._ask(summarise_request(text, room.most))

    def _ask(self, request: str, patch: CaptionedPatch | None = None) -> Answer:
        import torch
        from PIL import Image

        processor, model = self._loaded
        started = time.monotonic()
        images = None if patch is None else [Image.fromarray(patch.pixels)]
        try:
            inputs = processor(
                text=[self._prompt(processor, request, patch is not None)], images=images, return_tensors="pt"
            )
            inputs = inputs.to(self.device)
            with torch.inference_mode():
                ids = model.generate(**inputs, max_new_tokens=self.most_tokens, do_sample=False)
        except (ValueError, IndexError, RuntimeError) as e:
            raise AgentRefused(f"the model failed ({type(e).__name__})") from e
        prompt_tokens = int(inputs["input_ids"].shape[1])
        new = ids[0, prompt_tokens:]
        text = processor.batch_decode([new], skip_special_tokens=True)[0]
        return Answer(text, Usage(1, prompt_tokens, len(new), time.monotonic() - started))

    def _prompt(self, processor: Any, request: str, has_image: bool) -> str:
        if getattr(processor, "chat_template", None):
            content: list[dict[str, str]] = [{"type": "image"}] if has_image else []
            message = {"role": "user", "content": [*content, {"type": "text", "text": request}]}
            return processor.apply_chat_template([message], add_generation_prompt=True)
        image = f"{getattr(processor, 'image_token', '<image>')}\n" if has_image else ""
        return f"USER: {image}{request} ASSISTANT:"

"""What a user would write today: pydicom + PIL + open_clip, one file at a time, the text encoded once.

Usage: python naive_script.py FOLDER PACK OUT.json
       python naive_script.py --one-file FILM

It opens the same model pack with open_clip's `local-dir:` and treats pixels as the pack was trained to see them (crop
of dark borders, letterbox), so that its scores can be compared with medclip's; a pack with a fitted head is asked by
that. It keeps no record, survives no bad file and writes no report.

`--one-file` scores nothing itself: it prints what waiting for one film costs, `medclip score FILM` beside
`python -c 'import torch'`, whole processes in turn, medians of five.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

start = time.perf_counter()
import numpy as np  # noqa: E402
import open_clip  # noqa: E402
import pydicom  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402
from pydicom.pixels import apply_modality_lut, apply_voi_lut  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from medclip.imaging.crop.dark_borders import crop_dark_borders  # noqa: E402
from medclip.imaging.geometry import letterbox  # noqa: E402
from medclip.text.vocabulary.load import load_task  # noqa: E402
from medclip.text.vocabulary.prompts import expand  # noqa: E402

TASK = "chest_xray_findings"
ROUNDS = 5


def pixels(path: Path) -> np.ndarray:
    """Grey uint8 [H, W, 1] of one file."""
    if path.suffix == ".dcm":
        ds = pydicom.dcmread(path)
        array = apply_voi_lut(apply_modality_lut(ds.pixel_array, ds), ds).astype(np.float32)
        array = np.rint(array / (2**ds.BitsStored - 1) * 255).astype(np.uint8)
        if ds.PhotometricInterpretation == "MONOCHROME1":
            array = 255 - array
    else:
        array = np.asarray(Image.open(path).convert("L"))
    return array[:, :, None]


def text_answers(model: Any, tokenizer: Any, card: dict[str, Any]) -> Any:
    """Return what answers the task by its prompts: from a feature to a probability for each class."""
    task_card = card["tasks"][TASK]
    calibration = task_card["calibration"] or {"scale": {}, "bias": {}}
    vectors = {}
    with torch.inference_mode():
        for c in expand(load_task(TASK), task_card["classes"]):
            sides = [model.encode_text(tokenizer(list(p)), normalize=True).mean(0) for p in (c.positive, c.negative)]
            vectors[c.name] = [v / v.norm() for v in sides]
        scale = model.logit_scale.exp()

    def answer(feature: torch.Tensor) -> dict[str, float]:
        probabilities = {}
        for c, (plus, minus) in vectors.items():
            logit = scale * (feature @ plus - feature @ minus)
            logit = logit * calibration["scale"].get(c, 1.0) + calibration["bias"].get(c, 0.0)
            probabilities[c] = float(torch.sigmoid(logit))
        return probabilities

    return answer


def head_answers(pack: str, card: dict[str, Any]) -> Any:
    """Return what answers the task of a pack's own linear head, one class of several."""
    head = load_file(Path(pack) / "adapted.safetensors")
    classes = card["tasks"][card["adapted"]["task"]]["classes"]

    def answer(feature: torch.Tensor) -> dict[str, float]:
        return dict(zip(classes, (feature @ head["weight"] + head["bias"]).softmax(0).tolist(), strict=True))

    return answer


def main(folder: str, pack: str, out: str) -> None:
    """Score every file of a folder and print how long it took."""
    name = f"local-dir:{pack}"
    model: Any
    model, _, preprocess = open_clip.create_model_and_transforms(name)
    tokenizer = open_clip.get_tokenizer(name)
    normalise = preprocess.transforms[-1]
    size = model.visual.image_size[0]
    model.eval()
    card = json.loads((Path(pack) / "card.json").read_text())
    answer = head_answers(pack, card) if card.get("adapted") else text_answers(model, tokenizer, card)
    loaded = time.perf_counter()

    scores = {}
    with torch.inference_mode():
        for path in sorted(Path(folder).iterdir()):
            square = letterbox(crop_dark_borders(pixels(path), (0, 255))[0], size)
            image = normalise(torch.from_numpy(square).permute(2, 0, 1).float() / 255)[None]
            scores[path.name] = answer(model.encode_image(image, normalize=True)[0])
    done = time.perf_counter()
    Path(out).write_text(json.dumps(scores))
    print(json.dumps({"start_s": loaded - start, "score_s": done - loaded, "whole_s": done - start}))


def one_file(film: str) -> None:
    """Print seconds, by the clock and of the processor, of scoring one film and of importing torch."""
    seconds: dict[str, list[tuple[float, float]]] = {"medclip score": [], "import torch": []}
    with tempfile.TemporaryDirectory() as work:
        for number in range(ROUNDS):
            score = ["-m", "medclip.cli.main", "score", film, "--modality", "xray", "--out", f"{work}/{number}"]
            for name, rest in (("medclip score", score), ("import torch", ["-c", "import torch"])):
                began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
                subprocess.run([sys.executable, *rest], capture_output=True, check=True)
                wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
                cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
                seconds[name].append((wall, cpu))
    medians = {name: [statistics.median(side) for side in zip(*pairs, strict=True)] for name, pairs in seconds.items()}
    for name, (wall, cpu) in medians.items():
        print(f"{name}: {wall:.1f} s by the clock, {cpu:.1f} s of the processor")
    ratios = [ours / torchs for ours, torchs in zip(medians["medclip score"], medians["import torch"], strict=True)]
    print(f"one file: {ratios[0]:.2f} times the import of torch by the clock, {ratios[1]:.2f} times of the processor")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one-file"]:
        one_file(*sys.argv[2:])
    else:
        main(*sys.argv[1:])

# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Find, ask again, and see where the model looked
#
# **The question.** Somebody looks for films with a device in a folder that nobody has sorted. Can they be found by
# words or by example, and does a model that was taught to see the device look at the device?
#
# **The data.** The example studies of this repository, and 48 chest films that are drawn by code, half of them with a
# small box, of which the place is known.
#
# **The answer** is counted: how many of the first eight, and in how many films the peak of the map lies on the box. For
# research; not a medical device.
#
# Run it from the root of the repository. Its steps: embed a folder once, find, ask again without reading an image,
# adapt from the same vectors, look at the maps, and turn a checkpoint of another library into a pack.

# %%
import csv
import json
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from open_clip.model import CLIP
from PIL import ImageDraw
from safetensors.torch import save_file

import medclip
from examples.make_films import film

root = Path(tempfile.mkdtemp())
images = root / "images"
shutil.copytree("examples/studies", images)
rng = np.random.default_rng(0)

# %% [markdown]
# ## Films with and without a device
#
# 48 people have one drawn chest film each. Half of the films show a small bright box with a lead; its place differs.

# %%
rows = []
for person in range(48):
    drawn, box = film(rng, haze=float(rng.uniform(0, 0.3))), None
    if person % 2:
        x, y = (int(v) for v in rng.integers(25, 105, 2))
        box = (x, y, x + 30, y + 22)
        draw = ImageDraw.Draw(drawn)
        draw.rounded_rectangle(box, 6, fill=255)
        draw.line((x + 15, y + 20, 80, 90), fill=240, width=3)
    file = f"film{person:02}.png"
    drawn.save(images / file)
    rows.append({
        "file": file, "patient": f"P{person}", "modality": "xray", "content": "device" if box else "no device",
        "split": "train" if person < 32 else "test", "box": json.dumps(box),
    })  # fmt: skip
table = root / "films.csv"
with table.open("w", newline="") as f:
    writer = csv.DictWriter(f, rows[0])
    writer.writeheader()
    writer.writerows(rows)

# %% [markdown]
# ## Embed once
#
# One row for each file, whether it can be read or not; one vector for each view, unit and study. The folder is personal
# data, as the images are.

# %%
embeddings = medclip.embed(images, root / "embedded", table=table)
embeddings

# %% [markdown]
# ## Find
#
# By words, by example, or both. A cosine says which study is nearest, not whether it shows what was asked for: the
# column beside it says how far it stands out from this folder.

# %%
medclip.search(embeddings, "a fundus photograph of the retina", top=3)

# %%
medclip.search(embeddings, ["a chest x-ray", "a radiograph of the chest"], not_="an image of the brain", top=5)

# %%
by_example = medclip.search(embeddings, like=images / "film01.png", where="modality=xray", top=8)
by_example

# %% [markdown]
# How many of the eight show a device, as the film that was asked with does? Half would be chance.

# %%
content = {row["file"]: row["content"] for row in rows}
names = dict(zip(embeddings.files["row"].to_pylist(), embeddings.files["path"].to_pylist(), strict=True))
print([content.get(names[row], "other") for row in by_example.to_pandas()["row"]])

# %% [markdown]
# ## Ask again
#
# A new question reads no image.

# %%
model = medclip.models.load("medclip-mini")
start = time.perf_counter()
answers = medclip.score(embeddings, prompt="pleural effusion | fluid in the pleural space", model=model)
print(f"{len(answers.scores)} studies in {time.perf_counter() - start:.2f} s")
answers

# %% [markdown]
# ## Adapt from the same vectors
#
# Films of 32 people to learn from, of 16 others to test with.

# %%
adapted = medclip.adapt(
    table, label="content", patient="patient", images=root / "embedded", out=root / "device", method="linear-probe"
)
adapted

# %% [markdown]
# ## See where it looked
#
# The map shows what moved the score of the adapted pack. On drawn films we know the answer: the device is in the box. A
# map cannot show why, and it is no localisation. The checks, left out here for time, say whether it depends on the
# weights at all.

# %%
tested = [row for row in rows if row["split"] == "test" and row["content"] == "device"]
maps = medclip.explain(
    [images / row["file"] for row in tested],
    task="content:device",
    model=root / "device",
    modality="xray",
    checks=False,
)
maps

# %%
hits = 0
for row, explained in zip(tested, maps.maps, strict=True):
    heat = next(iter(explained.values()))[0]
    y, x = np.unravel_index(np.nanargmax(heat), heat.shape)
    left, top, right, bottom = json.loads(row["box"])
    hits += left - 13 <= x <= right + 13 and top - 13 <= y <= bottom + 13
print(f"the peak lies on the device, or half a place of the grid beside it, in {hits} of {len(tested)} films")

# %% [markdown]
# ## Bring your own checkpoint
#
# A checkpoint in a known layout becomes a pack: here one as open_clip has it, tiny and with random weights. Its own
# file says that its authors cut out the middle, and with which mean and deviation they normalise; the pack keeps to it.

# %%
towers = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 64, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
pixels = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "resize_mode": "shortest"}
checkpoint = root / "checkpoint"
checkpoint.mkdir()
(checkpoint / "open_clip_config.json").write_text(json.dumps({"model_cfg": towers, "preprocess_cfg": pixels}))
save_file(CLIP(**towers).state_dict(), checkpoint / "open_clip_model.safetensors")

pack = medclip.models.import_(checkpoint, root / "imported", name="tiny-clip", modalities=["xray"])
imported = medclip.models.load(pack)
imported

# %% [markdown]
# Images and texts can be compared by hand, too: these are the cosines of two films with two sentences. (Random weights
# know nothing.)

# %%
imported.similarity([images / "film00.png", images / "film01.png"], ["a device", "no device"])

# %% [markdown]
# ## What this does not show
#
# - That words find anything in your folder: the built-in model knows few of them. Look at how far a hit stands out from
#   the rest, not at its place in the list.
# - That maps localise. The box is the brightest thing on a drawn film; a lesion is not. Run the checks (`checks=True`)
#   before you believe a map ([heat maps](../docs/how-to/heat_maps.md)).
# - Anything of real devices: no film here has one.

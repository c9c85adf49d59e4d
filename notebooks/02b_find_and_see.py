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
# **The question.** A breast clinic has a folder of images that nobody has sorted. Can ultrasound images be found in it
# by words, and among them malignant masses, by words or by example? And a model that was taught to tell malignant from
# benign: does it look at the mass?
#
# **The data.** All real: breast ultrasound of 59 women, 18 of them with a malignant mass, with the box in which the
# mass lies (BrEaST; Pawlowska et al., Scientific Data 2024, CC BY 4.0), and the example studies of this repository
# (`examples/sources.csv`). The built-in model was trained on none of these patients.
#
# **The answer** is counted, beside what chance would give, with intervals over women. For research; not a medical
# device.
#
# Run it from the root of the repository. It takes a minute. Its steps: embed a folder once, find, ask again without
# reading an image, adapt from the same vectors, look at the maps, and turn a checkpoint of another library into a pack.

# %%
import json
import shutil
import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from open_clip.model import CLIP
from PIL import Image
from safetensors.torch import save_file

import medclip
from medclip.statistics.metrics.classification import measured
from medclip.statistics.resampling.resampled import interval_of

root = Path(tempfile.mkdtemp())
images = root / "images"
one_of_them = shutil.ignore_patterns("breast_ultrasound.jpg")  # the same woman is among the 59
shutil.copytree("examples/studies", images, ignore=one_of_them)
shutil.copytree("examples/ultrasound", images / "ultrasound", ignore=shutil.ignore_patterns("*.csv"))

women = pd.read_csv("examples/ultrasound/labels.csv").rename(columns={"outcome": "content"})
women["file"] = "ultrasound/" + women.file
table = root / "women.csv"
women.to_csv(table, index=False)
outcome = dict(zip(women.file, women.content, strict=True))
print(len(women), "women;", women.content.value_counts().to_dict())

# %% [markdown]
# ## Embed once
#
# One row for each file, whether it can be read or not; one vector for each view, unit and study. The folder is personal
# data, as the images are.

# %%
model = medclip.models.load()
print(model.card.name, model.card.version, "was trained on:", ", ".join(model.card.modalities))
embeddings = medclip.embed(images, root / "embedded", table=table, model=model)
embeddings

# %% [markdown]
# ## Find by words
#
# A cosine says which study is nearest, not whether it shows what was asked for: the column beside it says how far it
# stands out from this folder.

# %%
medclip.search(embeddings, "a fundus photograph of the retina", num_hits=3, model=model)

# %% [markdown]
# How many of the first 59 are breast ultrasound?

# %%
names = dict(zip(embeddings.files["row"].to_pylist(), embeddings.files["path"].to_pylist(), strict=True))
hits = medclip.search(embeddings, "an ultrasound image of the breast", num_hits=len(women), level="unit", model=model)
right = sum(names[row] in outcome for row in hits.to_pandas()["row"])
share = len(women) / embeddings.counts["embedded"]
print(f"{right} of {len(women)} are breast ultrasound; by chance it would be {share * len(women):.0f}")

# %% [markdown]
# Are malignant masses ranked before benign ones? 0.5 would be chance, 1 perfect. By words, and by example: an image of
# a malignant mass, of which all other women are ranked.

# %%
asked = {
    "by words": {"words": "a malignant breast mass", "against": "a benign breast mass"},
    "by example": {"like": images / women.file[women.content == "malignant"].iloc[0]},
}
for way, query in asked.items():
    found = medclip.search(
        embeddings, **query, where="modality=ultrasound", level="unit", num_hits=len(women), model=model
    ).to_pandas()
    truth = np.array([outcome[names[row]] == "malignant" for row in found["row"]], int)
    area = measured(truth, found["score"].to_numpy(), [names[row] for row in found["row"]], ["auroc"])["auroc"]
    print(f"{way}: AUROC of {len(found)} women {interval_of(area)}")

# %% [markdown]
# ## Ask again
#
# A new question reads no image.

# %%
start = time.perf_counter()
answers = medclip.score(embeddings, prompt="pleural effusion | fluid in the pleural space", model=model)
print(f"{len(answers.scores)} studies in {time.perf_counter() - start:.2f} s")
answers

# %% [markdown]
# ## Adapt from the same vectors
#
# Two thirds of the women to learn from, the others to test with. `adapt` divides them.

# %%
adapted = medclip.adapt(
    table,
    "content",
    patient="patient",
    images=root / "embedded",
    out=root / "mass",
    method="linear-probe",
    test_share=0.3,
)
adapted

# %% [markdown]
# ## See where it looked
#
# The map shows what moved the score of the adapted pack, on women whom it did not learn from. Radiologists drew the box
# of the mass. A map cannot show why, and it is no localisation; but a map that avoids the mass would be a warning.

# %%
tested = women.iloc[[number - 1 for number in adapted.test.numbers]]
maps = medclip.explain(
    [images / file for file in tested.file],
    task="content:malignant",
    model=root / "mass",
    modality="ultrasound",
    checks="none",
)
heats = [next(iter(explained.values()))[0] for explained in maps.maps]
figure, axes = plt.subplots(2, 4, figsize=(13, 5.6), layout="constrained")
for place in axes.flat:
    place.set_axis_off()
order = np.argsort(tested.content.to_numpy(), kind="stable")[::-1]  # malignant ones first
for place, number in zip(axes.flat, order, strict=False):
    row, heat = tested.iloc[number], heats[number]
    x, y, width, height = json.loads(row.box_xywh)
    place.imshow(Image.open(images / row.file), cmap="gray")
    place.imshow(heat, cmap="inferno", alpha=0.4)
    place.add_patch(plt.Rectangle((x, y), width, height, fill=False, color="w", linewidth=1.5))
    place.set_title(row.content, fontsize=9)
plt.show()

# %% [markdown]
# Counted: on how many does the peak lie on the mass, or half a place of the map's grid beside it? And how many would it
# be if the peak lay anywhere, or always in the middle?


# %%
def near_box(heat, box):
    """Return where a map of an image [H, W] shows something, and which of these places are on or beside a box."""
    x, y, width, height = box
    seen = np.isfinite(heat)
    rows, columns = np.mgrid[: heat.shape[0], : heat.shape[1]]
    down, right = (np.ptp(np.flatnonzero(seen.any(axis))) / 12 for axis in (1, 0))  # half of a sixth
    near = (abs(columns - x - width / 2) <= width / 2 + right) & (abs(rows - y - height / 2) <= height / 2 + down)
    return seen, near


def count_peaks(heats, boxes, patients):
    """Return how many maps peak on or beside their box as a share with its interval, and how many would by lot."""
    hits, by_lot, in_middle = [], [], []
    for heat, box in zip(heats, boxes, strict=True):
        seen, near = near_box(heat, box)
        hits.append(bool(near[np.unravel_index(np.nanargmax(heat), heat.shape)]))
        by_lot.append(near[seen].mean())
        in_middle.append(bool(near[heat.shape[0] // 2, heat.shape[1] // 2]))
    share = measured(np.ones(len(hits), int), np.array(hits) - 0.5, patients, ["accuracy"])["accuracy"]
    known, lot = interval_of(share), float(np.mean(by_lot))
    verdict = "more often than" if known.low > lot else "less often than" if known.high < lot else "about as often as"
    print(f"the peak lies there in {sum(hits)} of {len(hits)}: {known}")
    print(f"a place drawn by lot: {lot:.2f}; always the middle of the image: {np.mean(in_middle):.2f}")
    return verdict


boxes = [json.loads(box) for box in tested.box_xywh]
on_mass = count_peaks(heats, boxes, tested.patient.tolist())
print(f"So the maps of this pack peak on the mass {on_mass} places that are drawn by lot would.")

# %% [markdown]
# ## Is it the map, or the model?
#
# A map that misses the mass has two explanations. Either the model goes by something else, or the map does not show
# what the model goes by, because something is wrong with it: a margin that is taken for an image, places that are
# swapped. A control tells them apart: a patch of checks is put into each image, somewhere, and a pack is taught to tell
# images with the patch from those without. Now it is known what there is to see.

# %%
rng = np.random.default_rng(0)
planted = root / "planted"
planted.mkdir()
rows, patch_of = [], {}
for row in women.itertuples():
    plain = np.asarray(Image.open(images / row.file).convert("L"))
    side = max(plain.shape) // 5
    top, left = (int(rng.integers(0, size - side)) for size in plain.shape)
    rows_px, columns_px = np.indices((side, side)) // 4
    with_patch = plain.copy()
    with_patch[top : top + side, left : left + side] = 30 + 200 * ((rows_px + columns_px) % 2)
    for kind, pixels in (("plain", plain), ("patch", with_patch)):
        name = f"{Path(row.file).stem}_{kind}.png"
        Image.fromarray(pixels).save(planted / name)
        rows.append({"file": name, "patient": row.patient, "modality": "ultrasound", "planted": kind})
    patch_of[name] = (left, top, side, side)
control_table = pd.DataFrame(rows)
control = medclip.adapt(
    control_table,
    "planted",
    patient="patient",
    images=planted,
    out=root / "control",
    method="linear-probe",
    test_share=0.3,
)
print(control)

# %%
unseen = control_table.iloc[[number - 1 for number in control.test.numbers]]
unseen = unseen[unseen.planted == "patch"]
control_maps = medclip.explain(
    [planted / file for file in unseen.file],
    task="planted:patch",
    model=root / "control",
    modality="ultrasound",
    checks="none",
)
control_heats = [next(iter(explained.values()))[0] for explained in control_maps.maps]
on_patch = count_peaks(control_heats, [patch_of[file] for file in unseen.file], unseen.patient.tolist())
print(f"So the maps peak on a patch that was planted {on_patch} places that are drawn by lot would.")
figure, axes = plt.subplots(1, 4, figsize=(13, 2.9), layout="constrained")
for place, file, heat in zip(axes, unseen.file, control_heats, strict=False):
    left, top, side, _ = patch_of[file]
    place.imshow(Image.open(planted / file), cmap="gray")
    place.imshow(heat, cmap="inferno", alpha=0.4)
    place.add_patch(plt.Rectangle((left, top), side, side, fill=False, color="w", linewidth=1.5))
    place.set_axis_off()
plt.show()

# %% [markdown]
# And the checks that `explain` makes by itself, of the maps of malignant masses. Where does the map lie: on image, on
# the padding that makes it square, on black? Does the score rise faster when places come back in the order of the map
# than in a random order? And does the map change when the weights are shuffled, as it must?

# %%
ill = tested[tested.content == "malignant"]
checked = medclip.explain(
    [images / file for file in ill.file],
    task="content:malignant",
    model=root / "mass",
    modality="ultrasound",
    checks="all",
)
faster, alike, on_padding, padding, on_black, black = 0, [], [], [], [], []
for explained, file in zip(checked, ill.file, strict=True):
    heat = explained.maps[0]
    areas = {curve.order: curve.insertion_area for curve in heat.curves}
    faster += areas["map"] > areas["random"]
    alike.append(heat.randomised[-1].correlation or 0.0)
    on_padding.append(heat.padding[0])
    width, height = Image.open(images / file).size
    padding.append(1 - min(width, height) / max(width, height))
    values = next(iter(explained.in_images().values()))[0]
    dark = (np.asarray(Image.open(images / file).convert("L")) < 12) & np.isfinite(values)
    on_black.append(np.nansum(values[dark]) / np.nansum(values))
    black.append(dark.mean())
print(f"the order of the map beats a random one in {faster} of {len(ill)}")
print(f"rank correlation with the map of shuffled weights: {np.mean(alike):+.2f} (1 would be the same map)")
print(f"share of the map on padding: {np.mean(on_padding):.2f}; padding is {np.mean(padding):.2f} of the square")
print(f"share of the map on black: {np.mean(on_black):.2f}; black is {np.mean(black):.2f} of the image")

# %%
if on_patch != "more often than":
    print("The control did not find what was planted: of the masses nothing follows from these maps.")
elif on_mass == "more often than":
    print("Maps of this model find what was planted, and they peak on masses: on them or on what is beside them.")
else:
    print("Maps of this model find what was planted; those of the masses do not peak on masses.")
    print("So the code is not what misses them: the pack goes by something else, or by much that is spread out.")
if faster <= len(ill) / 2:
    print("And the check by order says not to believe the maps of the masses: a random order does as well.")
if np.mean(on_padding) > np.mean(padding) + 0.1:
    print("More of them lies on padding than padding has room: the margin, or the shape of the image, counts, too.")

# %% [markdown]
# A pack may rank women better than chance and yet look beside the masses: at the shadow below or the layers above. A
# map of six by six places is coarse, each place sees much of what is around it, and a patch of checks is louder than a
# mass: the control says that maps of this model can point, not that they do so for whatever is asked. Either way nobody
# should point at the bright place and say "there".

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

pack = medclip.models.import_(checkpoint, root / "imported", name="tiny-clip", modalities=["ultrasound"])
imported = medclip.models.load(pack)
imported

# %% [markdown]
# Images and texts can be compared by hand, too: these are the cosines of two images with two sentences. (Random weights
# know nothing.)

# %%
imported.similarity([images / file for file in women.file[:2]], ["a malignant mass", "a benign mass"])

# %% [markdown]
# ## What this does not show
#
# - That words find anything in your folder: the built-in model knows few of them. Look at how far a hit stands out from
#   the rest, not at its place in the list.
# - That maps localise. Masses tend to lie in the middle of an ultrasound image, because whoever holds the probe puts
#   them there, and a map that always peaks in the middle would do well. Run the checks (`checks=True`) before you
#   believe a map ([heat maps](../docs/how-to/heat_maps.md)).
# - Anything of other clinics and machines, or that so few women were enough: read the intervals.

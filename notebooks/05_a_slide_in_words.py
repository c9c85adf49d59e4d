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
# # A slide in words
#
# **The question.** A pathologist has slides and no labels, later a label for each slide. Can they be searched in words,
# and what does an answer for a slide rest on?
#
# **The data.** A piece of a real slide (OpenSlide's test slide CMU-1, CC0) to look at, and to ask. For the rest tissue
# that is drawn by code: it has to be known where the tumour lies, and no open slides that say so are small enough to
# ship.
#
# **The answer** is a share with what chance would give, and areas with intervals over sixteen drawn patients. For
# research; not a medical device.
#
# Run it from the root of the repository. It takes about two minutes and needs the extra `wsi`. Its model has seen drawn
# tissue and nothing else; with a pathology CLIP (`medclip models import`) the calls are the same.

# %%
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from PIL import Image

import medclip

sys.path.insert(0, "pipelines/pathgen")
from drawn_tissue import GLANDS, LYMPHOCYTES, TUMOUR, lay_out, simulate  # pyright: ignore[reportMissingImports]

root = Path(tempfile.mkdtemp())

# %% [markdown]
# ## Tissue and patches of a real slide
#
# Everything is in micrometres: a patch has 128 pixels at 0.5 µm/px on every slide, whatever its scanner. Green is what
# was taken for tissue, blue what is read. Patches that are blurred, blank, dark, folded or inked have flags.

# %%
real = Path("examples/slides/cmu1_region.tiff")
with medclip.slides.open(real) as reader:
    tissue = medclip.slides.find_tissue(reader)
    grid = medclip.slides.make_grid(reader, tissue, size_px=128, mpp_um=0.5)
    print(f"{len(grid)} patches on {tissue.area_mm2:.2f} mm² of tissue, {tissue.fraction:.0%} of the slide")
    overview = medclip.slides.overview(reader, tissue, grid, longest_px=700)
    patches = [pixels for _, pixels in medclip.slides.iter_patches(reader, grid)]
figure, axes = plt.subplot_mosaic([["all", 0, 1], ["all", 2, 3]], figsize=(9, 5.4), layout="constrained")
axes["all"].imshow(overview)
for number, patch in enumerate(np.linspace(0, len(patches) - 1, 4).astype(int)):
    axes[number].imshow(patches[patch])
    axes[number].set_title(f"patch {patch}", fontsize=9)
for place in axes.values():
    place.set_axis_off()
plt.show()

# %% [markdown]
# ## Slides whose tumour is known
#
# Sixteen drawn patients with one or two slides each.

# %%
simulate(root, num_patients=16)
slides = root / "wsi" / "CAMELYON16" / "slides"
labels = pd.read_csv(root / "wsi" / "CAMELYON16" / "labels.csv")
labels[["slide", "patient", "organ", "label"]].head(4)

# %% [markdown]
# ## A model that knows words for tissue
#
# Pairs of a patch and a caption, as in stage 1 of `pipelines/pathgen`; a real one has a million of them. None of these
# patches is of a slide above.

# %%
pairs = medclip.shards.build(root / "pairs.csv", root / "shards")
recipe = {
    "name": "drawn-tissue",
    "compat": "open_clip",
    "data": {"shards": str(root / "shards"), "native": "whole", "native_share": 1.0},
    "text": {"vocab_size": 900, "context_length": 64},
    "model": {
        "image_tower": "test_resnet",
        "image_weights": None,
        "size_px": 64,
        "embed_dim": 64,
        "freeze_bn": False,
        "text_width": 64,
        "text_heads": 2,
        "text_layers": 2,
    },
    "objective": {"same_text": "positive"},
    "train": {"epochs": 12, "batch_size": 32, "lr": 2e-3, "warmup_steps": 5, "threads": 1},
}
run = medclip.pretrain(recipe, out=root / "run")
run

# %% [markdown]
# ## Vectors of every patch
#
# One file for each slide, with places, scale, model and preprocessing. Stop it anywhere: the same call goes on, also in
# the middle of a slide. Every slide has a row, also one without tissue or one that cannot be read.

# %%
medclip.slides.embed(slides, root / "store", model=run.pack, size_px=128)
store = medclip.slides.open_store(root / "store")
store.to_pandas()[["file", "status", "num_patches", "tissue_share"]].head(4)

# %% [markdown]
# ## Search in words
#
# The patches of all slides, ordered by what they share with the words. Scores give an order and are no probabilities.

# %%
hits = medclip.search(
    root / "store", "crowded dark nuclei of different size", model=run.pack, images=slides, num_hits=200
)
hits

# %% [markdown]
# Here it is known what each patch shows. Of the first patches, how many lie in a tumour? By chance it would be the
# share of all patches:

# %%
base = {"colon": GLANDS, "lymph node": LYMPHOCYTES}
kinds = {}
for n, row in labels.iterrows():
    kinds[row.slide] = lay_out(1280, 1664, base[row.organ], 0.12 if row.label == "tumour" else 0.0, 500 + n)
file_of = {row.key: row.file for row in store.rows}


def in_tumour(key: str, top_um: float, left_um: float) -> bool:
    """Whether most of a patch is tumour."""
    top, left = round(top_um / 0.5), round(left_um / 0.5)
    return bool((kinds[file_of[key]][top : top + 128, left : left + 128] == TUMOUR).mean() > 0.5)


true = [in_tumour(hit.slide, hit.top_um, hit.left_um) for hit in hits.hits]
everywhere = [in_tumour(features.key, *corner) for features in store for corner in features.corners_um_N2]
print(
    f"first 50: {np.mean(true[:50]):.2f}, first 100: {np.mean(true[:100]):.2f}, all patches: {np.mean(everywhere):.2f}"
)

# %% [markdown]
# ## One question for each slide
#
# Zero-shot: the patches that match a class best stand for the slide (MI-Zero). The heat map shows how each patch
# matches that class against the other one. Look at the organs apart: a threshold that fits one need not fit the other.

# %%
answers = medclip.slides.predict(
    root / "store", task="histology_tumour", model=run.pack, images=slides, top_patches=5, out=root / "words"
)
rows = answers.to_pandas().merge(labels[["file", "organ", "label"]], on="file")
print(answers.notes[0])
rows.groupby(["organ", "label"]).p_tumour.describe()[["count", "min", "50%", "max"]].round(2)

# %% [markdown]
# Black lines are where the tumour was drawn.

# %%
figure, places = plt.subplots(2, 2, figsize=(9, 7))
for place, (_, row) in zip(places.flat, rows.iloc[[0, 1, 2, 3]].iterrows(), strict=True):
    features = store.read(row.key)
    with medclip.slides.open(slides / row.file) as reader:
        small = reader.thumbnail(max(reader.size_um) / 400)
    place.imshow(small)
    height, width = (side / 0.5 for side in features.slide_size_um)
    place.contour(
        kinds[row.file] == TUMOUR, levels=[0.5], colors="black", extent=(0, small.shape[1], 0, small.shape[0])
    )
    place.set_title(f"{row.organ}, {row.label}: p(tumour) = {row.p_tumour:.2f}", fontsize=9)
    place.set_axis_off()
plt.show()

# %% [markdown]
# The map of the last one. Its red says what moved the answer; each slide has a scale of its own, so a slide without a
# tumour has red patches, too.

# %%
Image.open(root / "words" / "maps" / f"{rows.key[3]}.png")

# %% [markdown]
# ## Learn from labels of slides
#
# A label is true of a slide, not of its patches. A head weighs the patches; all slides of a patient are in one fold,
# and intervals resample patients. The mean of all patches stands beside as the baseline.

# %%
learned = medclip.slides.learn(
    root / "store",
    root / "wsi" / "CAMELYON16" / "labels.csv",
    "label",
    out=root / "head",
    patient="patient",
    pooling="abmil",
    compare="mean",
    num_folds=4,
    num_resamples=500,
    overrides={"epochs": 20, "lr": 3e-3},
)
learned

# %%
by_head = medclip.slides.predict(root / "store", head=root / "head", images=slides, out=root / "answers")
found = [in_tumour(row.key, row.peak_top_um, row.peak_left_um) for _, row in by_head.to_pandas().iterrows()]
drawn = by_head.to_pandas().merge(labels[["file", "label"]], on="file").label.eq("tumour").to_numpy()
print(f"the map's peak is in the tumour on {np.sum(np.array(found)[drawn])} of {drawn.sum()} slides that have one")

# %% [markdown]
# ## The real slide again
#
# The model answers any image. Of real tissue it knows nothing, and it is as ready with an answer:

# %%
medclip.slides.embed(real, root / "real", model=run.pack, size_px=128)
real_answer = medclip.slides.predict(root / "real", task="histology_tumour", model=run.pack, out=root / "real_words")
real_answer.to_pandas()[["answer", "p_tumour"]].round(2)

# %% [markdown]
# And the built-in model? It takes no slides, but images of tissue are asked of it here: every sixth patch of this piece
# of skin, of which nobody said that it holds a tumour. It answers only for what its card lists.

# %%
built_in = medclip.models.load()
print(built_in.card.name, built_in.card.version, "was trained on:", ", ".join(built_in.card.modalities))
asked = medclip.score(patches[::6], model=built_in, modality="pathology")
for message in sorted({row["message"] for row in asked.files.to_pylist() if row["message"]}):
    print(message)
of_patches = asked.scores.to_pandas()
for (name, kind), rows in of_patches.groupby(["task", "class"], sort=False):
    least, middle, most = np.quantile(rows.probability, [0, 0.5, 1])
    print(f"{name}, {kind}: {middle:.2f} in the median of {len(rows)} patches, {least:.2f} to {most:.2f}")
figures = built_in.card.to_pandas()
for name in of_patches.task.unique():
    for row in figures[(figures.task == name) & figures.metric.str.endswith(" zero_shot")].itertuples():
        print(f"{name}: {row.metric} {row.value:.2f} ({row.low:.2f} to {row.high:.2f}), chance {row.chance:.2f}")
    for by_source in built_in.card.tasks[name].sources.values():
        print(f"measured in {', '.join(by_source.sources)}; {by_source.verdict}")

# %% [markdown]
# ## What this does not show
#
# - The captions borrow words of the questions, and four kinds of drawn tissue are easy to tell apart. Real tissue,
#   stains and scanners are not like this, and a figure of this notebook says nothing about any model of pathology.
# - Sixteen patients: look at the width of the intervals before the figures.
# - A heat map shows what moved an answer. It outlines no lesion, and a red patch is no finding.
# - The first answer for the real slide is worth nothing. It stands there to be remembered. Where the built-in model
#   answers, it does so for skin with what it learned of other tissue.

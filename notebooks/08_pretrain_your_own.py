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
# # Pretrain your own
#
# **The question.** A breast clinic has some hundred ultrasound images, and knows the outcome of a few. Is it worth
# learning from all of them without the outcomes first?
#
# **The data.** 59 women, one image each, with the outcome by biopsy or follow-up (BrEaST, Pawłowska et al., Scientific
# Data 2024, CC BY 4.0). That is far too few to pretrain on, which is a thing to see here: every call is the one that a
# hospital would make with a hundred thousand.
#
# **The answer** is two figures on the same women, with intervals, and what the same question gave on larger sets. For
# research; not a medical device.
#
# Run it from the root of the repository. It takes a minute; a real run takes hours, and the calls are the same.

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import medclip

images = Path("examples/ultrasound")
root = Path(tempfile.mkdtemp())
women = pd.read_csv(images / "labels.csv")
women["file"] = [str((images / name).resolve()) for name in women.file]
print(women.outcome.value_counts().to_dict())

# %% [markdown]
# ## Women who are kept aside
#
# Two of five are for testing, divided within each outcome. They are in no training of this notebook, also not in the
# one without outcomes: a model that has seen the test images knows them.

# %%
place = women.groupby("outcome").cumcount() % 5
women["split"] = place.map({0: "train", 1: "test", 2: "train", 3: "test", 4: "val"})
print(pd.crosstab(women.outcome, women.split))

unlabelled = women[women.split != "test"][["file", "patient", "modality"]]
shards = medclip.shards.build(unlabelled, root / "shards", splits={"train": 0.8, "val": 0.2})
print(shards.num_samples, "images to learn from without a word about their outcome")

# %% [markdown]
# ## Pretrain
#
# `objective: masked` is the recipe that was published for chest X-rays: most of an image is hidden, and a small decoder
# guesses it. These are shown small: of 16 patches its 90 % would leave one, so 75 % are hidden here. From so few images
# a guess for other women can hardly be more than a grey that fits.

# %%
recipe = {
    "name": "ultrasound",
    "objective": "masked",
    "data": {"shards": str(root / "shards"), "test_split": None},
    "model": {"image_tower": "vit_tiny_patch16_224", "size_px": 64},
    "train": {"epochs": 150, "batch_size": 16, "lr": 1e-3, "warmup_steps": 10, "threads": 1},
}
run = medclip.pretrain(recipe, overrides={"objective.masked.ratio": 0.75}, out=root / "run")
run

# %% [markdown]
# What it fills in, on images that it did not learn from: the original, what it saw, its guess. `run.report` has the
# same images and the curves. With your own data these are images of patients: they stay in the folder of the run.

# %%
figure, axes = plt.subplots(2, 6, figsize=(9, 3.2), layout="constrained")
for place, one in zip(axes.reshape(-1, 3), run.reconstructions, strict=False):
    for axis, pixels, title in zip(
        place, (one.original_HWC, one.visible_HWC, one.filled_HWC), ("original", "seen", "guess"), strict=True
    ):
        axis.imshow(pixels)
        axis.set_title(title, fontsize=9)
        axis.axis("off")
plt.show()
error, naive = (np.mean([getattr(one, name) for one in run.reconstructions]) for name in ("error", "naive_error"))
better = "better than" if error < naive else "no better than"
print(f"error {error:.2f}, {better} the mean of what is seen ({naive:.2f})")

# %% [markdown]
# ## Was it worth it?
#
# The same tower, the same women with their outcomes, the same recipe of fine-tuning: once from the pretrained weights,
# once from random ones. Figures are over the women kept aside, with 95 % intervals that resample them.

# %%
table = root / "labels.csv"
women[["file", "patient", "modality", "split", "outcome"]].to_csv(table, index=False)
changes = {"model.size_px": 64, "train.epochs": 20, "train.lr": 1e-3, "train.threads": 1}
answers = {}
for name, start in (("pretrained", run.pack), ("from nothing", "vit_tiny_patch16_224")):
    tuned = medclip.finetune(table, "outcome", model=start, out=root / name, overrides=changes)
    answers[name] = next(row for row in tuned.test if row["metric"] == "macro_auroc")

figure, axis = plt.subplots(figsize=(6, 1.6), layout="constrained")
for line, (name, row) in enumerate(answers.items()):
    axis.plot((row["low"], row["high"]), (line, line), color="0.4")
    axis.plot(row["value"], line, "o", color="tab:blue")
    print(f"{name}: AUROC {row['value']:.2f} ({row['low']:.2f} to {row['high']:.2f})")
axis.axvline(0.5, color="0.6", linestyle=":")
axis.set_yticks(range(len(answers)), list(answers))
axis.set_ylim(-0.6, len(answers) - 0.4)
axis.set_xlim(0, 1)
axis.set_xlabel("AUROC, benign against malignant, women kept aside (dotted: chance)")
plt.show()

# %% [markdown]
# Two dozen women cannot answer the question: intervals this wide hold nearly everything. Nor do two overlapping
# intervals say that there is no difference: both were measured on the same women, so their difference is the question.
# `pipelines/mae_all/compare.py` shows how to ask it: several seeds, paired differences, patients resampled, everything
# fixed beforehand, and the time of pretraining paid for.
#
# ## What else the pack is good for
#
# It has no words, so nothing can be asked of it in words. It embeds, it takes a linear probe with a few labels, and it
# starts the image tower of a model with words (`model.image_weights`).

# %%
probe = medclip.adapt(table, "outcome", model=run.pack, method="linear-probe", shots=8, out=root / "probe")
probe

# %% [markdown]
# ## What this does not show
#
# - That pretraining helps, or that it does not. On real sets that are small it helped a small vision transformer in 6
#   of 16 rows beyond doubt, and a small CNN from nothing was above it in 14, in 6 beyond doubt:
#   [what was measured](../docs/reference/papers.md).
# - What a good guess of hidden pixels means. A model can fill in speckle and know nothing of tumours.
# - Anything about another clinic: these are images of one collection, chosen by those who made it.

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
# # Sixteen examples
#
# **The question.** A clinic has ultrasound images of breast masses, and of sixteen of them the outcome: eight benign,
# eight malignant. Is that enough to teach a small model to tell the two apart?
#
# **The data.** 59 real images of 59 women, 18 of them with a malignant mass, from BrEaST (Pawlowska et al., Scientific
# Data 2024, CC BY 4.0). The built-in model has learned from none of these women.
#
# **The answer** is a figure with an interval, beside what the radiologists said of the same images. For research; not a
# medical device.
#
# Run it from the root of the repository. It takes a minute.

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from PIL import Image

import medclip

images = Path("examples/ultrasound")
root = Path(tempfile.mkdtemp())
table = pd.read_csv(images / "labels.csv")
print(table.outcome.value_counts().to_dict())
table.head(3)

# %%
figure, axes = plt.subplots(2, 4, figsize=(10, 4.4), layout="constrained")
for line, outcome in zip(axes, ("benign", "malignant"), strict=True):
    for place, row in zip(line, table[table.outcome == outcome].itertuples(), strict=False):
        place.imshow(Image.open(images / row.file), cmap="gray")
        place.set_title(f"{outcome}, BI-RADS {row.birads}", fontsize=9)
        place.set_axis_off()
plt.show()

# %% [markdown]
# ## Once
#
# `adapt` divides the women into those to learn from and those to test on, draws eight of each outcome from the first,
# and fits a linear probe on the frozen image tower. The classes and their wording come from the column itself.

# %%
once = medclip.adapt(images / "labels.csv", "outcome", method="linear-probe", shots=8, images=images)
once

# %% [markdown]
# One draw of sixteen, tested on a few women. Other sixteen would have given another figure, and so would other women.
#
# ## Five draws, and three ways
#
# `compare` gives every method the same sixteen, draws them five times, tests on the same women, and puts both
# uncertainties into one interval: that of the draw, and that of who was tested. Zero-shot learns nothing of these: it
# asks the built-in model in words, and what those are worth its card says.

# %%
card = medclip.models.load().card
figures = card.to_pandas()
known = figures[(figures.task == "breast_ultrasound_malignancy") & figures.metric.str.endswith(" zero_shot")]
print(card.name, card.version, "was trained on:", ", ".join(card.modalities))
for row in known.itertuples():
    print(
        f"of breast ultrasound: {row.metric} {row.value:.2f} ({row.low:.2f} to {row.high:.2f}), chance {row.chance:.2f}"
    )
if known.empty:
    print("Its card lists no task of breast ultrasound: asked in words it can only guess.")
else:
    print("The women of this notebook are among those on whom that was measured.")

# %%
methods = ["zero-shot", "linear-probe", "tip"]
result = medclip.compare(
    images / "labels.csv",
    "outcome",
    out=root / "comparison",
    images=images,
    methods=methods,
    shots=(1, 4, 8),
    seeds=5,
    num_resamples=1000,
)
print("\n".join(result.lines()))

# %%
figure, axis = plt.subplots(figsize=(7, 3.4), layout="constrained")
for method in methods:
    cells = [result.cell(method, k, "macro_auroc") for k in result.shots]
    axis.plot(result.shots, [c.value for c in cells], marker="o", label=method)
    axis.fill_between(result.shots, [c.low for c in cells], [c.high for c in cells], alpha=0.12)
axis.axhline(0.5, color="0.5", linestyle=":", label="chance")
axis.set_xticks(result.shots)
axis.set_xlabel("women of each outcome that were learned from")
axis.set_ylabel("AUROC, 95 % interval")
axis.set_ylim(0, 1)
figure.legend(loc="outside upper center", ncols=4)
plt.show()

# %% [markdown]
# ## Is it better than not learning?
#
# The difference is taken on the same draws and the same women, which is sharper than looking whether two intervals
# overlap. An interval that holds zero means: this comparison does not show it.

# %%
for d in result.differences_of("zero-shot", None):
    sure = "shown" if d.low is not None and d.low > 0 else "not shown"
    print(f"{d.method:12} minus zero-shot: {d.value:+.2f} ({d.low:+.2f} to {d.high:+.2f}), better: {sure}")

# %% [markdown]
# ## What would a radiologist have said?
#
# The table has the BI-RADS category that radiologists gave each image: a grade of suspicion from 2 to 5. How well does
# it order these women? The same figure, over all 59.

# %%
from medclip.statistics.metrics.classification import measured
from medclip.statistics.resampling.resampled import interval_of

grades = table.birads.map({"2": 2, "3": 3, "4a": 4.0, "4b": 4.3, "4c": 4.6, "5": 5})
graded = grades.notna().to_numpy()
malignant = (table.outcome == "malignant").to_numpy().astype(int)
radiologist = measured(malignant[graded], grades[graded].to_numpy(), table.patient[graded].tolist(), ["auroc"])["auroc"]
print(f"BI-RADS, AUROC of {graded.sum()} women:", interval_of(radiologist))

# %% [markdown]
# ## What does it get wrong?
#
# The images that the linear probe most often gets wrong with eight women of each. The page that `compare` writes
# (`report.html`) has more of them.

# %%
confusion = next(c for c in result.confusions if c.method == "linear-probe")
for name, counts in zip(result.classes, confusion.counts, strict=True):
    print(f"{name:10} called " + ", ".join(f"{c}: {n:g}" for c, n in zip(result.classes, counts, strict=True)))

wrong = confusion.mistakes[:4]
figure, axes = plt.subplots(1, 4, figsize=(10, 2.6), layout="constrained")
for place, mistake in zip(axes, wrong, strict=False):
    row = table.iloc[mistake.row - 1]
    place.imshow(Image.open(images / row.file), cmap="gray")
    place.set_title(
        f"{mistake.true}, BI-RADS {row.birads}\nwrong in {mistake.num_wrong} of {mistake.num_runs}", fontsize=9
    )
for place in axes:
    place.set_axis_off()
plt.show()

# %% [markdown]
# ## Save it, and score with it
#
# The adapted model is a pack like any other. It lists the hashes of the files that it learned from, so that nobody
# tests it on them by mistake.

# %%
pack = medclip.adapt(images / "labels.csv", "outcome", method="linear-probe", shots=8, images=images, out=root / "pack")
tested = table.iloc[[number - 1 for number in pack.test.numbers[:3]]]  # three women whom it did not learn from
print(tested.outcome.tolist())
scores = medclip.score([images / file for file in tested.file], model=root / "pack", modality="ultrasound").scores
scores.to_pandas()[["task", "class", "probability"]].round(3)

# %% [markdown]
# ## The answer

# %%
cell = result.cell("linear-probe", 8, "macro_auroc")
verdict = "more than chance" if cell.low > 0.5 else "nothing that could be told from chance"
print(f"Sixteen examples taught {verdict}: AUROC {cell.value:.2f} ({cell.low:.2f} to {cell.high:.2f}).")
print(f"Radiologists' grades on the same kind of images: {interval_of(radiologist)}.")

# %% [markdown]
# Five of the women who were tested on have a malignant mass, so even a figure far from one half, on either side,
# means nothing. Nor does a probability near 0 or 1 of one woman: a pack learns how sure to be from the same sixteen.
# What would settle the question are more women to *test* on before more to learn from: some
# two hundred would narrow the interval to about ± 0.08.
#
# ## What this does not show
#
# - That the model could stand beside a radiologist. BI-RADS decided who had a biopsy, so its figure here flatters it;
#   and the radiologists saw the women's history and moving images, the model one still.
# - Anything of other hospitals or machines. All images are from one source, and devices differ.
# - That the model looks at the mass. `medclip.explain` asks that, with checks
#   ([heat maps](../docs/how-to/heat_maps.md)).
# - Which method is best in general: [compare the ways of adapting](../docs/how-to/compare_methods.md) says what is
#   known.

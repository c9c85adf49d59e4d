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
# Data 2024, CC BY 4.0). The built-in model has learned from none of these women. Sixteen of them are the clinic's; the
# other 43 are there to test on, and teach nothing.
#
# **The answer** is a figure with an interval, beside what the built-in model says in words and what the radiologists
# said of the same images. For research; not a
# medical device.
#
# Run it from the root of the repository. It takes a minute.

# %%
import json
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from PIL import Image

import medclip
from medclip.statistics.metrics.classification import measured
from medclip.statistics.resampling.resampled import interval_of

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
# ## In words, before anything is learned
#
# The built-in model can be asked without a single example. Its card says of which tasks there are figures; a question
# that is not on it is measured here, on all 59 women: are malignant masses ranked before benign ones? 0.5 is chance.

# %%
model = medclip.models.load()
card = model.card
print("The card lists breast ultrasound:", "breast_ultrasound_malignancy" in card.tasks)
malignant = (table.outcome == "malignant").to_numpy().astype(int)
in_words = medclip.score(
    [images / file for file in table.file],
    model=model,
    modality="ultrasound",
    prompt="a malignant breast mass",
    against="a benign breast mass",
)
probability = in_words.scores.to_pandas().set_index("files").probability
by_file = {Path(json.loads(files)[0]).name: value for files, value in probability.items()}
area = measured(malignant, table.file.map(by_file).to_numpy(), table.patient.tolist(), ["auroc"])["auroc"]
words = interval_of(area)
print(f"In words, AUROC of {len(table)} women: {words}")
print("Told from chance on these women:", "yes" if words.low > 0.5 else "no")

# %% [markdown]
# An order is not an answer: that malignant masses come first more often than not says nothing of where to cut. And a
# figure of 59 women of one place does not put a task on a card: there it is asked of women of another place, too, and
# where it fails there it is not listed, however it looks here.
#
# ## Once
#
# The sixteen are drawn by lot and marked in the column `split`. `adapt` fits a linear probe on the frozen image tower
# with them and tests on the 43 others. The classes and their wording come from the column itself. Images are embedded
# once, so that trying again costs seconds.


# %%
def with_sixteen(seed):
    """Return the table with eight women of each outcome to learn from, and all others to test on."""
    chosen = table.groupby("outcome").sample(8, random_state=seed).index
    return table.assign(split=np.where(table.index.isin(chosen), "train", "test"))


vectors = medclip.embed(images, root / "embedded", table=images / "labels.csv", model=model)
once = medclip.adapt(with_sixteen(0), "outcome", method="linear-probe", shots=8, images=vectors, patient="patient")
once

# %% [markdown]
# One draw of sixteen. Other sixteen would have given another figure: four more draws, each tested on its 43 others.


# %%
def area_of(run):
    """Return the AUROC of an adapted pack on the women whom it did not learn from, with its interval."""
    tested = table.iloc[[number - 1 for number in run.test.numbers]]
    score = run.test.probabilities_NC[:, 1]  # of "malignant"
    truth = (tested.outcome == "malignant").to_numpy().astype(int)
    return interval_of(measured(truth, score, tested.patient.tolist(), ["auroc"])["auroc"])


draws = [area_of(once)]
for seed in range(1, 5):
    again = medclip.adapt(
        with_sixteen(seed), "outcome", method="linear-probe", shots=8, images=vectors, patient="patient"
    )
    draws.append(area_of(again))
for seed, one in enumerate(draws):
    print(f"sixteen number {seed}: AUROC of {len(once.test.numbers)} women {one}")

# %% [markdown]
# ## Fewer of the sixteen, and three ways
#
# `compare` gives every method the same women of the first sixteen: one, four or all eight of each outcome, drawn five
# times, tested on the same 43. It puts both uncertainties into one interval: that of the draw, and that of who was
# tested. Zero-shot learns nothing of these: it asks the built-in model with the words of the column, "benign" and
# "malignant". The linear probe learns from as many women again as it was given, four of each outcome at most, to choose
# how strongly to fit: with four of each it has seen all sixteen, and its four and its eight are the same model.

# %%
methods = ["zero-shot", "linear-probe", "tip"]
result = medclip.compare(
    with_sixteen(0),
    "outcome",
    out=root / "comparison",
    images=vectors,
    patient="patient",
    method=methods,
    shots=(1, 4, 8),
    num_seeds=5,
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
    interval = "no interval: alike in every draw" if d.low is None else f"{d.low:+.2f} to {d.high:+.2f}"
    sure = "shown" if d.low is not None and d.low > 0 else "not shown"
    print(f"{d.method:12} minus zero-shot: {d.value:+.2f} ({interval}), better: {sure}")

# %% [markdown]
# ## What would a radiologist have said?
#
# The table has the BI-RADS category that radiologists gave each image: a grade of suspicion from 2 to 5. How well does
# it order these women? The same figure, over all 59.

# %%
grades = table.birads.map({"2": 2, "3": 3, "4a": 4.0, "4b": 4.3, "4c": 4.6, "5": 5})
graded = grades.notna().to_numpy()
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
# tests it on them by mistake. What it says of three of the 43, as a folder would be scored:

# %%
pack = medclip.adapt(
    with_sixteen(0), "outcome", method="linear-probe", shots=8, images=images, patient="patient", out=root / "pack"
)
tested = table.iloc[[number - 1 for number in pack.test.numbers]]
three = tested.iloc[[0, len(tested) // 2, -1]]
scores = medclip.score([images / file for file in three.file], model=root / "pack", modality="ultrasound").scores
rows = scores.to_pandas()
rows = rows[(rows.task == "outcome") & (rows["class"] == "malignant")]  # its own task, not that of the built-in pack
rows = rows.assign(file=rows.files.map(lambda files: Path(json.loads(files)[0]).name))[["file", "probability"]]
rows = rows.merge(three[["file", "outcome"]], on="file")
rows.round(3)

# %% [markdown]
# Three answers look like knowledge. What they are worth shows over all women whom the pack did not learn from:

# %%
said = pack.test.probabilities_NC[:, 1]
ill = (tested.outcome == "malignant").to_numpy()
for outcome, own in (("benign", said[~ill]), ("malignant", said[ill])):
    low, middle, high = np.quantile(own, [0.1, 0.5, 0.9])
    print(
        f"{len(own)} women with a {outcome} mass: {(own > 0.5).sum()} called malignant; probability {middle:.2f} in "
        f"the middle, {low:.2f} to {high:.2f} in four of five"
    )
wrong = ((rows.probability > 0.5) != (rows.outcome == "malignant")).sum()
print(f"Of the three above, {wrong} got the wrong answer; the number beside a wrong one looks like any other.")

# %% [markdown]
# ## The answer

# %%
shown = sum(one.low > 0.5 for one in draws)
values = [one.value for one in draws]
verdict = "more than chance" if shown == len(draws) else "nothing that could be relied on to be more than chance"
print(f"Sixteen examples taught {verdict}:")
print(
    f"AUROC {np.mean(values):.2f} on average over five sixteens, {min(values):.2f} to {max(values):.2f}; told from "
    f"chance on the 43 other women with {shown} of 5."
)
print(f"In words, without an example, on all 59: {words}.")
print(f"Radiologists' grades on the same kind of images: {interval_of(radiologist)}.")

# %% [markdown]
# Ten of the women who are tested on have a malignant mass, and that is what keeps the intervals wide. A probability
# near 0 or 1 of one woman means little: a pack learns how sure to be from the same sixteen. What would settle the
# question are more women to *test* on before more to learn from: some two hundred would narrow the interval to about
# ± 0.08. Words and examples are two questions to one image tower: where the words rank these women better than what
# was learned of sixteen, that is no contradiction, but a sign that sixteen are few for 514 numbers.
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

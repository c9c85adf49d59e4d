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
# # Score a study
#
# Open one example study, look at the image as the model sees it, ask about it in words, and read the scores. Nothing is
# trained or adapted. For research; not a medical device.
#
# Run it from the root of the repository, as a notebook (`jupytext --to ipynb notebooks/01_score_a_study.py`) or as a
# script.

# %%
from pathlib import Path

import medclip

study_file = Path("examples/studies/chest_pa.dcm")

# %% [markdown]
# ## What is in the file
#
# `open_study` reads a file or a folder through the same adapters that scoring uses. A sample holds its views and
# everything that was done to the pixels, in order.

# %%
study = medclip.open_study(study_file)
sample = study.samples()[0]
view = sample.views[0]
print(f"modality {sample.modality}, {view.pixels.shape[0]} x {view.pixels.shape[1]} pixels of {view.pixels.dtype}")
print(f"view {view.position}, side {view.laterality}, spacing in mm {view.spacing_mm}")
for step in sample.provenance.steps:
    print(f"- {step.name}: {step.detail}")

# %%
study

# %% [markdown]
# ## Score it
#
# Without an output folder the result exists as long as the variable. Each study gets a row per task and class.

# %%
run = medclip.score(study_file)
print(run.counts)
for row in sorted(run.scores.to_pylist(), key=lambda row: (row["task"], -row["probability"])):
    print(f"{row['task']:22} {row['class']:20} {row['probability']:.3f}")

# %% [markdown]
# There are two kinds of task. The probabilities of a *multiclass* task (the view) add up to 1. In a *multilabel* task
# (the findings) each class is compared with its own opposite: "pneumonia" against "no pneumonia".

# %% [markdown]
# ## Ask in your own words
#
# Any sentence can be a task. State the opposite as well: the probability says how much better the image fits the first
# sentence than the second. The model knows the words of its training captions; for a word that it has never seen, the
# number means nothing.

# %%
questions = [
    ("an enlarged heart", "a heart of normal size"),
    ("fluid around the lung", "no fluid around the lung"),
    ("a frontal chest X-ray", "a lateral chest X-ray"),
]
for prompt, against in questions:
    (row,) = medclip.score(study_file, prompt=prompt, against=against).scores.to_pylist()
    print(f"{row['probability']:.3f}  {prompt!r} against {against!r}")

# %% [markdown]
# ## The same by hand
#
# Images and texts become vectors of length 1, and their product measures how well they fit. Zero-shot scoring consists
# of nothing else.

# %%
import matplotlib.pyplot as plt
import numpy as np

model = medclip.models.load()
pixels = model.preprocess.to_array(view)
image = model.encode_image(pixels[np.newaxis])
sentences = ["chest X-ray", "mammogram", "brain MRI", "fundus photograph"]
similarity = (image @ model.encode_text(sentences).T)[0]

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
left.imshow(pixels)
left.set_axis_off()
left.set_title(f"as the model sees it, {pixels.shape[0]} x {pixels.shape[1]}")
right.barh(sentences[::-1], similarity[::-1])
right.set_xlabel("cosine similarity")
plt.show()

# %% [markdown]
# ## The model's card
#
# The card lists the tasks in which the model is better than chance on unseen patients, with intervals, and what the
# model must not be used for.

# %%
card = model.card
print(card.name, card.version, "-", card.summary)
for name, task in card.tasks.items():
    print(f"- {name}: {', '.join(task.classes)}")
print("Intended use:", card.intended_use)
print("Licence:", card.licence)

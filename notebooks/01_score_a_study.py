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
# # Score a study, and how far to believe it
#
# **The question.** A chest film comes without a report. Which view is it? Does the model see pneumonia, and what is its
# number worth?
#
# **The data.** Four real films, from ChestX-ray14 (NIH Clinical Center; Wang et al., CVPR 2017) and from Hannover
# Medical School (CC BY 3.0). The built-in model was not trained on these patients.
#
# **The answer** has three parts: the score, what the score does when the film hardly changes, and the figure with its
# interval that was measured on other patients, which says where it does not hold. For research; not a medical device.
#
# Run it from the root of the repository, as a notebook (`jupytext --to ipynb notebooks/01_score_a_study.py`) or as a
# script. It takes half a minute.

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

import medclip

studies = Path("examples/studies")
film = studies / "chest_pa.dcm"
root = Path(tempfile.mkdtemp())

# %% [markdown]
# ## What is in the file
#
# `open_study` reads a file or a folder through the same adapters that scoring uses. A sample holds its views and
# everything that was done to the pixels, in order; of the header it keeps nothing that identifies the patient.

# %%
study = medclip.open_study(film)
sample = study.samples()[0]
view = sample.views[0]
print(f"modality {sample.modality}, {view.pixels.shape[0]} x {view.pixels.shape[1]} pixels of {view.pixels.dtype}")
print(f"view {view.position}, side {view.laterality}, spacing in mm {view.spacing_mm}")
for step in sample.provenance.steps:
    print(f"- {step.name}: {step.detail}")

# %%
model = medclip.models.load()
pixels = model.preprocess.to_array(view)
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 4), layout="constrained")
left.imshow(view.pixels[:, :, 0], cmap="gray")
left.set_title("as it is stored")
right.imshow(pixels)
right.set_title(f"as the model sees it, {pixels.shape[0]} x {pixels.shape[1]}")
for place in (left, right):
    place.set_axis_off()
plt.show()

# %% [markdown]
# ## Score it
#
# Without an output folder the result exists as long as the variable. The probabilities of a *multiclass* task (the
# view) add up to 1. In a *multilabel* task (the findings) each class is compared with its own opposite: "pneumonia"
# against "no pneumonia".

# %%
run = medclip.score(film, model=model)
run.scores.to_pandas()[["task", "class", "probability"]].round(3)

# %% [markdown]
# ## A film that hardly changes
#
# The same film turned by a few degrees, a little lighter or darker, cut a little closer. A person would call all of
# them the same film; how far do the answers spread?

# %%
grey = Image.fromarray(np.uint8(np.clip(view.pixels[:, :, 0] / view.pixels.max() * 255, 0, 255)))
width, height = grey.size
variants = {f"turned {degrees:+d}°": grey.rotate(degrees, Image.Resampling.BICUBIC) for degrees in (-4, -2, 2, 4)}
variants |= {f"brightness x {factor}": grey.point(lambda v, f=factor: v * f) for factor in (0.85, 0.95, 1.05, 1.15)}
variants |= {
    f"cut by {share:.0%}": grey.crop((int(width * share), int(height * share), int(width * (1 - share)), height))
    for share in (0.02, 0.05)
}
(root / "variants").mkdir()
for name, image in variants.items():
    image.save(root / "variants" / f"{name}.png".replace(" ", "_"))
changed = medclip.score(root / "variants", model=model, modality="xray", task="chest_xray_findings").scores.to_pandas()
pneumonia = changed[changed["class"] == "pneumonia"].probability
print(f"pneumonia: {pneumonia.min():.2f} to {pneumonia.max():.2f} over {len(pneumonia)} variants of one film")

# %% [markdown]
# ## Other films, other places
#
# Two films of ChestX-ray14, where the model's figure was measured, and one portable film of a patient with COVID-19 in
# another hospital. Its high answer may be right for the wrong reason: most *normal* films of other places get one, too.
# What a run has to say of itself stands in its notes.

# %%
films = ["chest_pa.dcm", "chest_ap.dcm", "chest_portable.jpg"]
runs = {name: medclip.score(studies / name, model=model, modality="xray", task="chest_xray_findings") for name in films}
answers = {name: one.scores.to_pandas() for name, one in runs.items()}
for name, one in runs.items():
    print(f"{name}:", " ".join(one.notes) or "nothing to note")

figure, axes = plt.subplots(1, 3, figsize=(10, 3.8), layout="constrained")
for place, name in zip(axes, films, strict=True):
    shown = medclip.open_study(studies / name, "xray").samples()[0].views[0]
    row = answers[name].set_index("class").loc["pneumonia"]
    place.imshow(shown.pixels[:, :, 0], cmap="gray")
    place.set_title(f"{name}\npneumonia {row.probability:.2f}", fontsize=9)
    place.set_axis_off()
plt.show()

# %% [markdown]
# ## What the number is worth
#
# The card says how well the model did on patients whom it was not trained on, with the interval, and what it did
# elsewhere.

# %%
card = model.card
task = card.tasks["chest_xray_findings"]
figure = task.metrics["auroc"]["pneumonia"]["zero_shot"]
value, low, high = (figure[end] for end in ("value", "low", "high"))
print(f"AUROC {value:.2f} ({low:.2f} to {high:.2f}), {figure['num_patients']} patients of one source")
print(task.note)

# %% [markdown]
# ## In your own words, and by hand
#
# Any sentence can be a task; state the opposite as well. Images and texts become vectors of length 1, and their product
# says how well they fit: zero-shot scoring consists of nothing else. For a word that the model's captions never used
# the number means nothing.

# %%
for prompt, against in (
    ("an enlarged heart", "a heart of normal size"),
    ("a frontal chest X-ray", "a lateral chest X-ray"),
):
    (row,) = medclip.score(film, model=model, prompt=prompt, against=against).scores.to_pylist()
    print(f"{row['probability']:.3f}  {prompt!r} against {against!r}")

sentences = ["chest X-ray", "mammogram", "brain MRI", "fundus photograph"]
similarity = (model.encode_image(pixels[np.newaxis]) @ model.encode_text(sentences).T)[0]
plt.figure(figsize=(6, 2.2), layout="constrained")
plt.barh(sentences[::-1], similarity[::-1])
plt.xlabel("cosine similarity with this film")
plt.show()

# %% [markdown]
# ## What this does not show
#
# - Whether this patient has pneumonia. A probability of 0.9 does not mean that nine of ten such patients are ill: in
#   the set that it was measured on, every second film shows pneumonia, and labels were read out of reports by a
#   program.
# - Anything of films from elsewhere. Across sources the score tells the site more than the disease; the card's note has
#   the figures.
# - That the model looks at the lungs. [Heat maps](../docs/how-to/heat_maps.md) ask that, with checks that say whether
#   to believe them.
# - That ten variants of one film cover what happens to films. [Stress](../docs/how-to/audit_stress.md) does that
#   systematically.

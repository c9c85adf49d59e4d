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
# **The question.** A folder arrives with films, scans, photographs and an ECG, and without a report. What can the
# built-in model say of each? And of one chest film closely: does it see pneumonia, and what is its number worth?
#
# **The data.** Real ones, openly licensed (`examples/sources.csv` has every source and licence): chest films of
# ChestX-ray14 (NIH Clinical Center; Wang et al., CVPR 2017) and of Hannover Medical School, a mammography exam of
# CBIS-DDSM, breast ultrasound of BrEaST, an ECG of PTB-XL, a CT slice of VQA-RAD, a brain MRI slice, a fundus
# photograph, a piece of skin under the microscope. The built-in model was trained on none of these patients.
#
# **The answer** has three parts: the score, what the score does when the image hardly changes, and the figure with its
# interval that was measured on other patients, which says where it does not hold. For research; not a medical device.
#
# Run it from the root of the repository, as a notebook (`jupytext --to ipynb notebooks/01_score_a_study.py`) or as a
# script. It takes a minute.

# %%
import json
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from PIL import Image

import medclip
from medclip.adapters.model_images import images_of
from medclip.models.packs.card_sources import within_figures

studies = Path("examples/studies")
film = studies / "chest_pa.dcm"
root = Path(tempfile.mkdtemp())
model = medclip.models.load()
card = model.card
print(card.name, card.version, "was trained on:", ", ".join(card.modalities))

# %% [markdown]
# ## A folder of all kinds
#
# One call. Every file gets a row: scored, skipped or failed, with the reason. Where no header states what an image is,
# the model looks, and says nothing where it is not sure.

# %%
run = medclip.score(studies, model=model)
files = run.files.to_pandas()
columns = ["path", "status", "modality", "modality_source", "reason"]
files[columns].map(lambda value: value if isinstance(value, str) else "")

# %% [markdown]
# Eight of them: above each what is known of it from elsewhere, below it what the model says. In brackets is what such
# an answer was worth on patients whom the model was not trained on: the area under the ROC curve of a finding, or the
# balanced accuracy of a choice between several, with its 95 % interval; where a task holds within one source only, the
# figure within that. The number in front looks the same whether that figure is high or low.

# %%
figures = card.to_pandas()
answers = run.scores.to_pandas()


def worth(task, name):
    """Return what the card says of an answer: a figure with its interval, and where alone it holds."""
    entry, titles = card.tasks[task], {"auroc": "AUROC", "balanced_accuracy": "bal. accuracy"}
    for one in within_figures(entry.metrics, entry.sources, name):
        figure = one.figure
        return (
            f"{titles[one.metric]} {figure['value']:.2f}, {figure['low']:.2f} to {figure['high']:.2f} in {one.source}"
        )
    rows = figures[figures.task == task].set_index("metric")
    for metric, title in ((f"auroc {name} zero_shot", "auroc"), ("balanced_accuracy zero_shot", "balanced_accuracy")):
        if metric in rows.index:
            row = rows.loc[metric]
            return f"{titles[title]} {row.value:.2f}, {row.low:.2f} to {row.high:.2f}"
    return "no figure"


def lines_of(path):
    """Yield what the model says of a file: of each task its most probable class, or why there is nothing."""
    own = answers[[path in json.loads(names) for names in answers.files]]
    for task, rows in own.groupby("task", sort=False):
        row = rows.loc[rows.probability.idxmax()]
        yield f"{row['class'].replace('_', ' ')} {row.probability:.2f}  [{worth(task, row['class'])}]"
    if own.empty:
        yield f"no answer: {files.set_index('path').loc[path].reason.replace('_', ' ')}"


shown = {
    "chest_pa.dcm": ("xray", "labelled: no finding"),
    "mammogram/mammogram_L_MLO.dcm": ("mammography", "a mass, benign"),
    "breast_ultrasound.jpg": ("ultrasound", "malignant, by biopsy"),
    "fundus.jpg": ("fundus", "nothing stated"),
    "brain_flair.png": ("mri", "no lesion at this level"),
    "abdomen_ct.png": ("ct", "a large renal mass"),
    "tissue.jpg": ("pathology", "skin"),
    "ecg/00223_lr.hea": ("ecg", "infarct, large left ventricle"),
}
figure, axes = plt.subplots(2, 4, figsize=(14, 7.6), layout="constrained")
for place, (path, (modality, known)) in zip(axes.flat, shown.items(), strict=True):
    image = images_of(medclip.open_study(studies / path, modality).samples()[0])[0]
    low, high = image.value_range
    pixels = (image.pixels - low) / (high - low)
    place.imshow(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels, cmap="gray", vmin=0, vmax=1)
    place.set_title(f"{Path(path).name}\n{known}", fontsize=10, loc="left")
    lines = list(lines_of(path))
    place.text(0, -0.03, "\n".join(lines[:4]), fontsize=8, va="top", transform=place.transAxes)
    place.set_anchor("W")
    place.set_axis_off()
plt.show()

# %% [markdown]
# Look at the CT: a mass fills half of the abdomen, and no answer is about it. The model answers what its card lists,
# and what nobody asks it does not find. Nor is a task that is not listed a weak one: it did not do better than chance,
# or was never learned. Which tasks there are, and whether their figures hold across hospitals:

# %%
rows = [
    {"task": name, "class": key, "verdict": by_source.verdict, "measured in": ", ".join(by_source.sources)}
    for name, task in card.tasks.items()
    for key, by_source in task.sources.items()
]
pd.DataFrame(rows)

# %% [markdown]
# ## One film closely: what is in the file
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
# part of the body) add up to 1. In a *multilabel* task (the findings) each class is compared with its own opposite:
# "pneumonia" against "no pneumonia".

# %%
one_film = medclip.score(film, model=model)
one_film.scores.to_pandas()[["task", "class", "probability"]].round(3)

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
# another hospital. A high answer for that one may be right for the wrong reason: a model that learned from films of few
# places can know the place and not the disease. What a run has to say of itself stands in its notes.

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
# elsewhere. The first line is the one to go by, for a film of that source; for a film from anywhere else there is none.

# %%
task = card.tasks["chest_xray_findings"]
print(worth("chest_xray_findings", "pneumonia"))
for kind, figure in task.sources["pneumonia"].figures.items():
    print(f"{kind}: {figure['value']:.2f} ({figure['low']:.2f} to {figure['high']:.2f})")
print("Verdict:", task.sources["pneumonia"].verdict)

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
# - Anything of films from elsewhere, beyond the figures across sources above. An interval is about other patients of
#   the same places.
# - That eight images are a test. They are there to be looked at; an answer that happens to be right proves as little as
#   one that is wrong.
# - That the model looks at the lungs. [Heat maps](../docs/how-to/heat_maps.md) ask that, with checks that say whether
#   to believe them.
# - That ten variants of one film cover what happens to films. [Stress](../docs/how-to/audit_stress.md) does that
#   systematically.

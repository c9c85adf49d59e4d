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
# photograph, a piece of skin under the microscope. The built-in model was trained on none of these patients. There is
# no dermoscopy, no contrast mammogram and no printed ECG sheet of a patient: the sets that the model learned those from
# may be learned from and not be shipped. A sheet is printed by code further down.
#
# **The answer** has three parts: the score, what the score does when the image hardly changes, and the figure with its
# interval that was measured on other patients, which says where it does not hold. For research; not a medical device.
#
# Run it from the root of the repository, as a notebook (`jupytext --to ipynb notebooks/01_score_a_study.py`) or as a
# script. It takes a minute.

# %%
import json
import tempfile
import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from PIL import Image

import medclip
from medclip.adapters.model_images import images_of
from medclip.models.packs.card_sources import within_figures
from medclip.text.vocabulary.load import load_task, task_names

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
files[["path", "status", "modality", "modality_source"]].map(lambda value: value if isinstance(value, str) else "")

# %% [markdown]
# Those that were not scored, and why:

# %%
for row in files[files.status != "scored"].itertuples():
    print(f"{row.path}: {row.status}, {row.reason.replace('_', ' ')}")

# %% [markdown]
# Eight of them: above each what is known of it from elsewhere, below it what the model says. In brackets is what such
# an answer was worth on patients whom the model was not trained on: the area under the ROC curve of a finding, or the
# balanced accuracy of a choice between several, with its 95 % interval and what chance alone gives; where a task holds
# within one source only, the figure within that. The number in front looks the same whether that figure is high or low.

# %%
figures = card.to_pandas()
answers = run.scores.to_pandas()


def title_of(task, name):
    """Return the words for a class: "sttc" says little, "ST-T changes" more."""
    classes = load_task(task).classes if task in task_names() else ()
    return next((one.title for one in classes if one.name == name), name.replace("_", " "))


def worth(task, name):
    """Return what the card says of an answer: a figure with its interval, chance, and where alone it holds."""
    entry, titles = card.tasks[task], {"auroc": "AUROC", "balanced_accuracy": "bal. accuracy"}
    rows = figures[figures.task == task].set_index("metric")
    in_words = "{} {:.2f}, {:.2f} to {:.2f}, chance {:.2f}"
    for one in within_figures(entry.metrics, entry.sources, name):
        value, low, high, chance = (one.figure[key] for key in ("value", "low", "high", "chance"))
        return f"{in_words.format(titles[one.metric], value, low, high, chance)}, in {one.source}"
    for metric, title in ((f"auroc {name} zero_shot", "auroc"), ("balanced_accuracy zero_shot", "balanced_accuracy")):
        if metric in rows.index:
            row = rows.loc[metric]
            return in_words.format(titles[title], row.value, row.low, row.high, row.chance)
    return "no figure"


def lines_of(path):
    """Yield what the model says of a file: of each task its most probable class, or why there is nothing."""
    own = answers[[path in json.loads(names) for names in answers.files]]
    for task, rows in own.groupby("task", sort=False):
        row = rows.loc[rows.probability.idxmax()]
        yield f"{title_of(task, row['class'])} {row.probability:.2f}\n  [{worth(task, row['class'])}]"
    if own.empty:
        yield f"no answer: {files.set_index('path').loc[path].message.split(';')[0]}"


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
figure, axes = plt.subplots(2, 4, figsize=(14, 8.2), layout="constrained")
for place, (path, (modality, known)) in zip(axes.flat, shown.items(), strict=True):
    image = images_of(medclip.open_study(studies / path, modality).samples()[0])[0]
    low, high = image.value_range
    pixels = (image.pixels - low) / (high - low)
    place.imshow(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels, cmap="gray", vmin=0, vmax=1)
    place.set_title(f"{Path(path).name}\n{known}", fontsize=10, loc="left")
    lines = list(lines_of(path))
    place.text(0, -0.03, "\n".join(lines[:3]), fontsize=8, va="top", transform=place.transAxes)
    place.set_anchor("W")
    place.set_axis_off()
plt.show()

# %% [markdown]
# Look at the CT: a mass fills half of the abdomen, and no answer is about it. The model answers what its card lists,
# and what nobody asks it does not find. Where there is no answer at all, the model may well know the kind of image and
# have been taught of it: a task that is not listed is no weak one, it did not do better than chance on other patients,
# or was never learned. Which tasks there are, and whether their figures hold across hospitals:

# %%
rows = [
    {"task": name, "class": key, "verdict": by_source.verdict, "measured in": ", ".join(by_source.sources)}
    for name, task in card.tasks.items()
    for key, by_source in task.sources.items()
]
pd.DataFrame(rows)

# %% [markdown]
# ## A sheet of paper
#
# Many ECGs exist on paper only. This one is printed by code from a record of PTB-XL, whose cardiologist wrote of a
# right bundle branch block; the sheet shows no name and no number. It is scored as the image that it is. Two things to
# keep in mind: the model learned sheets of another department, which look different, and of the groups that it knows
# none may be the right one.

# %%
medclip.ecg.render("examples/ecg/00172_lr.hea", root / "sheet.png")
sheet = medclip.score(root / "sheet.png", model=model, modality="ecg")
plt.figure(figsize=(9, 5), layout="constrained")
plt.imshow(Image.open(root / "sheet.png").reduce(2))
plt.axis("off")
plt.show()
if sheet.scores.num_rows == 0:
    print("no answer:", sheet.files.to_pylist()[0]["message"])
for row in sorted(sheet.scores.to_pylist(), key=lambda row: -row["probability"]):
    note = f"; {row['caution']}" if row["caution"] else ""
    print(f"{title_of(row['task'], row['class'])} {row['probability']:.2f} [{worth(row['task'], row['class'])}]{note}")

# %% [markdown]
# Reading a sheet back into millivolts and asking about the record is another way
# ([ECGs on paper](../docs/how-to/ecg_sheets.md)).
#
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
# elsewhere. The first line is the one to go by, and the verdict says for which films.

# %%
task = card.tasks["chest_xray_findings"]
print(worth("chest_xray_findings", "pneumonia"))
for kind, figure in task.sources["pneumonia"].figures.items():
    print(f"{kind}: {figure['value']:.2f} ({figure['low']:.2f} to {figure['high']:.2f})")
by_source = task.sources["pneumonia"]
print("Verdict:", by_source.verdict)
if by_source.caution:
    print(f"So the figure is for films of {', '.join(by_source.sources)}; for a film from anywhere else there is none.")

# %% [markdown]
# ## In your own words, and by hand
#
# Any sentence can be a task; state the opposite as well. A probability comes back whatever is asked, so read what the
# run notes beside it: whether the model's captions had such words at all, and whether anybody measured the question.

# %%
for prompt, against in (
    ("an enlarged heart", "a heart of normal size"),
    ("a frontal chest X-ray", "a lateral chest X-ray"),
    ("pneumonia", "no pneumonia"),
):
    asked = medclip.score(film, model=model, prompt=prompt, against=against)
    (row,) = asked.scores.to_pylist()
    print(f"{row['probability']:.3f}  {prompt!r} against {against!r}")
    for note in dict.fromkeys([*([row["caution"]] if row["caution"] else []), *asked.notes]):
        print(textwrap.fill(note, 110, initial_indent="       ", subsequent_indent="       "))

# %% [markdown]
# The side from which a film was taken anybody sees. A number near 0.5 there is what "not learned" looks like, and where
# the note says so, a number far from 0.5 is no better founded. The last question is on the card, but in other words:
# the figure there is that of the task's own sentences, and this number need not be the one further up.
#
# Images and texts become vectors of length 1, and their product says how well they fit: zero-shot scoring consists of
# nothing else.

# %%
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
# - That a few images are a test. They are there to be looked at; an answer that happens to be right proves as little
#   as one that is wrong.
# - That the model looks at the lungs. [Heat maps](../docs/how-to/heat_maps.md) ask that, with checks that say whether
#   to believe them.
# - That ten variants of one film cover what happens to films. [Stress](../docs/how-to/audit_stress.md) does that
#   systematically.

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
# # ECG: from paper, and into words
#
# **The question.** A department kept its ECGs on paper. How far can a sheet be trusted once it has been photographed
# and read back into millivolts? What does the built-in model say of such records, and does it say the same of the
# photograph? And what does it take to train a model of ECGs with words?
#
# **The data.** Twelve real records of PTB-XL (Wagner et al., Scientific Data 2020, CC BY 4.0), normal and ill, six of
# them drawn as sheets, so that the truth is known. The built-in model was trained on none of these patients. For the
# last question, hearts that are drawn by code: it takes hundreds of records, and twelve are here.
#
# **The answer** is the error of each lead, which leads say of themselves that they are in doubt, and what was said of
# twelve hearts beside what cardiologists wrote. For research; not a medical device.
#
# Run it from the root of the repository. It takes about a minute and a half.

# %%
import json
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from PIL import Image

import medclip
from medclip.adapters.ecg import raw_signal
from medclip.imaging.ecg.lead_names import TWELVE
from medclip.text.vocabulary.load import load_task

records = Path("examples/ecg")
root = Path(tempfile.mkdtemp())
table = pd.read_csv(records / "labels.csv")
groups = {one.name: one.title for one in load_task("ecg_superclass").classes}
table["groups"] = [", ".join(groups[code.lower()] for code in codes.split("|")) for codes in table.superclass]
table[["file", "age", "groups", "report"]]

# %% [markdown]
# ## A record
#
# Leads are found by name, put into the standard order and read in millivolts, whatever the file's own units are. The
# adapter says what it did and what is wrong with the record.

# %%
record = records / "00172_lr.hea"  # complete right bundle branch block
study = medclip.open_study(record)
study

# %% [markdown]
# ## As a sheet, and as a photograph of the sheet
#
# 25 mm/s and 10 mm/mV on millimetre paper. `photograph` does to the sheet what a telephone does: it is turned, seen at
# an angle, shaded, blurred and compressed.

# %%
medclip.ecg.render(record, root / "sheet.png")
medclip.ecg.render(record, root / "photo.png", photograph=True, seed=3)
figure, axes = plt.subplots(1, 2, figsize=(12, 4.4), layout="constrained")
for place, name in zip(axes, ("sheet", "photo"), strict=True):
    place.imshow(Image.open(root / f"{name}.png").reduce(2))
    place.set_title(name)
    place.set_axis_off()
plt.show()

# %% [markdown]
# ## Read back
#
# The grid gives scale, turn and perspective; nothing is guessed from the size of the image. Each lead has a confidence,
# and is *sure* only if so little of it is in doubt that it cannot matter.

# %%
read = medclip.ecg.digitise(root / "photo.png", root / "photo.csv")
read

# %% [markdown]
# Grey is the record, red what was read of the photograph. On a sheet of three rows each lead is there for 2.5 seconds,
# and the rhythm strip (II) for ten.


# %%
def stored(path):
    """Return the twelve leads of a record in mV, [12, T], and its rate in Hz."""
    signal = raw_signal(medclip.open_study(path).units[0].source)
    return signal.values_mv, signal.sampling_hz


def beside(truth_mv, truth_hz, sheet):
    """Yield the lead, what was read of it and the record at the same instants, in mV."""
    seconds = np.arange(sheet.values_mv.shape[1]) / sheet.sampling_hz
    for number, lead in enumerate(TWELVE):
        seen = np.isfinite(sheet.values_mv[number])
        instants = np.arange(truth_mv.shape[1]) / truth_hz
        yield lead, seconds[seen], sheet.values_mv[number][seen], np.interp(seconds[seen], instants, truth_mv[number])


truth_mv, truth_hz = stored(record)
figure, axes = plt.subplots(3, 4, figsize=(12, 5), layout="constrained", sharey=True)
for place, (lead, seconds, got_mv, true_mv) in zip(axes.T.flat, beside(truth_mv, truth_hz, read), strict=True):
    place.plot(seconds, true_mv, color="0.6", linewidth=3)
    place.plot(seconds, got_mv, color="#b2182b", linewidth=0.9)
    place.set_title(lead, fontsize=9)
    place.set_xlim(seconds[0], seconds[0] + 2.5)
for place in axes[:, 0]:
    place.set_ylabel("mV")
plt.show()

# %% [markdown]
# ## Six records, clean and photographed
#
# Correlation says whether the shape is right, the root mean square error how many millivolts are missing: 0.1 mV is one
# small square of the paper. A photograph that cannot be read is refused with the reason, and is no row below.

# %%
rows = []
for number, row in list(enumerate(table.itertuples()))[::2]:
    truth_mv, truth_hz = stored(records / row.file)
    for kind, options in (("clean", {}), ("photograph", {"photograph": 100 + number})):
        image = root / f"{number}_{kind}.png"
        medclip.ecg.render(records / row.file, image, **options)
        (root / kind).mkdir(exist_ok=True)
        try:
            sheet = medclip.ecg.digitise(image, root / kind / row.file)
        except medclip.MedclipError as refused:
            print(f"record {number}, {kind}, not read: {refused.message}")
            continue
        sure = {lead.lead: lead.sure for lead in sheet.leads}
        for lead, _, got_mv, true_mv in beside(truth_mv, truth_hz, sheet):
            if len(got_mv) < 100 or not sure[lead]:
                rows.append({"patient": row.patient, "kind": kind, "lead": lead, "sure": False})
                continue
            error_mv = (got_mv - np.median(got_mv)) - (true_mv - np.median(true_mv))
            rows.append(
                {
                    "patient": row.patient,
                    "kind": kind,
                    "lead": lead,
                    "sure": True,
                    "correlation": np.corrcoef(got_mv, true_mv)[0, 1],
                    "error_mv": float(np.sqrt(np.mean(error_mv**2))),
                }
            )
leads = pd.DataFrame(rows)
leads.groupby("kind").agg(
    leads=("lead", "size"),
    sure=("sure", "sum"),
    correlation=("correlation", "median"),
    lowest_correlation=("correlation", "min"),
    error_mv=("error_mv", "median"),
    largest_error_mv=("error_mv", "max"),
).round(3)

# %% [markdown]
# How often is a lead that calls itself sure right to a small square? The interval is over patients, not over leads: the
# leads of one sheet fail together.

# %%
from medclip.statistics.metrics.classification import measured
from medclip.statistics.resampling.resampled import interval_of

for kind, part in leads[leads.sure].groupby("kind"):
    within = (part.error_mv <= 0.1).to_numpy()
    share = measured(np.ones(len(part), int), within - 0.5, part.patient.tolist(), ["accuracy"])["accuracy"]
    print(f"{kind}: {within.sum()} of {len(part)} sure leads of {part.patient.nunique()} patients:", interval_of(share))

# %%
figure, axis = plt.subplots(figsize=(9, 2.8), layout="constrained")
for kind, colour in (("clean", "0.3"), ("photograph", "#b2182b")):
    part = leads[(leads.kind == kind) & leads.sure]
    axis.plot(part.lead, part.error_mv, "o", color=colour, alpha=0.5, label=kind)
axis.axhline(0.1, color="0.6", linestyle=":", label="one small square")
axis.set_ylabel("error of a lead, mV")
axis.set_ylim(bottom=0)
axis.legend()
plt.show()

# %% [markdown]
# ## What the built-in model says of them
#
# It is a model of images: of a record it is shown cuttings of the sheet. A model answers only for what it was trained
# on, so look at its card first.

# %%
model = medclip.models.load()
card = model.card
print(card.name, card.version, "was trained on:", ", ".join(card.modalities))
asked = medclip.score(records, model=model)
answers = asked.scores.to_pandas()
for reason in sorted({row["message"] for row in asked.files.to_pylist() if row["path"].endswith(".hea")} - {None}):
    print(reason)
figures = card.to_pandas()
tasks = [task for task in card.tasks if task.startswith("ecg_") and task in set(answers.task)]
for row in figures[figures.task.isin(tasks) & figures.metric.str.endswith(" zero_shot")].itertuples():
    print(f"{row.task}: {row.metric} {row.value:.2f} ({row.low:.2f} to {row.high:.2f}), chance {row.chance:.2f}")

# %% [markdown]
# What it says of the diagnostic groups that its card lists, and with a cross what cardiologists wrote; below, the same
# of the photographs that could be read. Where the rows look alike although the hearts do not, the model says little. A
# heart may be ill in other ways, too: of those the model is not asked.


# %%
def by_record(scores):
    """Return probabilities of the groups, a row for each record in the order of the table."""
    own = scores[scores.task == "ecg_superclass"]
    files = own.files.map(lambda names: next(name for name in json.loads(names) if name.endswith(".hea")))
    wide = own.assign(file=files).pivot(index="file", columns="class", values="probability")
    return wide.reindex([file for file in table.file if file in wide.index])


def draw(probabilities, title):
    """Draw probabilities as grey, the darker the higher, with a cross at what is true."""
    rows = table.set_index("file").loc[probabilities.index]
    figure, axis = plt.subplots(figsize=(7, 1 + 0.27 * len(rows)), layout="constrained")
    shown = axis.imshow(probabilities, cmap="Greys", vmin=0, vmax=1, aspect="auto")
    for y, codes in enumerate(rows.superclass):
        for x, name in enumerate(probabilities):
            if name.upper() in codes.split("|"):
                axis.plot(x, y, "x", color="#b2182b", markersize=9, markeredgewidth=2)
    axis.set_xticks(range(len(probabilities.columns)), [groups[name] for name in probabilities])
    axis.set_yticks(range(len(rows)), [f"{row.patient}, {row.age:.0f}" for row in rows.itertuples()])
    axis.set_title(title)
    figure.colorbar(shown, label="probability")
    plt.show()


if "ecg_superclass" in tasks:
    from_record = by_record(answers)
    from_photograph = by_record(medclip.score(root / "photograph", model=model).scores.to_pandas())
    draw(from_record, "asked of the record")
    draw(from_photograph, "asked of its photograph, read back")

# %% [markdown]
# Counted, group by group: of the hearts of which cardiologists wrote it, of how many is it the model's most probable
# group, and what does the model put first instead? A model that puts one group first whatever it is shown is right
# about that group, and its share of right answers says nothing.

# %%
if "ecg_superclass" in tasks:
    truth = [codes.lower().split("|") for codes in table.superclass]
    best = from_record.idxmax(axis=1)
    counted = pd.DataFrame(
        [
            {
                "written by cardiologists": groups[name],
                "records": sum(name in codes for codes in truth),
                "put first by the model": sum(
                    name in codes and first == name for codes, first in zip(truth, best, strict=True)
                ),
                "put first instead": ", ".join(
                    f"{groups[first]} {count}"
                    for first, count in best[[name in codes for codes in truth]].value_counts().items()
                    if first != name
                ),
            }
            for name in sorted({name for codes in truth for name in codes}, key=list(groups).index)
        ]
    )
    print(counted.to_string(index=False))

# %% [markdown]
# What follows from the counts, and by how much does the paper change an answer?

# %%
if "ecg_superclass" in tasks:
    right = np.array([name in codes for name, codes in zip(best, truth, strict=True)])
    share = measured(np.ones(len(right), int), right - 0.5, table.patient.tolist(), ["accuracy"])["accuracy"]
    known = interval_of(share)
    favourite, times = best.value_counts().index[0], best.value_counts().iloc[0]
    always = np.mean([favourite in codes for codes in truth])
    print(f"It puts '{groups[favourite]}' first in {times} of {len(best)} records.")
    print(f"Right in {right.sum()} of {len(right)}: {known}; that one group for all would be right in {always:.2f}.")
    better = "better than" if known.low > always else "not shown to be better than"
    print(f"So on these twelve the most probable group is {better} one and the same answer for all.")
    normal = np.array(["norm" in codes for codes in truth])
    if "norm" in from_record:
        missed = int((best[normal] != "norm").sum())
        print(f"Of {normal.sum()} normal hearts {missed} get a group of illness first.")
    change = (from_photograph - from_record.loc[from_photograph.index]).abs().stack()
    print(f"the photograph changes a probability by {change.median():.2f} (median), at most {change.max():.2f}")
else:
    print(
        "The built-in model does not answer for records of ECGs, so there is no picture: its card lists no such task."
    )

# %% [markdown]
# ## A model of the signal
#
# A model that takes the signal itself learns from records with reports. Twelve records teach nothing, so these hearts
# are drawn by code, with reports of what was planted, in the columns of PTB-XL: reports are cleaned, statements become
# labels of six tasks, and each record gets a report written of its codes beside its own.

# %%
sys.path.insert(0, "pipelines/ecg")
from simulate import write_cohort  # pyright: ignore[reportMissingImports]

write_cohort(root / "cohort", 40, sampling_hz=100)
captions = medclip.pairs.captions(
    root / "cohort" / "ptbxl_database.csv", root / "captions.csv", from_="ecg", num_captions=1
)
captions

# %% [markdown]
# The loss is MERL's: records with reports, and two views of each record's features with each other. Forty hearts and
# some seconds are far too little; the calls of a real run are the same.

# %%
shards = medclip.shards.build(root / "captions.csv", root / "shards", signals=True)
recipe = {
    "name": "ecg-notebook",
    "data": {"shards": str(root / "shards")},
    "text": {"vocab_size": 600, "context_length": 48},
    "model": {
        "signal": {"tower": "resnet1d", "size": "test", "sampling_hz": 100},
        "embed_dim": 32,
        "text_width": 32,
        "text_heads": 2,
        "text_layers": 1,
    },
    "objective": "merl",
    "train": {"epochs": 6, "batch_size": 16, "warmup_steps": 4, "threads": 1},
}
run = medclip.pretrain(recipe, out=root / "run")
run

# %% [markdown]
# Asked in words of the real records, which it has never seen anything like. It answers, as every model does; the note
# beside an answer says what is wrong with the record, not what is wrong with the model.

# %%
answers = medclip.score(records, model=run.pack, task="ecg_superclass").scores.to_pandas()
answers[answers.study == answers.study.iloc[0]][["task", "class", "probability", "note"]]

# %% [markdown]
# ## What this does not show
#
# - Sheets that were drawn and then spoiled by code are not those of an archive: no folds, no stains, no handwriting,
#   and the paper speed is known. Measure on some of your own, of which you have the record, too.
# - The records were chosen to be varied. The share of sure leads in your archive will differ.
# - Whether the built-in model can be trusted with an ECG: twelve records are an illustration, and where it answers at
#   all, its card has the figures.
# - Nothing of any diagnosis. The model of the signal has learned next to nothing, and its figures are of drawn hearts.
#   What reports bring where labels are few was measured with real records:
#   [ECGs with words](../docs/how-to/ecg.md) says where.

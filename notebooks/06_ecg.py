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
# # ECG: signals and reports in one space
#
# A researcher has ECG records with reports, and labels of a few. Look at a record, learn from the reports, ask in words
# without any label, then fine-tune on the labels there are. The patients are drawn by code, so there is none in them.
# For research; not a medical device.
#
# Run it from the root of the repository, as a notebook (`jupytext --to ipynb notebooks/06_ecg.py`) or as a script. It
# takes about a minute, so its model has learned next to nothing; the calls of a real run are the same.

# %%
import sys
import tempfile
from pathlib import Path

import pandas as pd

import medclip

sys.path.insert(0, "pipelines/ecg")
from simulate import write_cohort  # pyright: ignore[reportMissingImports]

root = Path(tempfile.mkdtemp())

# %% [markdown]
# ## The records
#
# WFDB here; DICOM waveforms, EDF, SCP-ECG and the XML of carts are read by the same call. Of a record its leads come in
# their order, in millivolts, with what is wrong with them.

# %%
table = write_cohort(root / "cohort", 60, sampling_hz=100)
rows = pd.read_csv(table)
ill = rows[rows["label:ecg_superclass:mi"] == 1].iloc[0]
print(ill[["age", "sex", "report", "scp_codes"]].to_dict())
study = medclip.open_study(root / "cohort" / ill.file)
study

# %% [markdown]
# On paper, 25 mm/s and 10 mm/mV, beside what a model would see:

# %%
medclip.view(root / "cohort" / ill.file, root / "sheet.png")

# %% [markdown]
# ## Reports
#
# The table has PTB-XL's columns: codes with likelihoods, reports in German and English, folds. Reports are cleaned,
# statements become labels of six tasks, and each record gets a report written of its codes beside its own.

# %%
captions = medclip.shards.captions_from_ecg(root / "cohort" / "ptbxl_database.csv", root / "captions.csv", n=1)
captions

# %% [markdown]
# ## Learn from reports
#
# Shards hold records as their files have them; how fast and how long they are taken is the recipe's choice. The loss is
# MERL's: records with reports, and two views of each record's features with each other.

# %%
shards = medclip.shards.build(root / "captions.csv", root / "shards", signals=True)
recipe = {
    "name": "ecg-notebook",
    "data": {"shards": str(root / "shards")},
    "text": {"vocab_size": 600, "context_length": 48},
    "model": {
        "signal": {"tower": "resnet1d", "size": "test", "sampling_hz": 100}, "embed_dim": 32,
        "text_width": 32, "text_heads": 2, "text_layers": 1,
    },
    "objective": "merl",
    "train": {"epochs": 10, "batch_size": 16, "warmup_steps": 4, "threads": 1},
}  # fmt: skip
run = medclip.pretrain(recipe, out=root / "run")
run

# %% [markdown]
# ## Ask in words
#
# The classes are described, and no label is read. What is wrong with a record (a lead that is off, swapped arms, a
# short strip) is in its row.

# %%
scores = medclip.score(root / "cohort" / "records", model=run.pack, task="ecg_superclass")
answers = scores.scores.to_pandas()
answers[answers.study == answers.study.iloc[0]][["task", "class", "probability", "note"]]

# %% [markdown]
# ## Fine-tune on the labels there are
#
# The tower of that pack, with two findings that may occur together. Patients stay on one side, and areas are of test
# patients, with intervals over them.

# %%
labels = rows[["file", "patient", "modality"]].assign(
    infarct=rows["label:ecg_superclass:mi"], conduction=rows["label:ecg_superclass:cd"]
)
tuned = medclip.finetune(
    run.pack, labels, ["infarct", "conduction"], images=root / "cohort", out=root / "tuned",
    overrides={"train.epochs": 3},
)  # fmt: skip
tuned

# %% [markdown]
# PTB-XL's whole protocol (folds, six levels, words and heads, intervals) is `pipelines/ecg/protocol.py`; what reports
# bring where labels are few is measured by `pipelines/ecg/measure.py`.

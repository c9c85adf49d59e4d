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
# # Mammography: several views, reports and risk
#
# A researcher has mammography exams with a table of findings, and years of follow-up of some. Hang an exam, write
# reports from the table, train one model on all four views, ask it for malignancy, density and the risk of the next
# years, and audit the answers. The women are drawn by code, so there is no patient in them. For research; not a medical
# device.
#
# Run it from the root of the repository, as a notebook (`jupytext --to ipynb notebooks/04_mammography.py`) or as a
# script. It takes about a minute, so its model has learned next to nothing; a real run takes hours, and the calls are
# the same.

# %%
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from PIL import Image

import medclip

sys.path.insert(0, "pipelines/mv_mlm")
from simulate import write_cohort  # pyright: ignore[reportMissingImports]

root = Path(tempfile.mkdtemp())

# %% [markdown]
# ## The exams
#
# Eighty women, four images each. A table names the views, for these are PNG; DICOM headers say it themselves. The
# hanging that readers are used to has the right breast on the left, CC above MLO, and the chest walls facing.

# %%
table = write_cohort(root / "cohort", 80)
rows = pd.read_csv(table)
lesion = rows[rows["label:mammography_malignancy"] == "malignant"].iloc[0]
print(lesion[["laterality", "density", "birads", "findings"]].to_dict())

figure, places = plt.subplots(2, 2, figsize=(4, 6), gridspec_kw={"wspace": 0, "hspace": 0.02})
for place, (side, view) in zip(places.flat, [("R", "CC"), ("L", "CC"), ("R", "MLO"), ("L", "MLO")], strict=True):
    own = rows[(rows.patient == lesion.patient) & (rows.laterality == side) & (rows["view"] == view)].iloc[0]
    place.imshow(Image.open(root / "cohort" / own.file), cmap="gray")
    place.set_axis_off()
plt.show()

# %% [markdown]
# ## Reports
#
# Of each breast several reports, in the words of BI-RADS. They state what the table states and nothing else, and speak
# of no breast that the image does not show. The tables of VinDr-Mammo, RSNA, CBIS-DDSM, CDD-CESM, EMBED and INbreast
# are read in the same way.

# %%
medclip.shards.captions_from_mammography(table, root / "cohort" / "reports.csv", n=3)
reports = pd.read_csv(root / "cohort" / "reports.csv")
for report in reports[reports.file == lesion.file].captions.iloc[0].split("\n"):
    print("-", report)

# %% [markdown]
# ## One model for all views
#
# `--group exam` makes one sample of an exam; women stay in one part. The loss contrasts images with reports, the views
# of a breast with each other, and what the views are fused to with reports. In the same run three heads learn from the
# labels: the risk head knows which years a woman was followed, and no others.

# %%
shards = medclip.shards.build(root / "cohort" / "reports.csv", root / "shards", group="exam", max_side=160)
print(shards.num_samples, "exams")
recipe = {
    "name": "mammography-notebook",
    "data": {"shards": str(root / "shards")},
    "text": {"vocab_size": 600, "context_length": 96},
    "model": {
        "image_tower": "test_resnet", "image_weights": None, "size_px": 96, "embed_dim": 64, "freeze_bn": False,
        "text_width": 64, "text_heads": 2, "text_layers": 2,
    },
    "augment": {"flip": 0.0},
    "objective": {
        "views": {"max": 4, "fusion": "attention"},
        "supervised": [
            {"task": "mammography_malignancy"}, {"task": "breast_composition"}, {"task": "breast_cancer_risk"},
        ],
    },
    "train": {"epochs": 6, "batch_size": 8, "lr": 2e-3, "warmup_steps": 4, "threads": 1},
}  # fmt: skip
run = medclip.pretrain(recipe, out=root / "run")
run

# %% [markdown]
# ## Ask for the exam, each breast and each image
#
# The heads answer by the names of their tasks. `attention_exam` is each image's share in the answer of the exam: what
# the model used, and no localisation.

# %%
scores = medclip.score(root / "cohort" / "images", table=table, model=run.pack, exam=True)
answers = scores.exam_scores.to_pandas()
first = answers[(answers.study == answers.study.iloc[0]) & (answers.task == "mammography_malignancy")]
first[first["class"] == "malignant"][["level", "side", "position", "probability", "attention_exam", "note"]]

# %% [markdown]
# A risk never falls from year to year:

# %%
risk = answers[(answers.task == "breast_cancer_risk") & (answers.level == "exam")]
risk.pivot(index="study", columns="class", values="probability").head(4).round(3)

# %% [markdown]
# ## Audit the risk
#
# Cancers within six months were there at the exam: seeing them is detection. The audit gives both, with intervals that
# resample women, and for each year the area, operating points and calibration. Only women who were not trained on count
# (`where`). With so few of them, the intervals say how little is known, and of fewer than ten women with or without the
# cancer there is no figure: of most years, and of the risk without the cancers that were there at the exam.

# %%
audit = medclip.audit(
    scores, table, level="exam", risk=["breast_cancer_risk"], where=["split=test"], num_resamples=300, permutations=100
)
figures = pd.DataFrame(audit.risk)
figures[(figures.attribute == "all") & figures.metric.str.startswith(("c_index", "auroc"))][
    ["population", "year", "metric", "value", "low", "high", "n_pos", "n_neg"]
].dropna(subset="value")

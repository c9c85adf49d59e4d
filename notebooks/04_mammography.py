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
# **The question.** What does the built-in model say of this exam, and do its four views agree? And what would it take
# to ask a model of all views together for malignancy and for the risk of the next years?
#
# **The data.** One real exam of CBIS-DDSM (Lee et al., Scientific Data 2017, CC BY 3.0), of which the built-in model
# has learned nothing; a mass in it was found benign. For the second question women who are drawn by code, because
# nobody may ship years of follow-up.
#
# **The answer** to the first stands beside the figure that was measured on other women; to the second, there are
# intervals that say how little a minute of training knows. For research; not a medical device.
#
# Run it from the root of the repository. It takes about a minute; a real training takes hours, and the calls are the
# same.

# %%
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from PIL import Image

import medclip

sys.path.insert(0, "pipelines/mv_mlm")
from simulate import write_cohort  # pyright: ignore[reportMissingImports]

root = Path(tempfile.mkdtemp())
hanging = [("R", "CC"), ("L", "CC"), ("R", "MLO"), ("L", "MLO")]

# %% [markdown]
# ## A real exam
#
# The hanging that readers are used to has the right breast on the left, CC above MLO, and the chest walls facing. The
# adapter turns every breast the same way for the model; here the right ones are turned back.

# %%
exam = Path("examples/studies/mammogram")
figure, places = plt.subplots(2, 2, figsize=(4.6, 6.4), gridspec_kw={"wspace": 0, "hspace": 0.02})
for place, (side, position) in zip(places.flat, hanging, strict=True):
    view = medclip.open_study(exam / f"mammogram_{side}_{position}.dcm").samples()[0].views[0]
    image = view.pixels[:, :, 0]
    place.imshow(image[:, ::-1] if side == "R" else image, cmap="gray")
    place.text(
        0.05 if side == "R" else 0.7, 0.93, f"{side} {position}", color="w", fontsize=8, transform=place.transAxes
    )
    place.set_anchor("E" if side == "R" else "W")
    place.set_axis_off()
plt.show()

# %% [markdown]
# ## What the built-in model says, view by view
#
# With `exam=True` each image, each breast and the whole exam get an answer. Four views of one woman ought to agree
# about her tissue; where they do not, the last row hides it.

# %%
model = medclip.models.load()
scored = medclip.score(exam, model=model, exam=True)
answers = scored.exam_scores.to_pandas()
for task, rows in answers.groupby("task", sort=False):
    wide = rows.assign(part=rows.level + " " + rows.side.fillna("") + " " + rows.position.fillna(""))
    wide = wide.pivot_table(index="part", columns="class", values="probability", sort=False)
    figure, axis = plt.subplots(figsize=(7, 2.6), layout="constrained")
    left = np.zeros(len(wide))
    for name in wide:
        axis.barh(wide.index, wide[name], left=left, label=name.replace("_", " "))
        left += wide[name].to_numpy()
    axis.invert_yaxis()
    axis.set_xlabel("probability")
    figure.suptitle(task.replace("_", " "), fontsize=10)
    figure.legend(loc="outside right center")
    plt.show()

# %% [markdown]
# What such an answer is worth, from the card: the figure on women whom the model was not trained on, where they come
# from, and whether it was asked across sources. Where a task holds within one source only, the figure within each. The
# images of this woman are scanned films (CBIS-DDSM); of the sources, mini-MIAS is of scanned films, and CDD-CESM is
# contrast mammography, which looks different.

# %%
FILMS = "mini_mias"  # the source of scanned films
figures = model.card.to_pandas()
for task in answers.task.unique():
    for row in figures[(figures.task == task) & figures.metric.str.endswith(" zero_shot")].itertuples():
        print(f"{task}: {row.metric} {row.value:.2f} ({row.low:.2f} to {row.high:.2f}), chance {row.chance:.2f}")
    for by_source in model.card.tasks[task].sources.values():
        print(f"  {by_source.verdict}: {', '.join(by_source.sources)}")
        for name, figure in by_source.figures.items():
            if not (by_source.caution and name.startswith("within ") and name != "within sources"):
                continue
            print(f"    AUROC {name}: {figure['value']:.2f} ({figure['low']:.2f} to {figure['high']:.2f})")
            if name == f"within {FILMS}":
                known = "holds" if figure["low"] > 0.5 else "cannot be told from chance"
                print(f"    -> on films like hers it {known}")

# %% [markdown]
# Read the last lines before the pictures. Where a task holds in contrast mammography and cannot be told from chance on
# films, whatever the model answers here is no answer about her, and the report draws it grey. Where a task was measured
# on films of one source, it is right about as often as its figure says if hers are like those. Nobody has shown that
# they are: films and scanners differ.
#
# ## Eighty drawn women
#
# Four images each. A table names the views, for these are PNG; DICOM headers say it themselves.

# %%
table = write_cohort(root / "cohort", 80)
rows = pd.read_csv(table)
lesion = rows[rows["label:mammography_malignancy"] == "malignant"].iloc[0]
print(lesion[["laterality", "density", "birads", "findings"]].to_dict())

figure, places = plt.subplots(2, 2, figsize=(4, 6), gridspec_kw={"wspace": 0, "hspace": 0.02})
for place, (side, view) in zip(places.flat, hanging, strict=True):
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
medclip.pairs.captions(table, root / "cohort" / "reports.csv", from_="mammography", num_captions=3)
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
shards = medclip.shards.build(root / "cohort" / "reports.csv", root / "shards", group="exam", max_side_px=160)
print(shards.num_samples, "exams")
recipe = {
    "name": "mammography-notebook",
    "data": {"shards": str(root / "shards")},
    "text": {"vocab_size": 600, "context_length": 96},
    "model": {
        "image_tower": "test_resnet",
        "image_weights": None,
        "size_px": 96,
        "embed_dim": 64,
        "freeze_bn": False,
        "text_width": 64,
        "text_heads": 2,
        "text_layers": 2,
    },
    "augment": {"flip": 0.0},
    "objective": {
        "views": {"max": 4, "fusion": "attention"},
        "supervised": [
            {"task": "mammography_malignancy"},
            {"task": "breast_composition"},
            {"task": "breast_cancer_risk"},
        ],
    },
    "train": {"epochs": 6, "batch_size": 8, "lr": 2e-3, "warmup_steps": 4, "threads": 1},
}
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
    scores,
    table,
    level="exam",
    risk=["breast_cancer_risk"],
    where=["split=test"],
    num_resamples=300,
    num_permutations=100,
)
figures = pd.DataFrame(audit.risk)
figures[(figures.attribute == "all") & figures.metric.str.startswith(("c_index", "auroc"))][
    ["population", "year", "metric", "value", "low", "high", "n_pos", "n_neg"]
].dropna(subset="value")

# %% [markdown]
# ## What this does not show
#
# - Anything of real women's risk. The cancers were drawn, and the model trained for a minute.
# - That several views help. In the simulation at its full size they do, on the small real sets that are here they do
#   not: [what was measured](../docs/reference/papers.md).
# - A localisation. A view's share in an answer says what the model used.

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
# # An audit
#
# **The question.** A model says of chest films whether they show pneumonia. Does it do so for women as for men, and for
# old as for young? How sure is that?
#
# **The data.** What the built-in model says of real films of ChestX-ray14 (NIH Clinical Center; Wang et al., CVPR 2017)
# whose patients it was not trained on: a table of scores, no images. Then simulated patients, of whom the answer is
# known, to see what an audit finds and what it rightly does not find.
#
# **The answer** is a gap with its interval, the gap that chance alone would give, and the smallest gap that so many
# patients could have shown. For research; not a medical device.
#
# Run it from the root of the repository. It takes a minute.

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import medclip
from medclip.errors import MedclipError

out = Path(tempfile.mkdtemp())
rng = np.random.default_rng(7)

# %% [markdown]
# ## Real films
#
# One row for each film: who, how old, the label of the set, and what the model says. Labels were read out of reports by
# a program.

# %%
films_seen = pd.read_csv("examples/audit/films.csv")
audited = films_seen[films_seen.split == "test"]
print(len(audited), "films of", audited.patient.nunique(), "patients,", audited.pneumonia.sum(), "with pneumonia")
films_seen.head(3)

# %% [markdown]
# The threshold is chosen on the patients of `val` and audited on those of `test`; every interval resamples patients,
# for films of one patient are alike.

# %%
real = medclip.audit(
    films_seen[["film", "medclip_mini"]].rename(columns={"medclip_mini": "pneumonia"}),
    labels=films_seen.drop(columns="medclip_mini"),
    by=["sex", "age"],
    label=["pneumonia"],
    key="film",
    where={"split": "test"},
    age_bins=[0, 25, 50],
    name="medclip-mini",
    dataset="ChestX-ray14, held-out films",
    num_resamples=1000,
    num_permutations=500,
    choose_where={"split": "val"},
    policy="youden",
)
seen = {name: table.to_pandas() for name, table in real.tables().items()}
rows = seen["metrics"].query("metric in ['auroc', 'tpr']").dropna(subset="value")
figure, axes = plt.subplots(1, 2, figsize=(9, 2.8), layout="constrained", sharey=True)
for place, (metric, part) in zip(axes, rows.groupby("metric"), strict=True):
    place.hlines(range(len(part)), part.low, part.high, color="0.4")
    place.plot(part.value, range(len(part)), "o")
    place.set_yticks(
        range(len(part)), [f"{r.attribute}: {r.group} ({r.n_patients} patients)" for r in part.itertuples()]
    )
    place.set_title({"auroc": "AUROC", "tpr": "sensitivity"}[metric])
axes[0].invert_yaxis()
plt.show()

# %%
for row in seen["gaps"].query("gap in ['auroc_max_min', 'tpr_max_min']").dropna(subset="p").itertuples():
    verdict = "larger than chance" if row.p_holm <= 0.05 else "no larger than chance gives it"
    print(
        f"{row.gap.removesuffix('_max_min'):6} by {row.attribute}: {row.value:.2f} ({row.low:.2f} to {row.high:.2f}), "
        f"{verdict}; a gap below {row.smallest_gap:.2f} would probably not have been seen"
    )

# %% [markdown]
# That is the whole answer, and its second half is the more important one: with so few patients an audit can rule out
# large gaps only. [A real audit](../docs/tutorials/audit_a_model.md) goes through these films at length, with views,
# shortcuts and leakage.
#
# Would it have found a gap that is there? Of real patients nobody knows. So:
#
# ## Simulated patients, and a planted gap
#
# Two models scored the same films. Model A misses the disease in women, and nothing depends on age.
#
# Nine hundred patients with one to four films each. The films of one patient are correlated: one part of the score is
# drawn once for all of them. A third of the patients are reserved for choosing thresholds.

# %%
people = pd.DataFrame(
    {
        "patient": [f"P{n}" for n in range(900)],
        "sex": rng.choice(["F", "M"], 900),
        "age": rng.integers(25, 85, 900),
        "sick": rng.random(900) < 0.35,
        "own": rng.normal(0, 0.9, 900),
        "split": np.where(np.arange(900) % 3 == 0, "val", "test"),
    }
)
films = people.loc[people.index.repeat(rng.integers(1, 5, 900))].reset_index(drop=True)
films["film"] = [f"film{n}" for n in range(len(films))]
missed = 1.3 * (films["sick"] & (films["sex"] == "F"))  # what is planted


def probability(logit):
    return 1 / (1 + np.exp(-logit))


signal = 2.6 * films["sick"] - 1.6 + films["own"]
scores_a = pd.DataFrame(
    {"film": films["film"], "effusion": probability(signal - missed + rng.normal(0, 0.6, len(films)))}
)
scores_b = pd.DataFrame({"film": films["film"], "effusion": probability(signal + rng.normal(0, 1.2, len(films)))})
labels = films[["film", "patient", "sex", "age", "split"]].assign(effusion=films["sick"].astype(int))
print(len(labels), "films of", labels["patient"].nunique(), "patients")
labels.head(3)

# %% [markdown]
# ## Measure
#
# Scores and labels are any two tables with a key in common; pandas, polars and Arrow frames can be passed directly. The
# threshold is chosen on the patients of `val` and audited on those of `test`. All intervals resample patients.

# %%
audit = {
    "labels": labels,
    "by": ["sex", "age"],
    "label": ["effusion"],
    "key": "film",
    "where": {"split": "test"},
    "age_bins": [25, 45, 65],
}
found = medclip.audit(
    scores_a,
    **audit,
    name="A",
    compare={"B": scores_b},
    dataset="made-up films",
    num_resamples=1000,
    num_permutations=500,
    choose_where={"split": "val"},
    policy="sensitivity=0.9",
    out=out,
)
tables = {name: table.to_pandas() for name, table in found.tables().items()}
print("written:", *sorted(p.name for p in out.iterdir() if p.suffix in (".html", ".json", ".md")))

# %% [markdown]
# ## Where the threshold comes from
#
# It is recorded with the policy, the data and a hash of them. The numbers of patients are those of `val`.

# %%
tables["thresholds"][["model", "value", "policy", "chosen_on", "n", "n_pos", "n_patients"]].round(3)

# %% [markdown]
# Thresholds that were chosen on the audited patients would make every rate look better than it is, so they are refused:

# %%
try:
    medclip.audit(scores_a, **audit, choose_where={"split": ["val", "test"]}, num_resamples=100, num_permutations=100)
except MedclipError as error:
    print(error)

# %% [markdown]
# ## By group


# %%
def by_group(model, metric):
    rows = tables["metrics"].query("model == @model and metric == @metric")
    return rows[["attribute", "group", "value", "low", "high", "n", "n_pos", "n_patients", "flag"]].round(3)


by_group("A", "tpr")

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 2.8), layout="constrained", sharey=True)
for place, metric in zip(axes, ("tpr", "auroc"), strict=True):
    for shift, model, mark in ((-0.12, "A", "o"), (0.12, "B", "s")):
        rows = by_group(model, metric)
        y = np.arange(len(rows)) + shift
        place.hlines(y, rows["low"], rows["high"], color="0.4")
        place.plot(rows["value"], y, mark, label=model)
    place.set_yticks(range(len(rows)), [f"{r.attribute}: {r.group}" for r in rows.itertuples()])
    place.set_title(metric)
axes[0].invert_yaxis()  # both: they share it
axes[0].legend(title="model")
plt.show()

# %% [markdown]
# ## A gap that is there, and one that is not
#
# A gap between groups is never exactly zero, even if the groups do not differ: the highest of three figures is above
# the lowest. So each gap is compared with the gaps that appear if the groups are shuffled among patients (`null_95` is
# their 95th percentile). Many gaps were tested; `p_holm` allows for that.

# %%
named = ["auroc_max_min", "tpr_max_min", "fpr_max_min", "calibration_in_the_large_max_min"]
gaps = tables["gaps"].query("gap in @named")[
    ["model", "attribute", "gap", "value", "low", "high", "null_95", "p", "p_holm", "smallest_gap"]
]
gaps.round(3)

# %%
for row in gaps.query("model == 'A' and gap == 'tpr_max_min'").itertuples():
    if row.p_holm <= 0.05:
        print(f"{row.attribute}: a gap of {row.value:.2f} ({row.low:.2f} to {row.high:.2f}), larger than chance")
    else:
        print(
            f"{row.attribute}: {row.value:.2f}, as chance gives it (adjusted p {row.p_holm:.2f}); "
            f"a gap below {row.smallest_gap:.2f} would probably not have been seen"
        )
planted = gaps.query("model == 'A' and attribute == 'sex' and gap == 'tpr_max_min'").iloc[0]
assert planted["p_holm"] <= 0.05
assert (gaps.query("attribute == 'age'")["p_holm"].dropna() > 0.05).all()

# %% [markdown]
# The second sentence is as important as the first. That no gap was found does not mean that there is none:
# `smallest_gap` is how large a gap has to be to be found in 80 % of audits like this one.
#
# ## Two models
#
# Both scored the same films, and the differences come from the same resamples of patients. This detects much smaller
# differences than checking whether two intervals overlap. B minus A:

# %%
differences = tables["models"].query("metric in ['auroc', 'tpr'] and attribute in ['all', 'sex']")
differences[["attribute", "group", "metric", "value", "low", "high", "p", "p_holm", "delong_p"]].round(3)

# %% [markdown]
# B finds more of the sick women at a threshold that was chosen by the same policy. That does not make it the better
# model: look at what it costs (false positives, calibration), also in the groups.

# %%
by_group("B", "fpr")

# %% [markdown]
# ## In words
#
# The page (`report.html`) begins with sentences made from these numbers, and the files beside it hold all of them.

# %%
from medclip.reports.audit.summary import summary

for said in summary(found):
    print(f"{said.head}: {' '.join(said.all)}\n")

# %% [markdown]
# ## What this does not show
#
# [What an audit cannot tell](../docs/concepts/what_an_audit_cannot_tell.md), in short:
#
# - **Groups that are not in the table**, or too small to be shown: nothing is known about them. An average over
#   everybody does not describe them either.
# - **Wrong labels.** If a disease is recorded less often in one group, a model that repeats this looks good. All
#   figures are agreement with the labels.
# - **Why.** A gap may come from the model, from the machines, from who is sent for a film, or from how ill the groups
#   are. Reweighting for view or age (`--reweight`) takes one such reason away at a time.
# - **Another hospital, another year.** The intervals are about other patients of the same kind.
# - **That a model treats everybody alike.** No audit shows that. It shows which gaps there are, and how large a gap it
#   could have missed.

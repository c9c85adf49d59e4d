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
# A researcher has sixteen labelled photographs of each kind and a question that the model was never trained for. Open
# the table, adapt the model in two ways, find out which one helps and how sure that is, look at the mistakes, save the
# better one as a pack, and score with it. The photographs are drawn by code, so there is no patient in them. For
# research; not a medical device.
#
# Run it from the root of the repository, as a notebook (`jupytext --to ipynb notebooks/03_sixteen_examples.py`) or as a
# script.

# %%
import csv
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image, ImageDraw, ImageFilter

import medclip

root = Path(tempfile.mkdtemp())
rng = np.random.default_rng(0)

# %% [markdown]
# ## The table
#
# One row for each file: the file, the person, and the answer. Each person has a sharp or a hazy fundus photograph, or
# one with bright spots; some have two.


# %%
def fundus(kind):
    """Draw a disc with vessels; haze blurs it, exudates are small bright spots."""
    image = Image.new("RGB", (160, 160))
    draw = ImageDraw.Draw(image)
    red = int(rng.integers(150, 200))
    draw.ellipse((6, 6, 154, 154), fill=(red, int(red * 0.45), 30))
    x, y = rng.integers(40, 120, 2)
    draw.ellipse((x - 12, y - 12, x + 12, y + 12), fill=(250, 220, 140))
    for angle in rng.uniform(0, 2 * np.pi, 7):
        end = (x + 90 * np.cos(angle), y + 90 * np.sin(angle))
        draw.line((x, y, *end), fill=(int(red * 0.6), 30, 20), width=2)
    if kind == "spots":
        for _ in range(int(rng.integers(2, 9))):
            u, v = rng.integers(30, 130, 2)
            draw.ellipse((u - 1, v - 1, u + 1, v + 1), fill=(250, 200, 120))
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(1.2, 3.0) if kind == "hazy" else 0.7))
    noise = rng.normal(0, 9, (160, 160, 3))
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


rows = []
for person in range(72):
    kind = ("sharp", "hazy", "spots")[person % 3]
    for shot in range(2 if person % 10 == 0 else 1):
        file = f"p{person:02}_{shot}.png"
        fundus(kind).save(root / file)
        rows.append({"file": file, "patient": f"P{person}", "modality": "fundus", "appearance": kind})
with (root / "labels.csv").open("w", newline="") as f:
    writer = csv.DictWriter(f, rows[0])
    writer.writeheader()
    writer.writerows(rows)
print(len(rows), "files of", len({r["patient"] for r in rows}), "people")

figure, axes = plt.subplots(1, 3, figsize=(7, 2.6), layout="constrained")
for place, row in zip(axes, rows[1:4], strict=True):
    place.imshow(Image.open(root / row["file"]))
    place.set_title(row["appearance"])
    place.set_axis_off()
plt.show()

# %% [markdown]
# ## Adapt, in two ways
#
# `adapt` first divides the people into those to learn from and those to test on, and draws K people of each class from
# the first. The classes and their wording come from the column itself.

# %%
for method in ("linear-probe", "tip"):
    run = medclip.adapt(root / "labels.csv", "appearance", method=method, shots=16)
    hits = (run.test.probabilities_NC.argmax(axis=1) == run.test.targets).sum()
    print(f"{method:12} {hits} of {len(run.test.targets)} test files right; learned from {len(run.drawn.train)}")
    for note in run.notes:
        print("  note:", note)

# %% [markdown]
# Two numbers on a few files say little. Other examples would have given other numbers, and so would other test people.
#
# ## Compare
#
# `compare` gives every method the same shots, several draws of them, and the same test people, and computes intervals.

# %%
methods = ["zero-shot", "linear-probe", "tip"]
result = medclip.compare(
    root / "labels.csv",
    "appearance",
    out=root / "comparison",
    methods=methods,
    shots=(1, 4, 16),
    seeds=3,
    num_resamples=500,
)
print("\n".join(result.lines()))

# %% [markdown]
# ## How sure is that?
#
# Differences are taken on the same shots and the same people. If an interval contains zero, this comparison does
# not show which of the two is better.

# %%
for d in result.differences_of("zero-shot", None):
    sure = "above zero-shot" if d.low is not None and d.low > 0 else "cannot tell"
    print(
        f"{d.method:12} minus zero-shot {d.value:+.2f} ({d.low:.2f} to {d.high:.2f}), adjusted p {d.p_holm:.3f}: {sure}"
    )

# %%
for method in methods:
    cells = [result.cell(method, k) for k in result.shots]
    plt.plot(result.shots, [c.value for c in cells], marker="o", label=method)
    low, high = (
        [getattr(c, end) if getattr(c, end) is not None else c.value for c in cells] for end in ("low", "high")
    )
    plt.fill_between(result.shots, low, high, alpha=0.12)
plt.xscale("log", base=2)
plt.xticks(result.shots, [str(k) for k in result.shots])
plt.xlabel("shots: people of each class")
plt.ylabel("balanced accuracy")
plt.legend()
plt.show()

# %% [markdown]
# ## What does it get wrong?
#
# The page that `medclip adapt compare` writes shows this and more. These are the files that the best method most often
# gets wrong.

# %%
page = root / "comparison" / "report.html"
print("the whole comparison:", page.name, f"({page.stat().st_size // 1024} KiB, loads nothing from elsewhere)")
best = next(m for m in result.ranked if m != "zero-shot")
confusion = next(c for c in result.confusions if c.method == best)
print(best, "at K =", confusion.shots)
for name, counts in zip(result.classes, confusion.counts, strict=True):
    print(f"  {name:6} said " + ", ".join(f"{c}: {n:g}" for c, n in zip(result.classes, counts, strict=True)))

wrong = confusion.mistakes[:4]
figure, axes = plt.subplots(1, max(1, len(wrong)), figsize=(9, 2.6), layout="constrained", squeeze=False)
for place, mistake in zip(axes[0], wrong, strict=False):
    place.imshow(Image.open(root / rows[mistake.row - 1]["file"]))
    place.set_title(
        f"{mistake.true}, predicted {mistake.predicted}\n{mistake.num_wrong} of {mistake.num_runs} runs", fontsize=9
    )
for place in axes[0]:
    place.set_axis_off()
plt.show()

# %% [markdown]
# ## Save it, and score with it
#
# The adapted model is a pack like any other. It lists the hashes of the files that it learned from, so that it is not
# tested on them by mistake.

# %%
medclip.adapt(root / "labels.csv", "appearance", method=best, shots=16, out=root / "pack")
new = root / "new"
new.mkdir()
for kind in ("sharp", "hazy", "spots"):
    fundus(kind).save(new / f"{kind}.png")
scores = medclip.score(new, model=root / "pack", modality="fundus").scores.to_pylist()
for row in sorted(scores, key=lambda row: (row["study"], -row["probability"])):
    print(f"{row['study'][:8]} {row['task']:12} {row['class']:8} {row['probability']:.3f}")

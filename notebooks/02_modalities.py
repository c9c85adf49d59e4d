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
# # What is on this disk?
#
# **The question.** A research disk arrives with files of all kinds and no list. What are they, who says so, and what
# can be read of them: voxels in HU, leads in millivolts, patches in µm/px, frames of a loop?
#
# **The data.** Real ones: chest films, a mammography exam, slices of a brain and of an abdomen, a fundus photograph,
# breast ultrasound, ECGs, a piece of a slide (sources and licences: `examples/sources.csv`). And what is too large to
# ship, drawn by code: a CT series, an MRI volume, loops, an OCT.
#
# **The answer** is one row for each file, with where its modality was stated, or why it cannot be read. For research;
# not a medical device.
#
# Run it from the root of the repository. It takes half a minute and needs the extra `notebooks`.

# %%
import shutil
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import medclip
from examples.make_phantoms import PHANTOMS, ct_series
from medclip.adapters.model_images import images_of
from medclip.settings import PixelPolicy, ReadPolicy

root = Path(tempfile.mkdtemp()) / "disk"
shutil.copytree("examples/studies", root / "studies")
for file in ("ecg/00172_lr.hea", "ecg/00172_lr.dat", "slides/cmu1_region.tiff"):
    (root / file).parent.mkdir(exist_ok=True)
    shutil.copy(Path("examples") / file, root / file)
drawn = root / "drawn"
for name in ("ct", "mri", "ultrasound", "oct", "endoscopy"):
    PHANTOMS[name](drawn)

# %% [markdown]
# ## One row for each file
#
# `scan` reads headers only. Files that are read together are one *unit*: 24 CT slices, a header and its signals. Where
# no header says what an image shows, nobody guesses: it is *not stated*, and the person who knows has to say it.

# %%
scan = medclip.scan(root)
units = Counter(
    (str(study.modality or "not stated"), str(unit.kind), len(unit.files))
    for study in scan.studies
    for unit in study.units
)
for (modality, kind, num_files), number in sorted(units.items()):
    print(f"{number:2} x {modality:12} {kind:8} of {num_files} file(s)")

# %%
files = scan.to_pandas()
files[files.reason.fillna("") != ""][[c for c in ("path", "format", "reason", "message") if c in files]].head(6)

# %% [markdown]
# ## Real ones, as a model would see them
#
# Photographs and PNG files state no modality, so the call does. Of an ECG a model of images is shown cuttings of its
# sheet, here the first three leads.

# %%
stated = {
    "studies/chest_pa.dcm": None,
    "studies/mammogram/mammogram_L_MLO.dcm": None,
    "studies/brain_flair.png": "mri",
    "studies/abdomen_ct.png": "ct",
    "studies/fundus.jpg": "fundus",
    "studies/breast_ultrasound.jpg": "ultrasound",
    "studies/tissue.jpg": "pathology",
    "studies/ecg": None,
}
figure, axes = plt.subplots(2, 4, figsize=(12, 6.4), layout="constrained")
for place, (file, modality) in zip(axes.flat, stated.items(), strict=True):
    sample = medclip.open_study(root / file, modality).samples()[0]
    view = images_of(sample)[0]
    low, high = view.value_range
    image = (view.pixels - low) / (high - low)
    place.imshow(image[:, :, 0] if image.shape[2] == 1 else image, cmap="gray", vmin=0, vmax=1)
    facts = " ".join(str(fact) for fact in (view.laterality, view.position) if fact)
    place.set_title(f"{sample.modality} {facts}\n{view.pixels.shape[0]} x {view.pixels.shape[1]}", fontsize=9)
    place.set_axis_off()
plt.show()

# %% [markdown]
# ## Drawn ones: volumes and loops
#
# Each unit becomes a sample. What it holds depends on its kind.

# %%
modalities = {"mri": "mri", "endoscopy": "endoscopy"}
names = ("ct", "mri", "ultrasound", "oct", "endoscopy")
samples = {name: medclip.open_study(drawn / name, modalities.get(name)).samples()[0] for name in names}
for name, sample in samples.items():
    if sample.volume is not None:
        what = f"voxels {sample.volume.voxels.shape}, unit {sample.volume.unit}, {sample.volume.plane}"
    else:
        what = f"frames {sample.frames.shape}" if sample.frames is not None else f"{len(sample.views)} views"
    print(f"{name:12} {sample.kind:8} {what}")

figure, axes = plt.subplots(1, 5, figsize=(12, 2.8), layout="constrained")
for place, (name, sample) in zip(axes, samples.items(), strict=True):
    view = sample.views[len(sample.views) // 2]
    low, high = view.value_range
    image = (view.pixels - low) / (high - low)
    place.imshow(image[:, :, 0] if image.shape[2] == 1 else image, cmap="gray", vmin=0, vmax=1)
    place.set_title(name)
    place.set_axis_off()
plt.show()

# %% [markdown]
# ## What was done to the pixels
#
# Every operation on the pixels is in the provenance, in order. Equal `preprocessing` means that the same operations
# were applied.

# %%
for name, sample in samples.items():
    print(f"{name}: {sample.provenance.decoder}, preprocessing {sample.provenance.preprocessing}")
    for step in sample.provenance.steps:
        print(f"  - {step.name}: {step.detail}")

# %% [markdown]
# An opened study shows itself:

# %%
medclip.open_study(drawn / "ct")

# %% [markdown]
# ## CT: the HU at a position
#
# The slice of a real abdomen above is a PNG: somebody chose its window, and of the HU nothing is left but grey levels.
# A series keeps them. The affine maps (slice, row, column) to millimetres in the patient: right, anterior and superior
# are positive. Its inverse gives the voxel at a position.

# %%
volume = samples["ct"].volume
for where, place in (("lung", (-72, 0, 0)), ("spine", (0, -72, 0)), ("liver", (72, 0, -55))):
    index = tuple(np.rint(np.linalg.inv(volume.affine) @ (*place, 1)).astype(int)[:3].tolist())
    print(f"{where:6} at {place} mm: voxel {index}, {volume.voxels[index]} HU")

# %% [markdown]
# ## DICOM windows, and the values as stored
#
# For one slice on its own a policy says which window is applied. The header of the phantom has two, LUNG and SOFT.
# `mode="modality"` stops at HU, and `mode="raw"` returns the stored values.

# %%
from medclip.dicom.pixels.render import read_dicom

file = drawn / "ct" / "slice000.dcm"
for window in (0, "SOFT", (400, 1800), "none"):
    settings = replace(medclip.Settings(), policy=ReadPolicy(pixels=PixelPolicy(window=window)))
    shown_slice = read_dicom(file, settings)
    done = "; ".join(step.detail for step in shown_slice.steps if step.name == "window")
    print(f"{window!s:12} {done}: mean {shown_slice.pixels.mean():.2f}")

in_hu = read_dicom(file, medclip.Settings(), mode="modality")
stored = read_dicom(file, medclip.Settings(), mode="raw")
print("HU:    ", in_hu.pixels.dtype, in_hu.unit, in_hu.pixels.min(), "to", in_hu.pixels.max())
print("stored:", stored.pixels.dtype, stored.pixels.min(), "to", stored.pixels.max())

# %% [markdown]
# ## A series with a gap
#
# One slice is missing. By default the series is refused, with the positions in mm. On request the missing slices are
# interpolated, and a step says so.

# %%
gap = ct_series(drawn / "gap")
(gap / "slice014.dcm").unlink()
try:
    medclip.open_study(gap)
except medclip.MedclipError as error:
    print(error.reason, "-", error.message)

settings = replace(medclip.Settings(), policy=ReadPolicy(uneven_slices="resample"))
filled = medclip.open_study(gap, settings=settings).samples()[0]
print(filled.volume.voxels.shape, [step.detail for step in filled.provenance.steps if step.name == "resample"])
print("another hash:", filled.provenance.preprocessing != samples["ct"].provenance.preprocessing)

# %% [markdown]
# ## ECG: millivolts
#
# A real record of a man with a complete right bundle branch block (PTB-XL). Leads are identified by name, put into the
# standard order and filtered. `raw_signal` returns them as stored.

# %%
from medclip.adapters.ecg import raw_signal

record = medclip.open_study(root / "ecg")
cleaned, raw = record.samples()[0].signal, raw_signal(record.units[0].source)
lead = 6  # V1, with the second positive wave of the block
line = cleaned.values_mv[lead]
print(
    f"V1: {line.min():.2f} to {line.max():.2f} mV at {cleaned.sampling_hz:g} Hz, all twelve there: {cleaned.mask.all()}"
)

plt.figure(figsize=(9, 2.4), layout="constrained")
for signal, colour, label in ((raw, "0.7", "as stored"), (cleaned, "k", "as a model sees it")):
    count = int(3 * signal.sampling_hz)
    plt.plot(np.arange(count) / signal.sampling_hz, signal.values_mv[lead, :count], color=colour, label=label)
plt.xlabel("s")
plt.ylabel("mV")
plt.legend(loc="upper right")
plt.show()

# %% [markdown]
# ## A slide: micrometres and patches
#
# A piece of real skin. Positions are in micrometres and scales in µm/px, never in levels or magnification. Patches are
# read one by one, so a slide of any size fits into memory. Green is taken for tissue, blue is read.

# %%
with medclip.slides.open(root / "slides" / "cmu1_region.tiff") as reader:
    print(reader.size_px, "px at", [round(mpp, 3) for mpp in reader.mpp_um], "µm/px")
    tissue = medclip.slides.find_tissue(reader)
    grid = medclip.slides.make_grid(reader, tissue, size_px=128, mpp_um=0.5)
    print(f"tissue {tissue.area_mm2:.2f} mm², {len(grid)} of {grid.candidates} places")
    overview = medclip.slides.overview(reader, tissue, grid, longest_px=600)
plt.figure(figsize=(5, 6), layout="constrained")
plt.imshow(overview)
plt.axis("off")
plt.show()

# %% [markdown]
# ## Header values
#
# A sample holds a few header values that identify nobody. Names, numbers, dates and free text stay in the file.

# %%
for key, value in samples["ultrasound"].headers.items():
    print(f"{key:22} {value}")

# %% [markdown]
# ## Which of them can the built-in model be asked about?
#
# Reading a file is one thing. What a model was trained on is on its card, and a dry run says what it would do with each
# file: no pixel is decoded and nothing is written. Where no header states the modality, the model will have to look.

# %%
card = medclip.models.load().card
print(card.name, card.version, "was trained on:", ", ".join(card.modalities))
planned = medclip.score(root, dry_run=True)
rows = [(row["status"], row["modality"] or "to be looked at", row["reason"] or "") for row in planned.files.to_pylist()]
for (status, modality, reason), number in sorted(Counter(rows).items()):
    print(f"{number:3} files  {'would be ' + status:17} {modality:16} {reason.replace('_', ' ')}")

# %% [markdown]
# ## What this does not show
#
# - That an answer to a file that *can* be scored is worth anything: notebook 01 asks that.
# - That the header tells the truth. A side or a view that is stated wrongly is believed; the pictures are for looking.
# - Text that is burned into pixels is not found here; a header that declares it is believed.

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
# # One of each modality
#
# Write a synthetic study of every kind, open each, and look at what comes out: voxels in HU, leads in mV, patches in
# µm/px, frames of a loop. There is no patient in them, and no model is needed. For research; not a medical device.
#
# Run it from the root of the repository, as a notebook (`jupytext --to ipynb notebooks/02_modalities.py`) or as a
# script. It needs the extras `dicom`, `wsi`, `ecg` and `video`.

# %%
import tempfile
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import medclip
from examples.make_phantoms import PHANTOMS, ct_series
from medclip.settings import PixelPolicy, ReadPolicy

root = Path(tempfile.mkdtemp())
for name, make in PHANTOMS.items():
    print(name, make(root).relative_to(root))

# %% [markdown]
# ## What is in the folder
#
# `scan` reads headers only. Files that are read together are one *unit*: 24 CT slices, a header and its signals.

# %%
for found in medclip.scan(root).studies:
    for unit in found.units:
        print(f"{found.modality or 'not stated':12} {unit.kind:8} {len(unit.files):3} file(s)")

# %% [markdown]
# ## Open one of each
#
# NIfTI and MP4 do not state their modality, so the call does. Each unit becomes a sample. What it holds depends on its
# kind.

# %%
modalities = {"mri": "mri", "endoscopy": "endoscopy"}
samples = {name: medclip.open_study(root / name, modalities.get(name)).samples()[0] for name in PHANTOMS}
for name, sample in samples.items():
    if sample.volume is not None:
        what = f"voxels {sample.volume.voxels.shape}, unit {sample.volume.unit}, {sample.volume.plane}"
    elif sample.signal is not None:
        what = f"leads {sample.signal.values_mv.shape} in {sample.signal.unit} at {sample.signal.sampling_hz:g} Hz"
    elif sample.frames is not None:
        what = f"frames {sample.frames.shape}"
    else:
        what = f"{len(sample.views)} patches of {sample.views[0].pixels.shape}"
    print(f"{name:12} {sample.kind:8} {what}")

# %%
shown = {name: sample.views[len(sample.views) // 2] for name, sample in samples.items() if sample.views}
figure, axes = plt.subplots(2, 3, figsize=(9, 6), layout="constrained")
for place, (name, view) in zip(axes.flat, shown.items(), strict=True):
    low, high = view.value_range
    image = (view.pixels - low) / (high - low)
    place.imshow(image[:, :, 0] if image.shape[2] == 1 else image, cmap="gray", vmin=0, vmax=1)
    place.set_title(f"{name}, {view.pixels.shape[0]} x {view.pixels.shape[1]} x {view.pixels.shape[2]}")
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
medclip.open_study(root / "ct")

# %% [markdown]
# ## CT: the HU at a position
#
# The affine maps (slice, row, column) to millimetres in the patient: right, anterior and superior are positive. Its
# inverse gives the voxel at a position.

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

file = root / "ct" / "slice000.dcm"
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
gap = ct_series(root / "gap")
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
# Leads are identified by name, put into the standard order and filtered. `raw_signal` returns them as stored.

# %%
from medclip.adapters.ecg import raw_signal

record = medclip.open_study(root / "ecg")
cleaned, raw = record.samples()[0].signal, raw_signal(record.units[0].source)
lead = 1  # II
line = cleaned.values_mv[lead]
print(f"lead II: {line.min():.2f} to {line.max():.2f} mV, all twelve there: {cleaned.mask.all()}")

seconds = np.arange(1500) / cleaned.sampling_hz
plt.figure(figsize=(9, 2.2), layout="constrained")
plt.plot(seconds, raw.values_mv[lead, :1500], color="0.7", label="as stored")
plt.plot(seconds, line[:1500], color="k", linewidth=0.8, label="baseline taken out")
plt.xlabel("s")
plt.ylabel("mV")
plt.legend(loc="upper right")
plt.show()

# %% [markdown]
# ## A slide: micrometres and patches
#
# Positions are in micrometres and scales in µm/px, never in levels or magnification. Patches are read one by one, so a
# slide of any size fits into memory.

# %%
with medclip.slides.open(root / "pathology" / "slide.tiff") as reader:
    print(reader.size_px, "px at", reader.mpp_um, "µm/px, stored at", reader.stored_mpp())
    tissue = medclip.slides.find_tissue(reader)
    grid = medclip.slides.make_grid(reader, tissue, size_px=128, mpp_um=1.0)
    print(f"tissue {tissue.area_mm2:.2f} mm², {len(grid)} of {grid.candidates} places")
    darkness = {
        (p.row, p.column): 255 - float(pixels.mean()) for p, pixels in medclip.slides.iter_patches(reader, grid)
    }
    overview = reader.thumbnail(8.0)

height, width = grid.size_px * grid.effective_mpp_um[0], grid.size_px * grid.effective_mpp_um[1]
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
axes.imshow(overview, extent=(0, reader.size_um[1], reader.size_um[0], 0))
for patch in grid:
    axes.add_patch(plt.Rectangle((patch.left_um, patch.top_um), width, height, fill=False, color="k", linewidth=0.6))
axes.set_xlabel("µm")
axes.set_ylabel("µm")
plt.show()

# %% [markdown]
# ## Header values
#
# A sample holds a few header values that identify nobody. Names, numbers, dates and free text stay in the file.

# %%
for key, value in samples["ultrasound"].headers.items():
    print(f"{key:22} {value}")

"""What is compared, on which masks, and how often: fixed before the first figure of an image held out was seen.

Tried beforehand, on training patients of kvasir_seg and bus_bra alone (inner divisions, a third of them held out):
rates and steps of `map-tuned` (0.0003 before 0.001; 400 steps in the place of 150 brought 0.02 with 91 images), rates
of the U-Net, and two 3 x 3 convolutions in the place of the probe, which brought 0.02 at most.

The questions: does a tower that learns from masks beat its frozen probe, does medclip-mini's beat that of ImageNet, and
does either beat a U-Net that has seen nothing else? Each other arm is compared with `tuned`, paired over images and
seeds; intervals resample patients, or groups of near-duplicates where patients are not known.
"""

from __future__ import annotations

SETS = ("bus_bra", "breast_us", "isic2017", "kvasir_seg")
"""Of the suite `dense`, whose division holds a third of the images out. monuseg is left out: nuclei are smaller than
a place of any grid here."""
SHARES = (0.1, 1.0)
"""Of the images that are not held out. With 2 % most sets have fewer than four images."""
SEEDS = (0, 1, 2)
"""Draws of the images to learn from, and of all other chance."""
TUNED = "tuned"
ARMS = {
    "position": "mean mask",
    "probe": "medclip-mini, frozen",
    TUNED: "medclip-mini, tuned",
    "tuned_imagenet": "ImageNet's weights, tuned",
    "tuned_random": "random weights, tuned",
    "unet": "U-Net of MONAI from nothing",
}
"""`tuned` begins with medclip-mini, which was trained on part of the images (never on masks)."""
UNET = {"channels": (16, 32, 64, 128), "strides": (2, 2, 2), "num_res_units": 1}
UNET_STEPS, UNET_RATE = 600, 0.002
"""It sees images at the size that the towers take, changed as theirs are; four times as many steps, as it begins with
nothing: about as many seconds again as `tuned` takes."""
NUM_RESAMPLES = 2000

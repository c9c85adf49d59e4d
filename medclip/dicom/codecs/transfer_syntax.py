"""The transfer syntaxes of the standard that hold pixels (DICOM PS3.6, table A-1): those that are read, and others."""

from __future__ import annotations

from collections.abc import Mapping

_STEM = "1.2.840.10008.1.2"

READ: Mapping[str, str] = {
    _STEM: "Implicit VR Little Endian",
    f"{_STEM}.1": "Explicit VR Little Endian",
    f"{_STEM}.1.99": "Deflated Explicit VR Little Endian",
    f"{_STEM}.2": "Explicit VR Big Endian",
    f"{_STEM}.5": "RLE Lossless",
    f"{_STEM}.4.50": "JPEG Baseline",
    f"{_STEM}.4.51": "JPEG Extended",
    f"{_STEM}.4.57": "JPEG Lossless (process 14)",
    f"{_STEM}.4.70": "JPEG Lossless (process 14, first-order)",
    f"{_STEM}.4.80": "JPEG-LS Lossless",
    f"{_STEM}.4.81": "JPEG-LS Near-Lossless",
    f"{_STEM}.4.90": "JPEG 2000 Lossless",
    f"{_STEM}.4.91": "JPEG 2000",
    f"{_STEM}.4.201": "High-Throughput JPEG 2000 Lossless",
    f"{_STEM}.4.202": "High-Throughput JPEG 2000 RPCL Lossless",
    f"{_STEM}.4.203": "High-Throughput JPEG 2000",
}
"""Still images that are read where their decoder is installed. The first four need none."""

VIDEO: Mapping[str, str] = {
    f"{_STEM}.4.100": "MPEG-2 Main Profile / Main Level",
    f"{_STEM}.4.100.1": "MPEG-2 Main Profile / Main Level, fragmentable",
    f"{_STEM}.4.101": "MPEG-2 Main Profile / High Level",
    f"{_STEM}.4.101.1": "MPEG-2 Main Profile / High Level, fragmentable",
    f"{_STEM}.4.102": "H.264 High Profile / Level 4.1",
    f"{_STEM}.4.102.1": "H.264 High Profile / Level 4.1, fragmentable",
    f"{_STEM}.4.103": "H.264 BD-compatible High Profile / Level 4.1",
    f"{_STEM}.4.103.1": "H.264 BD-compatible High Profile / Level 4.1, fragmentable",
    f"{_STEM}.4.104": "H.264 High Profile / Level 4.2, 2D",
    f"{_STEM}.4.104.1": "H.264 High Profile / Level 4.2, 2D, fragmentable",
    f"{_STEM}.4.105": "H.264 High Profile / Level 4.2, 3D",
    f"{_STEM}.4.105.1": "H.264 High Profile / Level 4.2, 3D, fragmentable",
    f"{_STEM}.4.106": "H.264 Stereo High Profile / Level 4.2",
    f"{_STEM}.4.106.1": "H.264 Stereo High Profile / Level 4.2, fragmentable",
    f"{_STEM}.4.107": "HEVC/H.265 Main Profile / Level 5.1",
    f"{_STEM}.4.108": "HEVC/H.265 Main 10 Profile / Level 5.1",
}
"""Films in a DICOM object. Not read; the same film as MP4 or AVI is."""

JPEG_XL: Mapping[str, str] = {
    f"{_STEM}.4.110": "JPEG XL Lossless",
    f"{_STEM}.4.111": "JPEG XL JPEG Recompression",
    f"{_STEM}.4.112": "JPEG XL",
}
"""Read in slides, by wsidicom, and nowhere else."""

OTHER: Mapping[str, str] = {
    "1.2.840.10008.1.20": "Papyrus 3 Implicit VR Little Endian, retired",
    f"{_STEM}.1.98": "Encapsulated Uncompressed Explicit VR Little Endian",
    f"{_STEM}.8.1": "Deflated Image Frame Compression",
    f"{_STEM}.4.52": "JPEG Extended (processes 3, 5), retired",
    f"{_STEM}.4.53": "JPEG Spectral Selection (processes 6, 8), retired",
    f"{_STEM}.4.54": "JPEG Spectral Selection (processes 7, 9), retired",
    f"{_STEM}.4.55": "JPEG Full Progression (processes 10, 12), retired",
    f"{_STEM}.4.56": "JPEG Full Progression (processes 11, 13), retired",
    f"{_STEM}.4.58": "JPEG Lossless (process 15), retired",
    f"{_STEM}.4.59": "JPEG Extended Hierarchical (processes 16, 18), retired",
    f"{_STEM}.4.60": "JPEG Extended Hierarchical (processes 17, 19), retired",
    f"{_STEM}.4.61": "JPEG Spectral Selection Hierarchical (processes 20, 22), retired",
    f"{_STEM}.4.62": "JPEG Spectral Selection Hierarchical (processes 21, 23), retired",
    f"{_STEM}.4.63": "JPEG Full Progression Hierarchical (processes 24, 26), retired",
    f"{_STEM}.4.64": "JPEG Full Progression Hierarchical (processes 25, 27), retired",
    f"{_STEM}.4.65": "JPEG Lossless Hierarchical (process 28), retired",
    f"{_STEM}.4.66": "JPEG Lossless Hierarchical (process 29), retired",
    f"{_STEM}.4.92": "JPEG 2000 Part 2 Multi-component Lossless",
    f"{_STEM}.4.93": "JPEG 2000 Part 2 Multi-component",
    f"{_STEM}.4.94": "JPIP Referenced",
    f"{_STEM}.4.95": "JPIP Referenced Deflate",
    f"{_STEM}.4.204": "JPIP HTJ2K Referenced",
    f"{_STEM}.4.205": "JPIP HTJ2K Referenced Deflate",
}
"""Syntaxes that no decoder here reads; the retired ones and JPIP, whose pixels lie on a server, are rare."""

SYNTAXES = frozenset({*READ, *VIDEO, *JPEG_XL, *OTHER})
"""All of them."""

NATIVE = (
    _STEM,
    f"{_STEM}.1",
    f"{_STEM}.1.99",
    f"{_STEM}.2",
)
"""Syntaxes that store pixels as they are."""
BASELINE, EXTENDED = f"{_STEM}.4.50", f"{_STEM}.4.51"
LOSSLESS, LOSSLESS_SV1 = f"{_STEM}.4.57", f"{_STEM}.4.70"
JPEG_LS, JPEG_LS_NEAR = f"{_STEM}.4.80", f"{_STEM}.4.81"
JPEG_2000 = (f"{_STEM}.4.90", f"{_STEM}.4.91")
HTJ2K = (f"{_STEM}.4.201", f"{_STEM}.4.202", f"{_STEM}.4.203")
RLE = f"{_STEM}.5"

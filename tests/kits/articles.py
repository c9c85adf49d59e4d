"""Packages of articles made by code: JATS XML with the traps that real articles hold, and figures beside it."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

XLINK = 'xmlns:xlink="http://www.w3.org/1999/xlink"'
CC_BY = (
    '<license xlink:href="https://creativecommons.org/licenses/by/4.0/"><license-p>Open access.</license-p></license>'
)
CC_BY_NC = '<license xlink:href="https://creativecommons.org/licenses/by-nc/4.0/"/>'


def figure(number: int, file: str, caption: str = "", *, graphic: str = "") -> str:
    """Return a `fig`; `graphic` stands in the place of the usual reference to its file."""
    words = f"<caption>{caption}</caption>" if caption else ""
    shown = graphic or f'<graphic xlink:href="{file}"/>'
    return f'<fig id="F{number}"><label>Figure {number}</label>{words}{shown}</fig>'


def cite(*numbers: int, words: str = "") -> str:
    """Return a reference to figures."""
    rid = " ".join(f"F{number}" for number in numbers)
    return f'<xref ref-type="fig" rid="{rid}">{words or f"Figure {numbers[0]}"}</xref>'


def article(body: str, *, pmc: str = "1", license_: str = CC_BY, more: str = "", head: str = "") -> bytes:
    """Return an article as JATS XML."""
    ids = f'<article-id pub-id-type="pmc">{pmc}</article-id>' if pmc else ""
    permissions = f"<permissions>{license_}</permissions>" if license_ else ""
    meta = (
        f"{ids}<article-id pub-id-type='pmid'>77</article-id><title-group><article-title>A <i>study</i></article-title>"
        f"</title-group><pub-date><year>2024</year><month>6</month></pub-date>{permissions}"
        "<abstract><title>Aim</title><p>To see.</p></abstract><kwd-group><kwd>lung</kwd></kwd-group>"
        "<kwd-group kwd-group-type='MeSH'><kwd>Humans</kwd></kwd-group>"
    )
    journal = (
        "<journal-meta><journal-title-group><journal-title>J Test</journal-title></journal-title-group></journal-meta>"
    )
    text = (
        f'<?xml version="1.0"?>\n{head}<article {XLINK}><front>{journal}<article-meta>{meta}</article-meta></front>'
        f"<body>{body}</body><back><ref-list><ref id='b1'><pub-id pub-id-type='pmid'>5</pub-id></ref></ref-list></back>"
        f"{more}</article>"
    )
    return text.encode()


def plain_article(number: int, *, license_: str = CC_BY) -> bytes:
    """Return an article with two figures, a.jpg and b.jpg, of which the first is cited."""
    body = (
        f"<p>We saw the finding ({cite(1, words='Fig. 1A')}) of case {number}.</p>"
        f"{figure(1, 'a', f'<title>Film {number}.</title><p>An opacity.</p>')}{figure(2, 'b', '<p>A curve.</p>')}"
    )
    return article(body, pmc=str(1000 + number), license_=license_)


def image(seed: int = 0, *, height: int = 40, width: int = 60, mode: str = "RGB", kind: str = "JPEG") -> bytes:
    """Return the bytes of an image file that hangs on the seed."""
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 4), np.uint8)
    if mode == "I;16":
        drawn = Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 257)
    elif mode in ("P", "L", "CMYK"):
        drawn = Image.fromarray(pixels[:, :, :3]).convert(mode)
    else:
        drawn = Image.fromarray(pixels[:, :, : len(mode)])
    buffer = io.BytesIO()
    drawn.save(buffer, kind)
    return buffer.getvalue()


def write_folder(folder: Path, xml: bytes, images: Mapping[str, bytes]) -> Path:
    """Write a package as a folder."""
    folder.mkdir(parents=True)
    (folder / "article.nxml").write_bytes(xml)
    for name, data in images.items():
        (folder / name).write_bytes(data)
    return folder


def write_tar(path: Path, xml: bytes, images: Mapping[str, bytes], *, extra: Sequence[tarfile.TarInfo] = ()) -> Path:
    """Write a package as PMC does: a .tar.gz with one folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for name, data in {**images, "article.nxml": xml}.items():
            info = tarfile.TarInfo(f"PMC/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for info in extra:
            tar.addfile(info)
    return path


def write_many(folder: Path, count: int, *, license_: str = CC_BY) -> Path:
    """Write so many packages of two figures each, every other as a tar."""
    for n in range(count):
        images = {"a.jpg": image(2 * n), "b.jpg": image(2 * n + 1)}
        write = write_tar if n % 2 else write_folder
        write(folder / (f"p{n}.tar.gz" if n % 2 else f"p{n}"), plain_article(n, license_=license_), images)
    return folder

"""What is kept of an output in place of it: hashes of what must be equal to the letter, and sums of what is measured.

A fingerprint is text: `HASH`, or `HASH; COUNT; SUM; SIZE` where decimals are part of the output. They are taken out of
it before it is hashed, and stand in a sum in which each has a weight of its own, so that a value that changed, moved or
went is seen, and the last bit of another processor is not. Of a table each column has a fingerprint after its type, of
an object of JSON each key, and that of two levels.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import re
import sqlite3
import tarfile
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

TOLERANCE = 1e-5
"""Of a weighted sum, as a share of the sum of all sizes: about a hundred times what single precision leaves open."""
_DECIMAL = re.compile(r"(?<![\w.])(?:\d+\.\d+(?:[eE][+-]?\d+)?|\d+[eE]-\d+)(?![\w.]*\d)")
_EMBEDDED = re.compile(r"data:([\w/+.-]+);base64,[A-Za-z0-9+/=]+")
_HEX = re.compile(r"\b[0-9a-f]{16,64}\b")
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
_VARIES = re.compile(
    r"work|workers|wall_s|time|seconds|files_per_second|seconds_left|images_s|data_wait|costs|fit_seconds|predict_seconds"
    r"|fingerprint|date|software|sealed|\w*Time|\w*Date|SOPInstanceUID|SeriesInstanceUID|TimeOfSecondaryCapture"
    r"|ContributingEquipmentSequence"
)
"""Keys and columns whose values are times, speeds, or made anew for each object: only that they are there is held."""
_WIDE = 60
"""Columns from which on those of one prefix share a fingerprint, such as `label:ecg_superclass:`."""
_LISTED_APART = 2
"""Levels of keys of an object that have a fingerprint each."""

Clean = Callable[[str], str]
"""Takes out of a text what may differ between two runs: folders, times, versions."""


def fingerprint(path: Path, clean: Clean) -> Any:
    """Return the fingerprint of a file, by its suffix: text, or an object of such."""
    return fingerprint_bytes(path.name, path.read_bytes(), clean)


def fingerprint_bytes(name: str, body: bytes, clean: Clean) -> Any:
    """Return the fingerprint of the content of a file of this name."""
    suffix = Path(name).suffix.lower()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reader = _READERS.get(suffix)
        if reader is not None:
            with contextlib.suppress(Exception):  # of a file that is broken on purpose the bytes are held
                return reader(body, clean)
    try:
        return of_text(body.decode("utf-8"), clean)
    except UnicodeDecodeError:
        return f"{len(body)} bytes; {_hash(body)}"


def of_text(text: str, clean: Clean) -> str:
    """Return the fingerprint of a text; names of options and embedded images are left out of it."""
    return of_parts([mask_options(_EMBEDDED.sub(r"<\1>", clean(text)))])


def mask_options(text: str) -> str:
    """Return a text without the names of options, which this snapshot does not hold."""
    return _OPTION.sub("--OPTION", text)


def of_parts(texts: Iterable[str], decimals: Sequence[float] = ()) -> str:
    """Return the fingerprint of some texts and further numbers in their order."""
    numbers = list(decimals)
    digest = hashlib.sha256()
    for text in texts:
        numbers += [float(value) for value in _DECIMAL.findall(text)]
        digest.update(_DECIMAL.sub("#", text).encode() + b"\0")
    return digest.hexdigest()[:12] + _sums(np.asarray(numbers, float))


def of_json(value: Any, clean: Clean) -> Any:
    """Return the fingerprints of a value of JSON: of an object one for each key of two levels."""
    return _flat(value, clean, "") if isinstance(value, Mapping) else _of_value(value, clean)


def of_rows(rows: Sequence[Mapping[str, Any]], clean: Clean) -> dict[str, Any]:
    """Return the fingerprints of objects with much the same keys: one for each key."""
    names = dict.fromkeys(name for row in rows for name in row)
    values = {n: "varies" if _VARIES.fullmatch(n) else _of_value([row.get(n) for row in rows], clean) for n in names}
    return {"rows": len(rows), **values}


def of_table(table: pa.Table, clean: Clean) -> dict[str, Any]:
    """Return the fingerprints of a table: its number of rows, and the type and the values of each column."""
    if not table.num_rows:
        return {"rows": 0, "columns": ", ".join(f"{field.name} {field.type}" for field in table.schema)}
    kept = {n: "varies" if _VARIES.fullmatch(n) else _of_column(table[n], clean) for n in table.schema.names}
    columns = {field.name: f"{field.type}; {kept[field.name]}" for field in table.schema}
    return {"rows": table.num_rows, "columns": ", ".join(table.schema.names), **columns}


def of_array(array: Any) -> str:
    """Return the fingerprint of an array: shape, type and values."""
    values = np.asarray(array)
    shape = f"{values.dtype} {'x'.join(map(str, values.shape))}"
    if values.dtype.kind in "fc":
        return f"{shape}{_sums(np.asarray(values, float).ravel())}"
    return f"{shape}; {_hash(repr(values.tolist()).encode())}"


def is_same(frozen: str, found: str) -> bool:
    """Whether two fingerprints are equal: hashes to the letter, sums to some digits."""
    if frozen == found:
        return True
    (head, *sums), (other_head, *other_sums) = (_parted(text) for text in (frozen, found))
    if head != other_head or not sums or not other_sums:
        return False
    return bool(np.allclose(sums, other_sums, rtol=0, atol=TOLERANCE * max(sums[1], other_sums[1]) + 1e-12))


def _parted(text: str) -> list[Any]:
    """Return what stands before the two sums of a fingerprint, and they, where there are such."""
    parts = text.rsplit("; ", 2)
    try:
        return [parts[0], *(float(part) for part in parts[1:])] if len(parts) == 3 else [text]
    except ValueError:
        return [text]


def _sums(values: Any) -> str:
    """Return how many values, their sum, each with a weight of its own, and the sum of their sizes."""
    if not len(values):
        return ""
    finite = np.where(np.isfinite(values), values, 0.0)
    weights = 1 + np.random.default_rng(0).random(len(values))
    counts = f"{int(np.isfinite(values).sum())}/{len(values)}"
    return f"; {counts}; {finite @ weights:.9g}; {np.abs(finite).sum():.9g}"


def _hash(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:12]


def _flat(value: Mapping[str, Any], clean: Clean, before: str, depth: int = 1) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, inner in value.items():
        name = f"{before}{clean(str(key))}"
        if _VARIES.fullmatch(key):
            out[name] = "varies"
        elif isinstance(inner, Mapping) and inner and depth < _LISTED_APART:
            out |= _flat(inner, clean, f"{name}.", depth + 1)
        else:
            out[name] = _of_value(inner, clean)
    return out


def _of_value(value: Any, clean: Clean) -> str:
    """Return the fingerprint of any value of JSON."""
    numbers: list[float] = []

    def without_decimals(part: Any) -> Any:
        if isinstance(part, Mapping):
            varies = {key: "varies" for key in part if _VARIES.fullmatch(str(key))}
            return {mask_options(clean(str(k))): without_decimals(inner) for k, inner in {**part, **varies}.items()}
        if isinstance(part, list | tuple):
            return [without_decimals(inner) for inner in part]
        if isinstance(part, float) and not (math.isfinite(part) and part.is_integer()):
            numbers.append(part)
            return "#"
        return mask_options(_EMBEDDED.sub(r"<\1>", clean(part))) if isinstance(part, str) else part

    left = without_decimals(value)
    return of_parts([json.dumps(left, ensure_ascii=False, default=str)], numbers)


def _of_column(column: Any, clean: Clean) -> str:
    kind = column.type
    if pa.types.is_floating(kind):
        nulls = _hash(repr(column.is_null().to_pylist()).encode())
        return nulls + _sums(column.to_numpy(zero_copy_only=False).astype(float))
    if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return _of_nested(column.to_pylist(), clean)
    values = column.to_pylist()
    return of_parts([json.dumps([mask_options(clean(v)) if isinstance(v, str) else v for v in values], default=str)])


def _of_nested(values: list[Any], clean: Clean) -> str:
    if any(isinstance(value, bytes) for value in values):  # small images
        return of_parts([str(_of_blob(value, clean)) for value in values])
    return _of_value(values, clean)


def _of_blob(value: bytes | None, clean: Clean) -> Any:
    if value is None:
        return None
    suffix = {b"\x89PN": ".png", b"\xff\xd8\xff": ".jpg"}.get(value[:3], "")
    return fingerprint_bytes(f"blob{suffix}", value, clean)


def _parquet(body: bytes, clean: Clean) -> Any:
    return of_table(pq.read_table(io.BytesIO(body)), clean)


def _csv(body: bytes, clean: Clean, separator: str = ",") -> Any:
    text = body.decode("utf-8-sig")
    if not text.strip():
        return "empty"
    frame = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False, sep=separator)
    cells = {name: [mask_options(clean(value)) for value in frame[name]] for name in frame.columns}
    groups: dict[str, list[str]] = {}
    for name, values in cells.items():
        groups.setdefault(f"{name.rpartition(':')[0]}:" if len(cells) > _WIDE else name, []).extend(values)
    columns = {name: of_parts(values) for name, values in groups.items()} if len(frame) else {}
    if len(cells) > _WIDE:
        return {"rows": len(frame), "columns": f"{len(cells)}; {_hash(' '.join(cells).encode())}", **columns}
    return {"rows": len(frame), "columns": ", ".join(map(str, cells)), **columns}


def _json(body: bytes, clean: Clean) -> Any:
    return of_json(json.loads(body), clean)


def _jsonl(body: bytes, clean: Clean) -> Any:
    return of_rows([json.loads(line) for line in body.decode().splitlines()], clean)


def _image(body: bytes, clean: Clean) -> str:
    from PIL import Image

    with Image.open(io.BytesIO(body)) as image:
        pixels = np.asarray(image if image.mode != "P" else image.convert("RGB"), float)
        size = f"{image.format} {image.mode} {image.width}x{image.height}"
    return f"{size} of {pixels.mean():.3g} ± {pixels.std():.3g}"


def _safetensors(body: bytes, clean: Clean) -> str:
    from safetensors.numpy import load

    return _of_arrays(load(body))


def _npz(body: bytes, clean: Clean) -> str:
    stored = np.load(io.BytesIO(body), allow_pickle=False)
    return of_array(stored) if isinstance(stored, np.ndarray) else _of_arrays({name: stored[name] for name in stored})


def _of_arrays(arrays: Mapping[str, Any]) -> str:
    names = sorted(arrays)
    floats = [np.asarray(arrays[n], float).ravel() for n in names if np.asarray(arrays[n]).dtype.kind == "f"]
    shapes = [f"{n} {arrays[n].dtype} {arrays[n].shape}" for n in names]
    whole = [of_array(arrays[n]) for n in names if np.asarray(arrays[n]).dtype.kind != "f"]
    digest = _hash("\n".join([*shapes, *whole]).encode())
    return f"{len(names)} arrays {digest}{_sums(np.concatenate(floats) if floats else np.zeros(0))}"


def _hdf5(body: bytes, clean: Clean) -> Any:
    import h5py

    out: dict[str, str] = {}
    with h5py.File(io.BytesIO(body)) as file:

        def look(name: str, thing: Any) -> None:
            attributes = of_parts([clean(str(sorted((k, str(v)) for k, v in thing.attrs.items())))])
            values = f" {of_array(_decoded(thing[()]))}" if isinstance(thing, h5py.Dataset) else ""
            out[clean(name)] = f"attributes {attributes}{values}"

        file.visititems(look)
    return out


def _decoded(values: Any) -> Any:
    return np.asarray(values).astype(str) if isinstance(values, np.ndarray) and values.dtype == object else values


def _sqlite(body: bytes, clean: Clean) -> Any:
    with TemporaryDirectory() as folder:
        (Path(folder) / "a").write_bytes(body)  # one with a log beside it is not read from memory
        with closing(sqlite3.connect(Path(folder) / "a")) as base:
            tables = base.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()
    return {name: _hash(str(sql).encode()) for name, sql in tables}


def _tar(body: bytes, clean: Clean) -> Any:
    by_suffix: dict[str, list[str]] = {}
    names = []
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        for member in archive:
            stream = archive.extractfile(member)
            content = b"" if stream is None else stream.read()
            kept = fingerprint_bytes(member.name, content, clean)
            names.append(member.name)
            by_suffix.setdefault(member.name.partition(".")[2], []).append(json.dumps(kept))
    digests = {suffix: _hash("\n".join(kept).encode()) for suffix, kept in by_suffix.items()}
    return {"names": f"{len(names)} members {_hash(clean(' '.join(names)).encode())}", **digests}


def _dicom(body: bytes, clean: Clean) -> Any:
    import pydicom

    dataset = pydicom.dcmread(io.BytesIO(body))
    dataset.pop("PixelData", None)
    values = {element.keyword or str(element.tag): str(element.value) for element in dataset}
    return of_json(values, clean)


_READERS: Mapping[str, Callable[[bytes, Clean], Any]] = {
    ".parquet": _parquet,
    ".csv": _csv,
    ".tsv": lambda body, clean: _csv(body, clean, "\t"),
    ".json": _json,
    ".jsonl": _jsonl,
    ".png": _image,
    ".jpg": _image,
    ".jpeg": _image,
    ".safetensors": _safetensors,
    ".npz": _npz,
    ".npy": _npz,
    ".h5": _hdf5,
    ".h5ad": _hdf5,
    ".hdf5": _hdf5,
    ".sqlite": _sqlite,
    ".tar": _tar,
    ".dcm": _dicom,
    ".geojson": _json,
}


def mask_hashes(text: str) -> str:
    """Return a text without hashes: where weights were trained here they are another processor's."""
    return _HEX.sub("<HASH>", text)

"""Stage 3: compare all methods on every set that is here, one folder and one page each, then sum up over sets.

Usage: python pipelines/clip_svd/measure.py SUITE.yaml DATA OUT --model PACK [--workers 2] [--quick] [--sets A,B]
       [--methods A,B] [--seeds N] [--shots 1,2] [--novel] [--key-file KEY]

Kill it anywhere and run it again: every run is kept. More methods, seeds or shots in the same OUT compute those only.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from medclip.adaptation.data.table import TableSource
from medclip.cli.progress import print_line, progress
from medclip.evaluation.few_shot.compare import compare_methods
from medclip.evaluation.few_shot.protocol import Design, make_protocol
from medclip.reports.few_shot import write_compare_report
from medclip.text.vocabulary.load import parse_task
from medclip.text.vocabulary.task import Task

BATCH = 32
MOST_SHOTS = 16
TEST_SHARE = 0.3


def task_of(part: Mapping[str, Any], template: str) -> Task:
    """Make the task of a set: one phrase for each class, in one template."""
    key = str(part["id"]).lower().replace("-", "_")
    classes = [{"name": _key(c), "title": c, "prompts": [c.lower()]} for c in part["classes"]]
    values = {"kind": "multiclass", "modality": part["modality"], "templates": [template], "classes": classes}
    return parse_task(yaml.safe_dump(values), where=part["id"], short_name=key)


def svd_options(part: Mapping[str, Any], common: Mapping[str, Any], stage: str) -> str:
    """Give CLIP-SVD its recorded rate and epochs, the latter as steps: those of 16 shots, at every K.

    The reference counts epochs, so that its runs with few shots take fewer steps.
    """
    said: dict[str, Any] = {**common}
    recorded = dict(part.get(stage, {}))
    recorded.pop("template", None)
    if "epochs" in recorded:
        recorded["steps"] = recorded.pop("epochs") * -(-MOST_SHOTS * len(part["classes"]) // BATCH)
    said |= recorded
    return ":".join(["svd", *(f"{k}={v}" for k, v in said.items())])


def class_folders(folder: Path, part: Mapping[str, Any]) -> Path | None:
    """Write labels.csv of a set that has one folder for each class, and give its path; None where there are none."""
    wanted = {_key(c): c for c in part["classes"]}
    found = [(f, wanted[_key(f.name)]) for f in sorted(folder.iterdir()) if f.is_dir() and _key(f.name) in wanted]
    if len(found) < 2:
        return None
    path = folder / "labels.csv"
    with path.open("w", newline="", encoding="utf-8") as f:
        writer = csv.writer(f)
        writer.writerow(["file", "label"])
        for of_class, name in found:
            writer.writerows([str(p.relative_to(folder)), name] for p in sorted(of_class.rglob("*")) if p.is_file())
    return path


def jobs(
    suite: Mapping[str, Any], data: Path, sets: Sequence[str], novel: bool
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give the arguments of `compare` for each set that is here, and say which are not."""
    for part in suite["sets"]:
        if sets and part["id"] not in sets:
            continue
        if "table" in part:
            path = data / part["table"]
            asked: dict[str, Any] = {"table": path, "labels": tuple(part["label"])}
            if novel:
                continue  # the same options serve both, so both were in the first call
            asked["base_to_novel"] = bool(part.get("novel"))
        else:
            path = data / part["id"] / "labels.csv"
            if not path.is_file() and path.parent.is_dir():
                path = class_folders(path.parent, part) or path
            stage = "base_to_novel" if novel else "few_shot"
            if novel and "base_to_novel" not in part:
                continue
            template = part.get(stage, {}).get("template", part["template"])
            asked = {"table": path, "labels": ("label",), "modality": part["modality"], "task": task_of(part, template)}
            asked["base_to_novel"] = novel
            if path.is_file() and not _names_patients(path):
                asked["patient"] = "file"
        if not path.is_file():
            print_line(f"{part['id']}: not here ({path})")
        else:
            svd = svd_options(part, suite["svd"], "base_to_novel" if novel else "few_shot")
            own = {name: part.get(name, suite[name]) for name in ("shots", "inits")}
            yield part["id"], asked | own | {"svd": svd, "methods": part.get("methods")}


def main(argv: Sequence[str] | None = None) -> None:
    """Compare set by set; a set's folder is OUT/<set>, or OUT/<set>-novel."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="leave out the methods that train towers")
    parser.add_argument("--novel", action="store_true", help="from base classes to novel ones, 16 shots")
    parser.add_argument("--sets", default="")
    parser.add_argument("--methods", default="")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--shots", default="")
    parser.add_argument("--key-file", type=Path)
    args = parser.parse_args(argv)
    suite = yaml.safe_load(args.suite.read_text(encoding="utf-8"))
    for name, asked in jobs(suite, args.data, [s for s in args.sets.split(",") if s], args.novel):
        own, svd, shots, inits, novel = (
            asked.pop(key) for key in ("methods", "svd", "shots", "inits", "base_to_novel")
        )
        listed = allowed([m for m in args.methods.split(",") if m] or suite["methods"] or None, own)
        methods = chosen_methods(listed, svd, quick=args.quick, novel=args.novel) if listed != [] else []
        if not methods:
            print_line(f"{name}: none of these methods takes part")
            continue
        folder = args.out / (f"{name}-novel" if args.novel else name)
        print_line(f"== {name}")
        with progress() as shown:
            compared = compare_methods(
                args.model,
                TableSource(**asked),
                Design(
                    methods=methods,
                    shots=[int(k) for k in args.shots.split(",") if k] or ([16] if args.novel else shots),
                    seeds=args.seeds or suite["seeds"],
                    inits=inits,
                    novel=novel,
                ),
                out=folder,
                test_share=TEST_SHARE,
                num_workers=args.workers,
                key_file=args.key_file,
                progress=shown,
            )
        write_compare_report(compared, folder)
        for line in compared.result.lines():
            print(line, flush=True)


def allowed(listed: Sequence[str] | None, own: Sequence[str] | None) -> Sequence[str] | None:
    """Give those of the methods asked for (all where None) that a set has a list of its own for."""
    if own is None:
        return listed
    return list(own) if listed is None else [m for m in listed if m.split(":")[0] in own]


def chosen_methods(listed: Sequence[str] | None, svd: str, *, quick: bool, novel: bool) -> list[str]:
    """Give the methods of a set, CLIP-SVD with its options; for novel classes those that have an answer."""
    variants = make_protocol(Design(listed, quick=quick and listed is None)).variants
    kept = [v for v in variants if not (quick and v.entry.trains_towers) and (v.transfers or not novel)]
    return [svd if v.label == "svd" else v.label for v in kept]


def _names_patients(path: Path) -> bool:
    with path.open(newline="", encoding="utf-8") as f:
        return "patient" in next(csv.reader([f.readline()]), [])


def _key(words: str) -> str:
    return "_".join("".join(c if c.isalnum() else " " for c in words.lower()).split())


if __name__ == "__main__":
    main()

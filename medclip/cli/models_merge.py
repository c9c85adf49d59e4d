"""`medclip models merge PACK...`: packs of one ancestor become one."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medclip.cli import options
from medclip.errors import printable

if TYPE_CHECKING:
    from medclip.api.merge_packs import MergedPack


def merge(
    packs: Annotated[list[str], typer.Argument(metavar="PACK...", help="Names or folders of packs, in their order.")],
    out: options.OutFolder,
    method: Annotated[
        str, typer.Option("--method", metavar="NAME", help="soup, greedy-soup, opcm or wise-ft.")
    ] = "soup",
    base: Annotated[
        str | None, typer.Option("--base", metavar="PACK", help="Pack that the others began with: opcm, wise-ft.")
    ] = None,
    alpha: Annotated[
        float | None,
        typer.Option("--alpha", help="opcm: share kept free of new packs. wise-ft: the new pack's. Default: 0.5."),
    ] = None,
    shards: Annotated[
        list[Path] | None,
        typer.Option("--shards", metavar="DIR", help="Shards to measure with; greedy-soup needs them. Repeatable."),
    ] = None,
    val_split: Annotated[
        str, typer.Option("--val-split", metavar="NAME", help="Split that a greedy soup is chosen on.")
    ] = "val",
    test_split: Annotated[
        str, typer.Option("--test-split", metavar="NAME", help="Split that the merged pack is measured on.")
    ] = "test",
    min_gain: Annotated[
        float, typer.Option("--min-gain", min=0, help="Least gain for a pack to come into a greedy soup.")
    ] = 0.0,
    num_resamples: options.NumResamples = 2000,
    name: options.Name = None,
    overwrite: options.Overwrite = False,
    device: options.Device = "cpu",
    as_json: options.Json = False,
) -> None:
    """Merge packs that began with the same weights, without training: an average, or one after the other.

    Figures of the packs are not carried over: with --shards the merged pack is measured on patients of its own.

    Exit code: 0 merged, 2 wrong use or refused.
    """
    from medclip.api.merge_packs import merge_packs
    from medclip.cli.progress import progress

    with progress(quiet=as_json) as shown:
        merged = merge_packs(
            packs, out=out, method=method, base=base, alpha=alpha, shards=shards or (), val_split=val_split,
            test_split=test_split, min_gain=min_gain, num_resamples=num_resamples, name=name, overwrite=overwrite,
            device=device, progress=shown,
        )  # fmt: skip
    if as_json:
        print(json.dumps(_values(merged), indent=1))
        return
    _print(merged)


def _print(merged: MergedPack) -> None:
    from medclip.cli.table import print_paragraph, print_table
    from medclip.wording import figure, interval

    if merged.tried:
        rows = [
            (printable(one.name), figure(one.alone, decimals=3), figure(one.soup, decimals=3),
             "in" if one.accepted else "left out", "" if one.midpoint is None else figure(one.midpoint, decimals=3))
            for one in merged.tried
        ]  # fmt: skip
        print_table(("pack", "alone", "soup with it", "", "halfway to the best"), rows)
    if merged.held_out is not None:
        rows = [
            (row["task"], row["metric"], figure(row["value"], decimals=3),
             "" if row["low"] is None else interval(row["low"], row["high"], decimals=3))
            for row in merged.held_out.rows()
        ]  # fmt: skip
        print_table(("task", "metric", "value", "interval"), rows)
    for note in merged.notes:
        print_paragraph("- ", note)
    if merged.held_out is None:
        print("Nothing was measured after merging: its card lists tasks without figures.")
    print(f"Written: {printable(str(merged.path))}, of {', '.join(printable(one) for one in merged.packs)}")


def _values(merged: MergedPack) -> dict[str, Any]:
    return {
        "folder": str(merged.path),
        "name": merged.name,
        "method": merged.method,
        "packs": list(merged.packs),
        "tried": [asdict(one) for one in merged.tried],
        "figure": merged.figure,
        "held_out": None if merged.held_out is None else merged.held_out.model_dump(mode="json"),
        "notes": list(merged.notes),
    }

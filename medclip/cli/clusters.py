"""`medclip pairs cluster` and `medclip pairs label`: clusters of images to label, and labels of their images."""

from __future__ import annotations

import json
from typing import Any

from medclip.api import clusters as verbs
from medclip.cli.derive import derive


def print_clusters(result: Any, as_json: bool, _: Any) -> None:
    """Print how many clusters there are, and where they are labelled."""
    from medclip.errors import printable
    from medclip.wording import by_reason, count, number, percent

    if as_json:
        print(json.dumps(result.to_dict(), indent=2))
        return
    kinds = f"{count(result.num_clusters, 'cluster')} of {count(result.num_images, 'image')}"
    print(
        f"{printable(str(result.folder))}: {kinds}, {number(min(result.sizes))} to {number(max(result.sizes))} in each."
    )
    print(f"  {count(result.components, 'component')} with {percent(result.explained)} of the variance")
    if result.unread:
        print(f"  not read: {by_reason(result.unread)}")
    print("  Look at clusters.html, fill in labels.csv, then: medclip pairs label")


def print_labels(result: Any, as_json: bool, _: Any) -> None:
    """Print how many images have labels, and how often these are right."""
    from medclip.cli.table import print_table
    from medclip.errors import printable
    from medclip.wording import count, estimate, number

    if as_json:
        print(json.dumps(result.to_dict(), indent=2))
        return
    print(
        f"{printable(str(result.out))}: {number(result.num_labelled)} of {count(result.num_images, 'image')} labelled."
    )
    if result.num_unlabelled:
        print(f"  {count(result.num_unlabelled, 'cluster')} without a label")
    for kind, counts in result.counts.items():
        for term, n in counts.items():
            print(f"  {kind}: {printable(term)} {number(n)}")
    if result.check is not None:
        print(f"{printable(str(result.check))}: {count(result.num_drawn, 'image')} to check; fill in `right`.")
    if result.precision:
        rows = [
            [p.kind, p.term, f"{p.num_right} of {p.num_checked}", estimate(p.precision, p.low, p.high)]
            for p in result.precision
        ]
        print_table(["", "label", "right", "precision"], rows)


cluster = derive(verbs.cluster, print_clusters, exit_codes="0 done")
label = derive(verbs.label, print_labels, exit_codes="0 done")

"""Stage 1: the pile, a table of the shared sets that have words, and of book figures that are mostly drawings.

Usage: python pipelines/datacomp/pile_table.py SHARED_DATA OUT.csv [--few N]

Patients have the names that they have in pipelines/mini, and shards are built with its shares and its key: who is held
out there, and so was never seen by medclip-mini, is held out here. Book figures are all in the training split.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "mini"))

from measuring import write_rows
from shared_sets import Row, read_labels, rows_of
from table import few_of

from medclip.text.captions import quoted_words

SETS = ("medpix2", "vqa_rad", "csdi_fundus", "cdd_cesm")
"""Sets of images with words of their own. PTB-XL is not among them: the image tower takes an ECG as drawn sheets, five
cuttings of each record, and the reports of most records are German, which no step here reads."""
FIGURES = "openstax_fig"


def rows(data: Path) -> Iterator[Row]:
    """Yield the rows of the pile: those with words, and the book figures."""
    for row in rows_of(data, SETS):
        if row["modality"] and row.get("captions"):
            yield row
    for r in read_labels(data / FIGURES):
        yield {
            "file": f"{FIGURES}/{r['file']}",
            "patient": f"{FIGURES}:{r['group']}",
            "modality": "",
            "adapter": "generic",
            "split": "train",
            "source": FIGURES,
            "license": r["license"],
            "captions": quoted_words.joined([text for text in (r["caption"], r["alt"]) if text]),
            "stratum": r["kind"],
        }


def all_words(row: Row) -> str:
    """Return all words of a row as one text, which losses of long texts read, and no other."""
    return " ".join(row["captions"].split("\n"))


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--few", type=int, help="so many rows of each source and stratum")
    arguments = parser.parse_args()
    root = arguments.data.resolve()
    pile = [row | {"file": str(root / row["file"]), "long_captions": all_words(row)} for row in rows(root)]
    if arguments.few:
        pile = few_of(pile, arguments.few)
    write_rows(arguments.out, pile)
    print(f"{len(pile)} rows: {dict(Counter(row['source'] for row in pile))}")


if __name__ == "__main__":
    main()

"""Stage 10: put into the card whether other words would do as well as those of each task (`word_control`).

Usage: python pipelines/mini/words.py SHARED_DATA [PACK]

It is what `medclip evaluate --suite mini` measures on the files that the other figures of the card are of, of held-out
patients: each task over all its sources, or over those within which it holds where it does not hold across them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import medclip
from medclip.cli.progress import progress
from medclip.models.packs.card import Card
from medclip.models.packs.card_sources import ALL
from medclip.models.packs.pack import check_pack, find_pack, pack_card, update_pack


def main(data: Path, model: str = "medclip-mini") -> None:
    """Measure, write, seal."""
    pack, card = find_pack(model), pack_card(model)
    result = medclip.evaluate(data, suite="mini", model=model, progress=progress())
    tasks = {name: entry.model_dump() | {"word_control": {}} for name, entry in card.tasks.items()}
    for task in result.tasks:
        entry, name = tasks.get(task.task), task.finding or ALL
        if entry is not None and task.word_control is not None and (name == ALL or name in entry["classes"]):
            entry["word_control"][name] = task.word_control
            print(task.name, *task.word_control.lines(), sep="\n")
    update_pack(pack, card=Card.model_validate(card.model_dump() | {"tasks": tasks}))
    check_pack(model)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:3])

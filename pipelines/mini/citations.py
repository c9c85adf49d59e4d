"""The works behind the pack's data and start, from citations.yaml, for its card: `medclip models cite` prints them.

Usage: python pipelines/mini/citations.py PACK

publish.py does it for a new pack. Run by itself, this puts the works, and the licence of the weights, into a pack that
was published before, and seals it anew; its weights stay as they are, its digest is another one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from datetime import date
from pathlib import Path

import yaml

from medclip.models.packs.card import Card
from medclip.models.packs.card_citations import Citation
from medclip.models.packs.manifest import LICENCE_NAME
from medclip.models.packs.pack import find_pack, pack_card, update_pack, verify_pack

HERE = Path(__file__).parent
LICENCE = HERE.parents[1] / "LICENSES" / "LicenseRef-medclip-mini-weights.txt"


def all_works() -> list[Citation]:
    """Return every work of citations.yaml."""
    entries = yaml.safe_load((HERE / "citations.yaml").read_text(encoding="utf-8"))
    return [Citation.model_validate(entry) for entry in entries]


def set_of(name: str) -> str:
    """Return which set a source of a card is; one that came with the tower of another pack is listed by way of it."""
    return name.partition(", by way of ")[0]


def works_of(sources: Iterable[str], starts: Iterable[str], year: int | None = None) -> tuple[Citation, ...]:
    """Return the works that a pack needs, and how it is to be cited itself.

    Args:
        sources: Names of its data.
        starts: Keys of its card's `created_from`.
        year: In which it is published; this one where None.
    """
    known = [*sources, *starts]
    works = []
    for work in all_works():
        if not work.of:
            works.append(work.model_copy(update={"fields": work.fields | {"year": str(year or date.today().year)}}))
        elif names := tuple(dict.fromkeys(name for name in known if set_of(name) in work.of)):
            works.append(work.model_copy(update={"of": names}))
    return tuple(works)


def main(pack: str) -> None:
    """Put the works of its data and start into a published pack."""
    folder, card = find_pack(pack), pack_card(pack)
    works = works_of((source.name for source in card.data), card.created_from)
    new = Card.model_validate(card.model_dump() | {"citations": [work.model_dump() for work in works]})
    update_pack(folder, card=new, extra_files={LICENCE_NAME: LICENCE.read_bytes()})
    verify_pack(folder)
    print(f"{card.name} {card.version}: {len(works)} works on its card")


if __name__ == "__main__":
    main(sys.argv[1])

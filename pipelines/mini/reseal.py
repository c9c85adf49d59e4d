"""Put new preprocessing hashes into a pack whose training pixels are proven unchanged.

Usage: python pipelines/mini/reseal.py OLD_SHARDS NEW_SHARDS PACK

Where an adapter's version rises for files that were not in the training data (DICOM, volumes), the weights stay valid.
OLD_SHARDS are those the pack was trained on (their index carries the pack's hashes), NEW_SHARDS the same table built
with today's code. Every image of every split is compared byte for byte; one that differs ends the script, and the
model has to be trained again.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tarfile
from pathlib import Path

from medclip.models.packs.manifest import read_manifest, seal
from medclip.models.packs.pack import verify_pack


def images(shards: Path) -> dict[str, str]:
    """Hash every image of a shard folder, by its key."""
    found: dict[str, str] = {}
    for path in sorted(shards.glob("*.tar")):
        with tarfile.open(path) as archive:
            for member in archive:
                if member.name.endswith(".png"):
                    stream = archive.extractfile(member)
                    assert stream is not None
                    found[member.name] = hashlib.sha256(stream.read()).hexdigest()
    return found


def main(old: Path, new: Path, pack: Path) -> None:
    """Compare, then seal."""
    trained = json.loads((old / "index.json").read_text())["preprocessing"]
    today = json.loads((new / "index.json").read_text())["preprocessing"]
    if dict(read_manifest(pack).preprocessing) != trained:
        raise SystemExit(f"{old} does not hold the shards that {pack} was trained on.")
    before, after = images(old), images(new)
    if before != after:
        wrong = [key for key in {*before, *after} if before.get(key) != after.get(key)]
        raise SystemExit(f"{len(wrong)} of {len(before)} images differ, {wrong[0]} among them: train again.")
    seal(pack, today)
    verify_pack(pack)
    changed = sorted(name for name in today if trained.get(name) != today[name])
    print(f"{len(before)} images are equal byte for byte; new hashes for: {', '.join(changed) or 'nothing'}")


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:4]))

"""Recipes of pipelines say of each value where it comes from: paper, code or ours, in a comment on its line."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

_TAG = re.compile(r"#.*\b(paper|code|ours)\b")


def untagged(recipe: Path) -> list[str]:
    """Return the keys of a recipe whose lines do not say it; its name needs none."""
    text = recipe.read_text(encoding="utf-8")
    root, lines = yaml.compose(text), text.splitlines()
    assert isinstance(root, yaml.MappingNode)

    def bare(node: yaml.MappingNode, place: str = "") -> list[str]:
        keys: list[str] = []
        for key, value in node.value:
            if isinstance(value, yaml.MappingNode) and value.value:
                keys += bare(value, f"{place}{key.value}.")
            elif isinstance(value, yaml.SequenceNode) and not value.flow_style:
                keys += [f"{place}{key.value}" for item in value.value if not _TAG.search(lines[item.start_mark.line])]
            elif not _TAG.search(lines[key.start_mark.line]) and place + key.value != "name":
                keys.append(f"{place}{key.value}")
        return keys

    return bare(root)

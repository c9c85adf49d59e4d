"""What the site has of declared options: a page with those of every command, and the signatures of Python's verbs.

The page is a hook of mkdocs; the signatures are an extension of griffe, which reads files and would see one argument
`options` where users name each of them.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parents[2]))

from pipelines.docs_site.docstring_examples import HEADING

PAGE = "reference/options.md"
INTRODUCTION = """# Options of every command

Each command takes these; its Python function takes the same names with underscores, and a recipe (`--recipe FILE`) has
them as keys. What stands in parentheses behind a meaning is the default.
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page of options."""
    files.append(File.generated(config, PAGE, content=options_page()))
    return files


def options_page() -> str:
    """Return the page, in Markdown."""
    from medclip.cli.main import COMMANDS

    sections = ("\n".join(_section(name, target, summary)) for name, (target, summary) in COMMANDS.items())
    return "\n\n".join([INTRODUCTION, *sections]) + "\n"


def _section(name: str, target: str, summary: str) -> Iterator[str]:
    from medclip.cli.derive import by_heading, heading_of, help_of, must_be_named, spellings

    module, _, function = target.partition(":")
    declared = getattr(import_module(module), function).options
    shown = [one for one in declared.values() if one.is_on_command_line]
    yield f"## medclip {name}\n\n{summary}\n"
    yield "| option | takes | group | meaning |\n|---|---|---|---|"
    for one in (*(one for one in shown if one.is_argument), *by_heading(shown)):
        spelled = one.spelled.upper() if one.is_argument else spellings(one)[0]
        takes = "" if one.kind is bool else one.form or one.kind.__name__
        default = "" if one.default in (None, False, (), "") or must_be_named(one) else f" ({one.default})"
        cells = (
            f"`{spelled}`",
            takes,
            "" if one.is_argument else heading_of(one),
            f"{help_of(one, is_short=False)}{default}",
        )
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


class DeclaredVerbs(griffe.Extension):
    """Shows a function that `medclip.verbs.verb` made as its users see it."""

    def on_function_instance(self, *, func: griffe.Function, **_: Any) -> None:
        """Put the declared options in the place of the one value, and their help into the docstring."""
        if not any(str(decorator.value).startswith("verb(") for decorator in func.decorators):
            return
        verb = getattr(import_module(func.module.path), func.name)
        kinds = {
            inspect.Parameter.KEYWORD_ONLY: griffe.ParameterKind.keyword_only,
            inspect.Parameter.POSITIONAL_OR_KEYWORD: griffe.ParameterKind.positional_or_keyword,
        }
        func.parameters = griffe.Parameters(
            *(
                griffe.Parameter(
                    parameter.name,
                    annotation=parameter.annotation,
                    kind=kinds[parameter.kind],
                    default=None if parameter.default is parameter.empty else repr(parameter.default),
                )
                for parameter in inspect.signature(verb).parameters.values()
            )
        )
        if func.docstring is not None:
            func.docstring.value = HEADING.sub("Examples:", inspect.getdoc(verb) or "")

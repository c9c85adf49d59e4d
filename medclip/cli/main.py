"""The command `medclip`: a table of commands, each loaded only when it runs, and one place where errors become text."""

from __future__ import annotations

import functools
import gc
import logging
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from medclip.cli.derive import show_options
from medclip.cli.progress import print_line
from medclip.cli.standard_output import PipeClosed, checked_output
from medclip.errors import MedclipError, did_you_mean, printable
from medclip.exit_codes import ExitCode, exit_code
from medclip.files.access import file_modes
from medclip.options import RECIPE, Option
from medclip.verbs import values_of_recipe

OTHER_CODES = (
    "Any command: 1 a fault of medclip, 4 incomplete (no room on disk, in memory or on standard output), 5 another run "
    "is at work there, 130 interrupted, 141 whoever read the output went away."
)
"""What stands below the help of each command; its own codes are in its docstring."""

HELP_ALL = "--help-all"
FORMER = {f"captions from-{source}": f"pairs captions --from {source}" for source in ("labels", "mammography", "ecg")}
"""Commands of 0.2.0 that went, and what does the same."""
FORMER_OPTIONS = {("explain", "--no-checks"): "--checks none"}
"""Options that went, by their commands, and what does the same."""

# name -> (module:function, one line of help). A name with a blank in it is a command of a group, or of another command.
COMMANDS = {
    "score": ("medclip.cli.score:score", "Score studies in words; write tables and a report."),
    "embed": ("medclip.cli.embed:embed", "Compute vectors of studies once, for many questions."),
    "watch": ("medclip.cli.score:watch", "Score what comes into a folder, as it comes."),
    "report": ("medclip.cli.score:report", "Write the page of a run anew: order, paths, heat maps."),
    "export": ("medclip.cli.score:export", "Write or send results of a run for other systems."),
    "runs purge": ("medclip.cli.runs:purge", "Remove small images, vectors or ledgers of old runs."),
    "status": ("medclip.cli.runs:status", "Say how far a run is, also while it goes on."),
    "retry": ("medclip.cli.runs:retry", "Try files of a run once more that failed."),
    "runs merge": ("medclip.cli.runs:merge", "Merge the shards of a run."),
    "scan": (
        "medclip.cli.scan:scan",
        "List every file of a folder and what would be scored.",
    ),
    "view": ("medclip.cli.view:view", "Draw what a model would see of a file, beside what is stored."),
    "search": ("medclip.cli.search:search", "Find studies in embeddings, by words or by example."),
    "explain": (
        "medclip.cli.explain:explain",
        "Draw heat maps of what moves a score, and check them.",
    ),
    "pretrain": (
        "medclip.cli.train:pretrain",
        "Train a model from a recipe; run again to go on.",
    ),
    "finetune": (
        "medclip.cli.train:finetune",
        "Fine-tune an image tower to classes, and test it once.",
    ),
    "pathgen": ("medclip.cli.pathgen:pathgen", "Turn slides into patches with captions, as shards."),
    "shards build": ("medclip.cli.shards:build", "Turn a table of images into shards, split by patient."),
    "evaluate": ("medclip.cli.evaluate:evaluate", "Measure a model zero-shot on a suite of labelled sets."),
    "adapt": ("medclip.cli.adapt:adapt", "Make a pack of a model and a few labelled studies."),
    "adapt compare": (
        "medclip.cli.adapt:compare",
        "Find out which way of adapting helps, and how sure that is.",
    ),
    "audit": ("medclip.cli.audit:audit", "Ask whether a model works for every patient group."),
    "monitor": (
        "medclip.cli.monitor:monitor",
        "Watch results over weeks: what changed, without labels.",
    ),
    "audit verify": ("medclip.cli.audit:verify", "Check that a signed audit is what was written."),
    "audit diff": ("medclip.cli.audit:diff", "List what differs between two audits."),
    "pairs captions": (
        "medclip.cli.captions:captions",
        "Turn a table of labels, or of a published set, into one with captions.",
    ),
    "pairs look": ("medclip.cli.look:look", "Look at a pile of pairs before training on it: one page."),
    "pairs select": (
        "medclip.cli.select_pairs:select",
        "Keep or drop pairs by an ordered list of steps.",
    ),
    "pairs intersect": ("medclip.cli.select_pairs:intersect", "Keep the pairs that all of some selections keep."),
    "pairs union": ("medclip.cli.select_pairs:union", "Keep the pairs that any of some selections keeps."),
    "pairs from-articles": (
        "medclip.cli.articles:from_articles",
        "Turn figures of open-access articles into shards.",
    ),
    "pairs cluster": ("medclip.cli.clusters:cluster", "Group images of pairs, for experts to label."),
    "pairs label": ("medclip.cli.clusters:label", "Hand images the labels of their clusters."),
    "pairs rewrite": (
        "medclip.cli.rewrite:rewrite",
        "Clean what reports say, and write texts that are false by one change.",
    ),
    "pairs synthesize": (
        "medclip.cli.synthesize:synthesize",
        "Make synthetic samples of pairs that name what is rare.",
    ),
    "pairs reinforce": (
        "medclip.cli.reinforce:reinforce",
        "Store what teachers say of shards, for small students.",
    ),
    "captions rank": ("medclip.cli.captions:rank", "Rank captions by how well they fit an image."),
    "shards check": (
        "medclip.cli.shards:check",
        "Check a shard folder, or say what a table is understood to hold.",
    ),
    "shards index": ("medclip.cli.shards:index", "Make WebDataset tars of others ready to train on."),
    "ecg render": ("medclip.cli.ecg:render", "Draw an ECG record as a paper sheet."),
    "ecg digitise": ("medclip.cli.ecg:digitise", "Read a printed ECG back into millivolts."),
    "slides learn": (
        "medclip.cli.slides:learn",
        "Learn a head for whole slides, measured on patients left out.",
    ),
    "slides predict": (
        "medclip.cli.slides:predict",
        "Answer a question for every slide, with maps of what moves it.",
    ),
    "models list": ("medclip.cli.models:list_command", "List the model packs that can be loaded by name."),
    "models show": ("medclip.cli.models:show", "Show a pack's card: use, tasks, figures, data, licence, limits."),
    "models cite": (
        "medclip.cli.models:cite",
        "Print BibTeX of a pack, of its training data and of what it began with.",
    ),
    "models verify": ("medclip.cli.models:verify", "Check a pack's files against its manifest."),
    "models calibrate": (
        "medclip.cli.models:calibrate",
        "Choose what computes a pack's images on this processor.",
    ),
    "models import": (
        "medclip.cli.models:import_command",
        "Turn a checkpoint or a model folder into a pack, a BERT into a text folder.",
    ),
    "models merge": ("medclip.cli.models:merge", "Merge packs that began with the same weights into one."),
    "models distil": ("medclip.cli.models:distil", "Teach a small image tower to answer as a pack does."),
    "models set-thresholds": (
        "medclip.cli.models:set_thresholds",
        "Write a copy of a pack whose card names thresholds.",
    ),
    "models presets": ("medclip.cli.models:presets", "List how authors of public checkpoints treat images."),
    "models export": ("medclip.cli.models:export", "Write a pack as a folder that open_clip loads."),
    "slides tissue": ("medclip.cli.slides:tissue", "Find the tissue of slides."),
    "slides patches": ("medclip.cli.slides:patches", "Lay a grid of patches over the tissue of slides."),
    "slides embed": ("medclip.cli.slides:embed", "Compute the vectors of all patches of slides."),
    "slides export": ("medclip.cli.slides:export", "Write vectors of patches as AnnData or SpatialData."),
    "doctor": ("medclip.cli.doctor:doctor", "Check this installation and say how to fix what is wrong."),
}
GROUPS = {
    "pairs": "Write image-text pairs to train on, and choose among them.",
    "captions": "Rank captions for an image.",
    "ecg": "Draw ECGs on paper, and read them back.",
    "shards": "Build, index and check training shards.",
    "runs": "Put shards of runs together, and clear the folders of runs.",
    "slides": "Go through whole slides in stages, learn from them, answer.",
    "models": "List, show, cite, verify, merge, import, export packs.",
}


_WITHOUT_ARGUMENTS = frozenset({"adapt"})
"""Commands with others below them whose first word can only be one of those."""


class _Help:
    """Help with PATH for an argument, where typer writes {path}, and nothing behind a flag, where it writes <bool>."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the arguments and options with the words that stand for their values."""
        parameters: list[Any] = super().get_params(ctx)  # pyright: ignore[reportAttributeAccessIssue] (a command's)
        for parameter in parameters:
            if parameter.param_type_name == "argument":
                parameter.metavar = parameter.metavar or parameter.name.upper()
                parameter.display_type_rich = lambda **_: None  # typer writes <path> behind the name
            elif parameter.is_flag:
                parameter.metavar = ""
            if parameter.name == "help":
                parameter.rich_help_panel = "Output"
        return parameters

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the parts of the line `Usage:`."""
        pieces: list[str] = super().collect_usage_pieces(ctx)  # pyright: ignore[reportAttributeAccessIssue]
        return [piece.strip("{}").replace("...}...", "...").replace("}...", "...") for piece in pieces]


class _Command(_Help, TyperCommand):
    """One command."""


class _LazyGroup(_Help, TyperGroup):
    """A group that shows its table in --help and imports a command's module only to run it."""

    prefix = ""

    def _full(self, name: str) -> str:
        return f"{self.prefix} {name}".strip()

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names in the order of the table."""
        depth = len(self.prefix.split())
        inside = [n.split() for n in COMMANDS if not self.prefix or n.startswith(f"{self.prefix} ")]
        names = ((n[depth], " ".join(n[depth:])) for n in inside)
        return list(dict.fromkeys(first if self._full(first) in GROUPS else full for first, full in names))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Let a group have both words for help; it has no options that only one of them shows."""
        return super().parse_args(ctx, ["--help", *args[1:]] if args[:1] == [HELP_ALL] else args)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a group, or a stand-in that knows only its one line of help."""
        full = self._full(cmd_name)
        if full in GROUPS:
            return _group(full)
        if full in COMMANDS:
            return _command(_nothing, cmd_name, COMMANDS[full][1])
        return None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Replace the stand-in by the real command: this one is about to run."""
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            ctx.fail(_no_command(args[0], self.prefix))
        name, command, rest = super().resolve_command(ctx, args)
        full = self._full(name or "")
        if full in COMMANDS and rest and f"{full} {rest[0]}" in COMMANDS:
            full, name, rest = f"{full} {rest[0]}", f"{name} {rest[0]}", rest[1:]
        elif full in _WITHOUT_ARGUMENTS and rest and not rest[0].startswith("-"):
            ctx.fail(_no_command(rest[0], full))
        if full in COMMANDS:
            place, summary = COMMANDS[full]
            for word in rest:
                if (now := FORMER_OPTIONS.get((full, word))) is not None:
                    ctx.fail(f"There is no option {word} of `medclip {full}` any more. It is {now}.")
            name_of_module, function = place.split(":")
            target = getattr(import_module(name_of_module), function)
            is_all = HELP_ALL in rest
            rest = ["--help" if word == HELP_ALL else word for word in rest]
            has_recipe = any(word.partition("=")[0] == f"--{RECIPE}" for word in rest)
            command = _command(target, name or "", summary, is_all=is_all, has_recipe=has_recipe)
            rest = [*_settings_of(full, getattr(target, "options", {}), rest), *rest]
        return name, command, rest


def _settings_of(full: str, declared: Mapping[str, Option], given: Sequence[str]) -> list[str]:
    """Return the words that the settings file of this machine adds to what the user gave a command."""
    from medclip.cli.settings_file import arguments_of, machine_file, refuse_unknown_commands

    if full == "doctor" or "--help" in given:  # the doctor shows what is wrong with the file
        return []
    file = machine_file()
    if file is None:
        return []
    refuse_unknown_commands(file, COMMANDS)
    return arguments_of(file, full, declared, [*given, *_words_of_recipe(given)])


def _words_of_recipe(given: Sequence[str]) -> list[str]:
    """Return the options that the recipe among a user's words names: the settings file does not override them."""
    word = f"--{RECIPE}"
    named = [one.partition("=")[2] for one in given if one.startswith(f"{word}=")]
    named += [path for one, path in pairwise(given) if one == word]
    try:
        names = values_of_recipe(named[-1]) if named else {}
    except MedclipError:  # the verb says what is wrong with it
        return []
    return [f"--{str(name).replace('_', '-').strip('-')}" for name in names]


def _no_command(name: str, prefix: str) -> str:
    """Return the sentence for a missing command, with the one that may have been meant: below `prefix`, or any."""
    known = [name.removeprefix(f"{prefix} ") for name in _below(prefix)] if prefix else [*COMMANDS, *GROUPS]
    where = f" of `medclip {prefix}`" if prefix else ""
    now = FORMER.get(f"{prefix} {name}".strip())
    hint = did_you_mean(name, known) if now is None else f"It is `medclip {now}`."
    return f"There is no command {name!r}{where}. {hint}".rstrip()


def _below(prefix: str) -> list[str]:
    return [name for name in COMMANDS if name.startswith(f"{prefix} ")]


def _nothing() -> None:
    """Stand in for a command that is only listed."""


def _command(
    function: Callable[..., object], name: str, summary: str, *, is_all: bool = False, has_recipe: bool = False
) -> Any:
    """Make one command; an int that the function returns is the exit code.

    Args:
        function: Function that is run, as `medclip.cli.derive` makes it.
        name: Name of the command.
        summary: Line of help of the command.
        is_all: Whether help shows every option, with all that is said of it.
        has_recipe: Whether a recipe may name what is required.
    """

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            code = function(*args, **kwargs)
        except KeyboardInterrupt:  # here, since typer would end without a word
            print_line("medclip: interrupted.")
            code = ExitCode.INTERRUPTED
        if isinstance(code, int) and code:
            raise typer.Exit(int(code))

    app = typer.Typer(add_completion=False)
    epilog = OTHER_CODES if is_all else f"All options, and all that is said of them: {HELP_ALL}."
    app.command(name, cls=_Command, short_help=summary, epilog=epilog)(run)
    command: Any = typer.main.get_command(app)
    declared = getattr(function, "options", None)
    if declared is not None:
        show_options(command, declared, is_all=is_all, has_recipe=has_recipe)
    return command


def _group(prefix: str) -> Any:
    cls = type("_SubGroup", (_LazyGroup,), {"prefix": prefix})
    app = typer.Typer(cls=cls, name=prefix, add_completion=False, no_args_is_help=True)
    app.callback(help=GROUPS[prefix])(_nothing)
    return typer.main.get_command(app)


def _show_version(value: bool) -> None:
    if value:
        from medclip.version import __version__

        typer.echo(f"medclip {__version__}")
        raise typer.Exit()


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and stop.")
    ] = False,
) -> None:
    """Score medical images in words, offline. For research; not a medical device."""


def root() -> Any:
    """Build the command tree; it holds names and help only."""
    app = typer.Typer(cls=_LazyGroup, name="medclip", add_completion=False, no_args_is_help=True)
    app.callback()(_root)
    return typer.main.get_command(app)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: one of `medclip.exit_codes.ExitCode`."""
    try:
        with _private_files(), _terminated_as_interrupted(), _notices(), _rare_collections(), checked_output():
            return _run(argv)
    except PipeClosed:
        return ExitCode.PIPE_CLOSED
    except MedclipError as refused:
        print_line(error_line(refused))
        return exit_code(refused.reason)
    except KeyboardInterrupt:
        print_line("medclip: interrupted.")
        return ExitCode.INTERRUPTED
    except Exception as error:
        if os.environ.get("MEDCLIP_DEBUG"):
            print_line(traceback.format_exc())
        if _is_lack_of_memory(error):
            print_line("medclip: the memory does not suffice. Close other programs, or name fewer --workers.")
            return ExitCode.INCOMPLETE
        print_line(f"medclip: {_bug_line(error)}")
        return ExitCode.FAULT


def _run(argv: Sequence[str] | None) -> int:
    try:
        root().main(args=None if argv is None else list(argv), prog_name="medclip")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return ExitCode.COMPLETE


@contextmanager
def _private_files() -> Iterator[None]:
    """Keep from others what libraries write by themselves, too, such as the ledger and logs: see `files.output`."""
    before = os.umask(file_modes().umask)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Look for garbage in circles after 10,000 new objects in the place of Python's 700.

    What a command imports is kept to its end: of the 4.8 s of processor time of a score of one file, looking through it
    took 0.48 s, and takes 0.20 s so. Memory is the same (514 MB).
    """
    before = gc.get_threshold()
    gc.set_threshold(10_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end a command as Ctrl-C does.

    A scheduler or a machine that shuts down sends the one, a terminal or a connection that closes the other; under
    `nohup` that is ignored, and stays so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    numbers = (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM))  # Windows has no SIGHUP
    before = {number: signal.getsignal(number) for number in numbers}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


@contextmanager
def _notices() -> Iterator[None]:
    """Write what the library logs, such as that a key was made, on standard error."""
    handler = logging.Handler()
    handler.emit = lambda record: print_line(f"medclip: {record.getMessage()}")
    logger = logging.getLogger("medclip")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def _is_lack_of_memory(error: Exception) -> bool:
    """Whether it is Python's own error, or torch's for a GPU; by name, since torch need not be loaded."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


def error_line(error: MedclipError) -> str:
    """Write a refusal in one line; a file's name in it cannot drive the terminal."""
    where = f"{printable(error.where)}: " if error.where else ""
    return f"medclip: {where}{error.message} {error.hint}".rstrip()


def _bug_line(error: Exception) -> str:
    """Return an error's kind and its place in our code; never its own text, which may quote a header or a path."""
    frames = traceback.extract_tb(error.__traceback__)
    package = str(Path(__file__).resolve().parents[1]) + os.sep
    ours = [f for f in frames if f.filename.startswith(package)] or frames
    place = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "?"
    return (
        f"this is a bug in medclip ({type(error).__name__} at {place}). "
        "Set MEDCLIP_DEBUG=1 and run again for the full trace; read it before you share it, it may name your files."
    )


if __name__ == "__main__":
    raise SystemExit(main())

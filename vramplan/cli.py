"""The command line: parse, dispatch, turn an error into a line and an exit code. Nothing else.

`main` imports the module of the command that was chosen and no other, because most of a short
command's time is imports. `build_parser` configures all commands, for whoever writes the docs.
"""

from __future__ import annotations

import argparse
import gc
import os
import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType

from vramplan import __version__
from vramplan.errors import UsageError, VramplanError, did_you_mean
from vramplan.quick_typing import TYPE_CHECKING, NoReturn, TextIO, cast

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

#: every command and its line in ``vramplan --help``, in the order they are shown
COMMANDS: Mapping[str, str] = MappingProxyType(
    {
        "check": "does it fit? a verdict per pipeline and card",
        "estimate": "why? the budget line by line, phase by phase",
        "plan": "what to change? every way to make it fit, and the largest",
        "fit": "what runs on this card? known models and those here, ranked",
        "init": "where to begin? vramplan.yaml, from what is here",
        "run": "does my program fit? PyTorch on a card that is not there",
        "profile": "what does it take in truth? the real components on this GPU",
        "compare": "how far off? estimate, torch, NVML and nvidia-smi side by side",
        "sweep": "verdicts on a grid of pipelines, settings and cards",
        "report": "verdict and budget as one self-contained HTML page",
        "serve": "what if? the page in a browser, on this machine",
        "watch": "the cards live, who holds what, and the peaks",
        "catalog": "the pipelines: list, show, validate, add",
        "cards": "the cards: what NVML says they have",
        "record": "make or refresh a tape (needs the extra gpu)",
        "cache": "what is remembered between runs: show it, clear it",
        "doctor": "what is installed, what is missing, what is stale",
        "mcp": "the same questions for assistants (needs the extra mcp)",
        "completion": "what lets bash, zsh and fish complete words",
    }
)

_DESCRIPTION = "Will this pipeline fit this card, and if not, what is the cheapest change?"

_EPILOG = """\
examples:
  two pipelines on two classes of card:
    `vramplan check sd15 llava:7b --card 8gb --card 12gb`
  where the bytes go:
    `vramplan estimate sd15 --image 768x768`
  options, examples and exit codes of a command:
    `vramplan help COMMAND`
"""

INTERRUPTED = 130
_HELP = "help"
#: llama.cpp's option, which argparse would take for ``-o t``: a file called ``t`` would be written
_SWALLOWED = "-ot"

_DIGITS = frozenset("0123456789")

#: what argparse takes for an option without a value, of which its readers are not told
_NO_VALUE = r"--?[a-z][a-z-]*=--"


class _Negative:
    """What argparse asks whether a word is a negative number, without a pattern to compile."""

    @staticmethod
    def match(word: str) -> bool:
        """Return whether a word is a value that begins with a minus: ``-1GiB``."""
        return word[:1] == "-" and word[1:2] in _DIGITS


class _Parser(argparse.ArgumentParser):
    """A parser that raises what argparse would print, and takes ``-1GiB`` for a value."""

    def __init__(self, **options: object) -> None:
        super().__init__(
            formatter_class=_Formatter,
            allow_abbrev=False,  # an abbreviation that works today is ambiguous tomorrow
            **options,  # type: ignore[arg-type]  # argparse hands over what add_parser was given
        )
        self._negative_number_matcher = _Negative()  # type: ignore[assignment]  # `match` is called

    def error(self, message: str) -> NoReturn:
        hint = f"{self.prog} --help"
        word = re.match(r"argument ACTION: invalid choice: '([\w.:-]{1,60})' \((.*)\)", message)
        if word:  # vramplan catalog llava
            near = did_you_mean(word[1], re.findall(r"'(\w+)'", word[2]), likeness=0.7)
            hint = near or f"did you mean '{self.prog} list {word[1]}'?"
        raise UsageError(message.removeprefix("argument "), hint=hint)

    def _print_message(self, message: str, file: SupportsWrite[str] | None = None) -> None:
        """Write help and version as any result is: argparse passes over what cannot be written."""
        from vramplan.commands.streams import tell, write_stdout

        if file in (None, sys.stdout):
            write_stdout(message)
        else:
            tell(message)


class _Formatter(argparse.HelpFormatter):
    """Keeps the lines of examples, wraps the rest; code is marked for the docs, plain here."""

    def __init__(self, prog: str) -> None:
        # argparse makes one for every option that is added, and asks `shutil` for the width each
        # time: what compresses files would be loaded for it
        super().__init__(prog, width=_columns() - 2)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if "\n" not in text:
            return super()._fill_text(text, width, indent)
        return "".join(indent + line for line in text.splitlines(keepends=True))

    def add_argument(self, action: argparse.Action) -> None:
        super().add_argument(action)
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001  # as in `_options`
            # Python 3.11 forgets that commands are indented once more, and breaks the longest
            longest = max(map(len, action.choices)) + 2 * self._indent_increment
            self._action_max_length = max(self._action_max_length, longest)

    def format_help(self) -> str:
        return super().format_help().replace("`", "")


def _columns() -> int:
    """Return the terminal's width, as `shutil.get_terminal_size` finds it."""
    told = os.environ.get("COLUMNS", "")[:9]
    if told.isdecimal() and int(told) > 0:
        return int(told)
    try:
        return os.get_terminal_size(sys.__stdout__.fileno()).columns or 80  # type: ignore[union-attr]  # an AttributeError where there is none
    except (AttributeError, ValueError, OSError):
        return 80


# argparse looks for a translation of each of its words, though it has none, and loads what knows
# about languages for it; ours are English, and so are the messages that are taken apart here
argparse._ = lambda text: text  # type: ignore[attr-defined]  # which is told to nobody


def build_parser(configured: Collection[str] = tuple(COMMANDS)) -> argparse.ArgumentParser:
    """Return the parser with the commands of `configured`; with none of them, all by name alone."""
    parser = _Parser(prog="vramplan", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument(
        "--version",
        action="version",
        version=f"vramplan {__version__}",
        help="show the version and exit",
    )
    parser.add_argument("--debug", action="store_true", help="show a traceback with an error")
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", title="commands", prog="vramplan", parser_class=_Parser
    )
    for name, summary in COMMANDS.items():
        if name in configured:
            _load(name, "configure")(commands.add_parser(name, help=summary))
        elif not configured:
            commands.add_parser(name, help=summary)
    return parser


def _load(command: str, function: str) -> Callable[..., int | None]:
    module = __import__(f"vramplan.commands.{command}", fromlist=[function])
    return cast("Callable[..., int | None]", getattr(module, function))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that `arguments` (default: this process's) name and return its exit code."""
    from vramplan.commands.streams import open_streams

    words = sys.argv[1:] if arguments is None else list(arguments)
    own = words[: words.index("--")] if "--" in words else words  # the rest is another program's
    open_streams()
    try:
        code = _run(words)
    except SystemExit as stop:  # argparse has printed help or the version
        code = stop.code if isinstance(stop.code, int) else 0
    except KeyboardInterrupt:
        _complain("interrupted", None)
        code = INTERRUPTED
    except VramplanError as problem:
        code = _fail(problem, str(problem), problem.hint, own)
        code = problem.exit_code
    except OSError as problem:  # the machine says no: a name too long, a disk that is full
        code = _fail(problem, _refusal(problem), None, own)
    except Exception as problem:
        said = f"internal error: {type(problem).__name__}: {problem}"
        code = _fail(problem, said, "run it again with --debug and report what it prints", own)
    refused = _close(sys.stdout)
    if refused is not None:
        _complain(f"error: standard output cannot be written: {refused}", None)
        code = VramplanError.exit_code
    _close(sys.stderr)
    if arguments is None:  # the process ends: what there is need not be looked through once more
        gc.freeze()
    return code


def start() -> NoReturn:
    """Be the process: run the command that its arguments name, and end it with the exit code.

    Taking down hundreds of modules one by one takes longer than some answers, and what is written
    is written: where nothing has asked to be called at the end, and no other thread is there, the
    process is over at once.
    """
    code = main()
    if sys.modules.keys().isdisjoint(_AT_THE_END):
        os._exit(code)
    sys.exit(code)


#: what something would be called by at the end of a process
_AT_THE_END = ("atexit", "threading")


def _run(words: list[str]) -> int:
    if words[:1] == [_HELP]:  # vramplan help plan
        words = [*[word for word in words[1:] if word != _HELP], "--help"]
    name = next((word for word in words if not word.startswith("-")), None)
    if name is not None and name not in COMMANDS:
        hint = did_you_mean(name, COMMANDS) or "commands: " + ", ".join(COMMANDS)
        raise UsageError(f"unknown command {name!r}", hint=hint)
    own = words[: words.index("--")] if "--" in words else words
    nothing = next(
        (word for word in own if word.endswith("=--") and re.fullmatch(_NO_VALUE, word)), None
    )
    if nothing is not None:
        raise UsageError(f"{nothing.removesuffix('=--')}: expected one argument")
    parser = build_parser([name] if name else [])
    swallowed = next((word for word in own if word.partition("=")[0] == _SWALLOWED), None)
    if swallowed is not None:
        raise _unknown_argument([swallowed], parser, name)
    known, unknown = parser.parse_known_args(words)
    known.words = words  # the report names the command that made it
    known.build_parser = build_parser  # completion knows every command
    if unknown:
        raise _unknown_argument(unknown, parser, name)
    if name is None:
        parser.print_help(sys.stderr)
        return UsageError.exit_code
    if hasattr(known, "formats"):  # what could not be written is not computed first
        from vramplan.commands.output import check_output

        check_output(known)
    from vramplan.commands.output import remark
    from vramplan.hearing import remarked_to

    run = _load(name, "run")
    with remarked_to(remark):
        if not hasattr(known, "no_cache"):  # and then no model is asked about
            return cast("int", run(known))
        from vramplan.ask.cache import remembering
        from vramplan.recording_switch import switched_off

        wanted = getattr(known, "no_record", False)
        with remembering(remark, is_wanted=not known.no_cache), switched_off(is_wanted=wanted):
            return cast("int", run(known))


def _unknown_argument(
    unknown: Sequence[str], parser: argparse.ArgumentParser, name: str | None
) -> UsageError:
    """Return the error for arguments nobody takes, with the nearest option where there is one."""
    from vramplan.commands.meant_options import meant_option, not_modelled

    first = next((word for word in unknown if word.startswith("-")), unknown[0])
    option = first.partition("=")[0]
    if not option.startswith("-"):
        hint = f"vramplan {name or ''} --help".replace("  ", " ")
        return UsageError(f"unknown argument {option!r}", hint=hint)
    known = _options(parser, name)
    meant = meant_option(option, known)
    what = None if meant else not_modelled(option)
    if what is not None:
        return UsageError(
            f"{option!r} is known but not modelled: vramplan does not plan {what}",
            hint="leave it out; what it takes comes on top, and --margin keeps room for it",
        )
    # of two letters every other option is the nearest spelling
    spelt = did_you_mean(option, known) if len(option) > 3 else None
    near = f"did you mean {meant!r}?" if meant else _elsewhere(option) or spelt
    hint = near or f"vramplan {name or ''} --help".replace("  ", " ")
    return UsageError(f"unknown option {option!r}", hint=hint)


def _elsewhere(option: str) -> str | None:
    """Return which commands have an option that the one at hand has not; None where none has."""
    whole = build_parser()
    having = [f"vramplan {name}" for name in COMMANDS if option in _options(whole, name)]
    return f"it is an option of {' and '.join(having)}" if 0 < len(having) < 4 else None


def _options(parser: argparse.ArgumentParser, name: str | None) -> list[str]:
    """Return the options of a command and of the commands below it."""
    found: list[str] = []
    for action in parser._actions:  # noqa: SLF001  # argparse has no public way to list options
        found += [option for option in action.option_strings if option.startswith("-")]
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001  # as above
            for command, below in action.choices.items():
                if name is None or command == name:
                    found += _options(below, None)
    return found


def _fail(problem: Exception, said: str, hint: str | None, words: Sequence[str]) -> int:
    if "--debug" in words:
        import traceback

        traceback.print_exception(problem)
    _complain(f"error: {said}", hint)
    return VramplanError.exit_code


def _complain(said: str, hint: str | None) -> None:
    """Write one line, and one for the hint, to stderr; strangers' text is made harmless."""
    from vramplan.commands.streams import tell
    from vramplan.report.text import clean, for_encoding

    lines = [clean(said)] + ([clean(f"hint: {hint}")] if hint else [])
    tell("".join(f"{for_encoding(line, sys.stderr.encoding)}\n" for line in lines))


def _refusal(problem: OSError) -> str:
    named = problem.filename
    where = f"{os.fsdecode(named)}: " if isinstance(named, str | bytes) else ""
    return f"{where}{problem.strerror or type(problem).__name__}"


def _close(stream: TextIO) -> str | None:
    """Flush what is left, and return why that fails; a reader that has gone away is no error."""
    from vramplan.commands.streams import silence

    try:
        stream.flush()
    except BrokenPipeError:
        silence(stream)
    except (OSError, ValueError) as problem:
        silence(stream)
        return getattr(problem, "strerror", None) or "it is closed"
    return None

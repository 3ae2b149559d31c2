"""``vramplan completion``: a script that lets a shell complete words."""

from __future__ import annotations

import argparse
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator

from vramplan.ask.targets import open_catalog
from vramplan.catalog.cards import class_names
from vramplan.commands import arguments
from vramplan.commands.streams import write_stdout
from vramplan.known_settings import SETTING_HELP
from vramplan.report.shell_script import SHELLS, Kind, Option, Words, render
from vramplan.setting_values import ATTENTIONS, DTYPES, KV_TYPES, OFFLOADS, PLATFORMS, SWITCHES

#: what stands for an option's value in its help -> what is completed there
_KINDS = {
    "CARD": Kind.CARD,
    "CARD | WORD": Kind.CARD,
    "TARGET": Kind.TARGET,
    "TARGET|RUN": Kind.TARGET,
    "TARGET|FOLDER": Kind.TARGET,
    "NAME": Kind.TARGET,
    "FILE": Kind.FILE,
    "DIR": Kind.FILE,
    "FOLDER": Kind.FILE,
}
#: the words that a setting's option takes
_WORDS = {
    "--dtype": DTYPES,
    "--attention": ATTENTIONS,
    "--offload": OFFLOADS,
    "--kv-type": KV_TYPES,
    "--platform": PLATFORMS,
    "--vae-tiling": SWITCHES,
    "--vae-slicing": SWITCHES,
    "--set": tuple(f"{key}=" for key in SETTING_HELP),
}


def configure(parser: ArgumentParser) -> None:
    """Say what ``completion`` takes."""
    arguments.describe(parser, "completion")
    parser.add_argument("shell", choices=SHELLS, help="the shell that is to complete words")
    arguments.add_common(parser)


def run(args: Namespace) -> int:
    """Write the script; return 0."""
    known = open_catalog(args.catalog)
    script = render(
        args.shell,
        list(_commands(args.build_parser())),
        targets=list(known.pipelines),
        cards=["auto", *class_names(known.cards.values()), *known.cards],
    )
    write_stdout(script)
    return 0


def _commands(parser: ArgumentParser, name: str = "") -> Iterator[Words]:
    """Yield the words of a parser and of all commands below it, under their whole names."""
    options: list[Option] = []
    positional: Kind | None = None
    below: list[tuple[str, ArgumentParser, str]] = []
    for action in parser._actions:  # noqa: SLF001  # argparse has no public way to list them
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001  # as above
            said = {one.dest: one.help or "" for one in action._choices_actions}  # noqa: SLF001  # as above
            below = [(word, one, said.get(word, "")) for word, one in action.choices.items()]
        elif action.option_strings:
            options.append(_option(action))
        elif positional is None:
            positional = _kind(action)
    yield Words(
        name=name,
        options=tuple(options),
        positional=positional or Kind.NOTHING,
        choices=_positional_choices(parser),
        below=tuple((word, summary) for word, _, summary in below),
    )
    for word, sub, _ in below:
        yield from _commands(sub, f"{name} {word}".strip())


def _positional_choices(parser: ArgumentParser) -> tuple[str, ...]:
    for action in parser._actions:  # noqa: SLF001  # as above
        is_sub = isinstance(action, argparse._SubParsersAction)  # noqa: SLF001  # as above
        if not action.option_strings and not is_sub and action.choices:
            return tuple(map(str, action.choices))
    return ()


def _option(action: argparse.Action) -> Option:
    words = tuple(map(str, action.choices or ()))
    for name in action.option_strings:
        words = words or _WORDS.get(name, ())
    return Option(
        names=tuple(action.option_strings),
        help=" ".join((action.help or "").split()),
        takes_value=action.nargs != 0,
        kind=_kind(action),
        words=words,
    )


def _kind(action: argparse.Action) -> Kind:
    return _KINDS.get(str(action.metavar), Kind.NOTHING)

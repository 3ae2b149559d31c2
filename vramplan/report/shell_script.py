"""Scripts with which a shell completes commands, options and their words.

zsh takes bash's by its own bashcompinit. Names from the catalogue are quoted: a user's file may
call a pipeline anything.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from enum import Enum

from vramplan.quick_dataclass import dataclass
from vramplan.report.text import clean

SHELLS = ("bash", "zsh", "fish")


class Kind(Enum):
    """What is completed where a value stands."""

    NOTHING = "nothing"
    TARGET = "a pipeline's name, or a file"
    CARD = "a card's name"
    FILE = "a file or a folder"


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """An option: its names, and what its value may be."""

    names: tuple[str, ...]
    help: str
    takes_value: bool
    kind: Kind = Kind.NOTHING
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """A command (``catalog list``; empty for vramplan itself) and what may stand behind it."""

    name: str
    options: tuple[Option, ...]
    positional: Kind
    choices: tuple[str, ...]
    below: tuple[tuple[str, str], ...]  # commands below it, each with its summary


def render(
    shell: str, commands: Sequence[Words], *, targets: Sequence[str], cards: Sequence[str]
) -> str:
    """Return the script for a shell."""
    names = {Kind.TARGET: _plain(targets), Kind.CARD: _plain(cards)}
    if shell == "fish":
        return _fish(commands, names)
    script = _bash(commands, names)
    if shell == "zsh":
        return (
            "#compdef vramplan\n"
            "# zsh completion for vramplan, by zsh's own bashcompinit\n"
            "autoload -U +X bashcompinit && bashcompinit\n" + script
        )
    return script


def _plain(names: Iterable[str]) -> list[str]:
    """Return the names that a shell can be told: one word each, nothing that it would act on."""
    return [name for name in map(clean, names) if name and not set(name) & _SPECIAL]


_SPECIAL = set(" \t\n\\'\"$`!*?[]{}()<>|&;#~…")

# -------------------------------------------------------------------------------------------- bash
_BASH = """\
# bash completion for vramplan
_vramplan_words() {
    case "$1" in
%(words)s
    esac
}

_vramplan_value() {
    case "$1" in
%(values)s
    *) return 1 ;;
    esac
}

_vramplan() {
    local current previous command word place at found
    local -a typed
    if typeset -f _get_comp_words_by_ref >/dev/null; then  # names have colons
        _get_comp_words_by_ref -n : -w typed -i at
    else
        typed=("${COMP_WORDS[@]}") at=$COMP_CWORD
    fi
    current=${typed[at]} previous=${typed[at - 1]} command=
    for ((place = 1; place < at; place++)); do
        word=${typed[place]}
        case "$command $word" in
%(commands)s
        esac
    done
    COMPREPLY=()
    if found=$(_vramplan_value "$command|$previous"); then
        [[ $found == @file ]] && { COMPREPLY=($(compgen -f -- "$current")); return; }
        COMPREPLY=($(compgen -W "$found" -- "$current"))
    else
        found=$(_vramplan_words "$command")
        COMPREPLY=($(compgen -W "${found//@file/}" -- "$current"))
        [[ $found == *@file* && $current != -* ]] && COMPREPLY+=($(compgen -f -- "$current"))
    fi
    if [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *= ]]; then
        compopt -o nospace 2>/dev/null
    fi
    typeset -f __ltrim_colon_completions >/dev/null && __ltrim_colon_completions "$current"
    return 0
}

complete -o filenames -F _vramplan vramplan 2>/dev/null || complete -F _vramplan vramplan
"""


def _bash(commands: Sequence[Words], names: dict[Kind, list[str]]) -> str:
    words, values, known = [], [], []
    for command in commands:
        listed = [name for option in command.options for name in option.names]
        listed += [word for word, _ in command.below]
        listed += [*command.choices, *_of_kind(command.positional, names)]
        words.append(_case(command.name, listed))
        for option in command.options:
            if option.takes_value:
                found = [*option.words, *_value_of_kind(option.kind, names)]
                patterns = "|".join(shlex.quote(f"{command.name}|{one}") for one in option.names)
                values.append(f"    {patterns}) echo {shlex.quote(' '.join(found))} ;;")
        for word, _ in command.below:
            whole = f"{command.name} {word}".strip()
            known.append(
                f"        {shlex.quote(f'{command.name} {word}')}) command={shlex.quote(whole)} ;;"
            )
    return _BASH % {
        "words": "\n".join(words),
        "values": "\n".join(values),
        "commands": "\n".join(known),
    }


def _case(name: str, listed: Sequence[str]) -> str:
    return f"    {shlex.quote(name)}) echo {shlex.quote(' '.join(listed))} ;;"


def _of_kind(kind: Kind, names: dict[Kind, list[str]]) -> list[str]:
    """Return what may stand there: names, and ``@file`` for files."""
    files = ["@file"] if kind in (Kind.TARGET, Kind.FILE) else []
    return [*names.get(kind, []), *files]


def _value_of_kind(kind: Kind, names: dict[Kind, list[str]]) -> list[str]:
    return ["@file"] if kind is Kind.FILE else names.get(kind, [])


# -------------------------------------------------------------------------------------------- fish
def _fish(commands: Sequence[Words], names: dict[Kind, list[str]]) -> str:
    lines = ["# fish completion for vramplan", "complete -c vramplan -f"]
    for command in commands:
        condition = _condition(command)
        for word, summary in command.below:
            lines.append(_complete(condition, "-a", shlex.quote(word), summary))
        for option in command.options:
            lines.append(_fish_option(condition, option, names))
        found = [*command.choices, *names.get(command.positional, [])]
        if found:
            lines.append(_complete(condition, "-a", shlex.quote(" ".join(found)), ""))
        if command.positional in (Kind.TARGET, Kind.FILE):
            lines.append(_complete(condition, "-F", "", ""))
    return "\n".join(lines) + "\n"


def _condition(command: Words) -> str:
    """Return when a command's words are completed: behind it, and before one below it."""
    tests = [f"__fish_seen_subcommand_from {word}" for word in command.name.split()]
    below = " ".join(word for word, _ in command.below)
    if below:
        tests.append(f"not __fish_seen_subcommand_from {below}")
    return "; and ".join(tests)


def _fish_option(condition: str, option: Option, names: dict[Kind, list[str]]) -> str:
    named = " ".join(
        f"-l {one[2:]}" if one.startswith("--") else f"-s {one[1:]}" for one in option.names
    )
    found = [*option.words, *names.get(option.kind, [])]
    value = ""
    if option.takes_value:
        value = "-r -F" if option.kind is Kind.FILE else "-x"
    if found:
        value += f" -a {shlex.quote(' '.join(found))}"
    return _complete(condition, named, value, option.help)


def _complete(condition: str, what: str, value: str, said: str) -> str:
    parts = [
        "complete -c vramplan",
        f"-n {shlex.quote(condition)}" if condition else "",
        what,
        value,
    ]
    parts += [f"-d {shlex.quote(clean(said, 80))}"] if said else []
    return " ".join(part for part in parts if part)

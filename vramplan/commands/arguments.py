"""The arguments that several commands take, each with the same name and meaning everywhere."""

from __future__ import annotations

from argparse import Action
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from vramplan.errors import UsageError
from vramplan.known_settings import SETTING_HELP
from vramplan.quick_typing import TYPE_CHECKING
from vramplan.setting_values import SettingValue
from vramplan.settings import parse_assignment, parse_setting
from vramplan.units import parse_size

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace, _ActionsContainer

#: the settings that have an option of their own, with what stands for their value
SHORT_FORMS = {
    "image": "WxH",
    "batch": "N",
    "frames": "N",
    "dtype": "TYPE",
    "mode": "MODE",
    "steps": "N",
    "attention": "KIND",
    "offload": "KIND",
    "vae_tiling": "on|off",
    "vae_slicing": "on|off",
    "prompt_tokens": "N",
    "new_tokens": "N",
    "context": "N|auto",
    "kv_type": "TYPE",
    "gpu_layers": "N|all|auto",
    "cpu_moe": "N|all",
    "platform": "OS",
}

TARGET_HELP = (
    "a pipeline's name in the catalogue (sd15, qwen3:8b), a YAML file with one, a .gguf file or a "
    "folder with one, a folder or .safetensors file that diffusers or transformers saved, "
    "lmstudio:PUBLISHER/MODEL, ollama:NAME:TAG, hf:ORG/NAME, of files there "
    "hf:ORG/NAME:FILE.safetensors, hf:ORG/NAME:FILE.gguf or hf:ORG/NAME:Q4_K_M; settings of its "
    "own behind it in brackets, in quotes for the shell: 'sd15[offload=model,image=768x768]'"
)
CARD_HELP = (
    "a card: its name (rtx-3060-12gb), a class (8gb), a size (11.6GiB), or auto for this machine's "
    "GPUs with what is free on them; several as one: 2xrtx-3090, rtx-4090+rtx-3060-12gb, auto:all, "
    "rtx-4090+rpc:24gb for one that another machine serves to llama.cpp; repeatable"
)

#: what every command's epilog says about its exit code, besides 0 and 1
COMMON_EXITS = "`2` bad usage, a bad catalogue or an internal error; `130` interrupted."


#: what a FILE is called so that it gets a format
_SUFFIX_OF = {
    "html": ".html",
    "pdf": ".pdf",
    "png": ".png",
    "markdown": ".md",
    "json": ".json",
}


def describe(parser: ArgumentParser, command: str) -> None:
    """Give a command its help's first and last part, which stand in ``help/COMMAND.txt``."""
    text = (Path(__file__).parent / "help" / f"{command}.txt").read_text(encoding="utf-8")
    description, _, epilog = text.partition("---\n")
    parser.description = " ".join(description.split())
    parser.epilog = epilog.replace("{common_exits}", COMMON_EXITS)


def add_common(parser: ArgumentParser) -> None:
    """Add what every command takes."""
    parser.add_argument(
        "--catalog",
        action="append",
        default=[],
        metavar="DIR",
        help="a folder with pipelines/*.yaml and cards/*.yaml of yours; it wins over what ships, "
        "and over the folders in VRAMPLAN_CATALOG; repeatable",
    )
    parser.add_argument(
        "-q", "--quiet", action="store_true", help="show no progress while long work goes on"
    )
    parser.add_argument("--debug", action="store_true", help="show a traceback with an error")


def add_cache(parser: ArgumentParser) -> None:
    """Add ``--no-cache``, and with it that results of earlier runs are taken."""
    parser.add_argument(
        "--no-cache",
        action="store_true",
        help="take no result of an earlier run, and keep none: the same figures, later "
        "(`vramplan cache` shows what is kept)",
    )


def add_recording(parser: ArgumentParser) -> None:
    """Add ``--no-record``."""
    parser.add_argument(
        "--no-record",
        action="store_true",
        help="record no model on the spot where it has no tape for these settings, which takes up "
        "to minutes where torch is installed: its weights are counted, the rest is a wide band "
        "(VRAMPLAN_RECORD=off does so for all commands)",
    )


def add_cards(parser: ArgumentParser, otherwise: str) -> None:
    """Add ``--card``; `otherwise` says what happens without one."""
    parser.add_argument(
        "--card",
        action="append",
        default=[],
        dest="cards",
        metavar="CARD",
        help=f"{CARD_HELP}. Without it: {otherwise}",
    )


def add_projector(parser: ArgumentParser) -> None:
    """Add ``--mmproj``."""
    parser.add_argument(
        "--mmproj",
        metavar="FILE",
        help="the projector (mmproj) of a .gguf model that sees; without it, the one beside the "
        "model is taken",
    )


def add_budget(parser: ArgumentParser, *, margin: int | None = 0) -> None:
    """Add what is taken off a card before anything is judged on it; `margin` stands for none."""
    parser.add_argument(
        "--margin",
        type=partial(_read_size, "--margin"),
        default=margin,
        metavar="SIZE",
        help="keep this much free, such as 512MiB (default: 0); 8GB is 8,000,000,000 bytes, 8GiB "
        "is 8,589,934,592",
    )
    parser.add_argument(
        "--other",
        type=partial(_read_size, "--other"),
        metavar="SIZE",
        help="what other processes hold on the card (default: what NVML says for auto, else 0)",
    )


def add_settings(
    parser: ArgumentParser,
    read: Callable[[str, str], object] = parse_setting,
    read_assignment: Callable[[str], tuple[str, object]] = parse_assignment,
    value_name: str = "VALUE",
) -> None:
    """Add ``--set`` and its short forms; all of them end up in one list, in the order given.

    `read` makes of a key and a text what its value is, `read_assignment` that of a ``key=value``.
    """
    group = parser.add_argument_group(
        "settings",
        "Which settings a pipeline has, and its defaults, `vramplan catalog show NAME` says. "
        "A setting that one of the targets does not have is refused; one for one target alone "
        "stands behind it in brackets, and goes before these.",
    )
    others = ", ".join(key for key in SETTING_HELP if key not in SHORT_FORMS)
    group.add_argument(
        "--set",
        action="append",
        default=[],
        dest="settings",
        type=read_assignment,
        metavar=f"KEY={value_name}",
        help=f"any setting; repeatable. Settings without an option of their own: {others}",
    )
    for key, value in SHORT_FORMS.items():
        group.add_argument(
            f"--{key.replace('_', '-')}",
            action="append",
            dest="settings",
            type=partial(_read_setting, read, key),
            metavar=value if read is parse_setting else value_name,
            help=SETTING_HELP[key],
        )


def _read_size(option: str, text: str) -> int:
    try:
        return parse_size(text)
    except UsageError as problem:
        raise UsageError(f"{option}: {problem}", hint=problem.hint) from problem


def _read_setting(read: Callable[[str, str], object], key: str, text: str) -> tuple[str, object]:
    return key, read(key, text)


class _Format(Action):
    """Takes a format, and no other one beside it."""

    def __call__(
        self,
        _parser: ArgumentParser,
        namespace: Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        """Keep the format, or raise UsageError where another one was asked for."""
        wanted = self.const if self.const is not None else values
        known = getattr(namespace, self.dest, None)
        if known is not None and known != wanted:
            raise UsageError(
                f"{option_string}: {wanted} and {known} are two formats",
                hint="leave one of them out; a second run is quick, for results are kept",
            )
        setattr(namespace, self.dest, wanted)


def add_output(parser: ArgumentParser, formats: Sequence[str], default: str = "table") -> None:
    """Add ``--format``, ``--json`` and ``-o``."""
    parser.add_argument(
        "--format",
        action=_Format,
        choices=formats,
        help=f"how the result is written (default: by the suffix of -o FILE, else {default})",
    )
    parser.add_argument(
        "--json",
        action=_Format,
        nargs=0,
        const="json",
        dest="format",
        help="the same as --format json: one object, sizes are integers of bytes",
    )
    suffixes = [suffix for name, suffix in _SUFFIX_OF.items() if name in formats]
    printed = "; a PDF and a PNG need an installed Chromium, Chrome or Edge"
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help=f"write to FILE instead of stdout; {', '.join(suffixes[:-1])} and {suffixes[-1]} "
        f"choose the format{printed if 'pdf' in formats else ''}",
    )
    add_force(parser)
    parser.set_defaults(formats=tuple(formats), default_format=default)


def add_force(parser: _ActionsContainer) -> None:
    """Add ``--force``."""
    parser.add_argument(
        "--force", action="store_true", help="replace the FILE of -o where there is one already"
    )


def given_settings(args: Namespace) -> dict[str, SettingValue]:
    """Return the settings of the command line; of two for one key the later wins."""
    return dict(args.settings)


def is_page(args: Namespace) -> bool:
    """True where the result would be a page, printed or not, by ``--format`` or ``-o``'s suffix."""
    suffixes = (".html", ".htm", ".pdf", ".png")
    pages = ("html", "pdf", "png")
    return args.format in pages or (args.output or "").lower().endswith(suffixes)

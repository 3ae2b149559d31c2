"""The command-line page says what the parser says."""

from __future__ import annotations

import argparse
import importlib.util

import pytest

from tools.docs import command_line
from tools.docs.page import replace_generated


@pytest.fixture
def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="tool")
    top.add_argument("--debug", action="store_true", help="show a traceback")
    commands = top.add_subparsers()
    check = commands.add_parser("check", aliases=["c"], description="Say what fits.")
    check.add_argument("targets", nargs="*", metavar="TARGET", help="a name_with_signs or <file>")
    check.add_argument("--card", action="append", metavar="CARD", required=True, help="a card")
    check.add_argument("-n", "--batch", type=int, default=1, help="how many (%(default)s)")
    check.add_argument("--format", choices=["table", "json"], help="`table` or 100 %% json")
    check.add_argument("--secret", help=argparse.SUPPRESS)
    commands.add_parser("catalog").add_subparsers().add_parser("list", description="List it.")
    return top


def test_every_argument_of_every_command_is_rendered_once(parser: argparse.ArgumentParser) -> None:
    assert command_line.render(parser) == (
        "## tool check\n"
        "\n"
        "Say what fits.\n"
        "\n"
        "```text\n"
        "tool check [TARGET …] --card CARD [option …]\n"
        "```\n"
        "\n"
        "`TARGET`\n"
        ": a name_with_signs or \\<file\\>\n"
        "\n"
        "`--card CARD`\n"
        ": a card\n"
        "\n"
        "`-n BATCH`, `--batch BATCH`\n"
        ": how many (1)\n"
        "\n"
        "`--format {table,json}`\n"
        ": `table` or 100 % json\n"
        "\n"
        "## tool catalog\n"
        "\n"
        "```text\n"
        "tool catalog COMMAND …\n"
        "```\n"
        "\n"
        "### tool catalog list\n"
        "\n"
        "List it.\n"
        "\n"
        "```text\n"
        "tool catalog list\n"
        "```\n"
        "\n"
        "## Options of every command\n"
        "\n"
        "`--debug`\n"
        ": show a traceback\n"
    )


def test_an_epilog_keeps_its_paragraphs_and_lists() -> None:
    tool = argparse.ArgumentParser(prog="tool", add_help=False)
    sub = tool.add_subparsers().add_parser("do", add_help=False)
    sub.epilog = "examples:\n  all of <it>:\n    `tool do *`\n  more\n\nexit\ncodes: 0\n"
    assert command_line.render(tool).endswith(
        "examples:\n\n- all of \\<it\\>: `tool do *`\n- more\n\nexit codes: 0\n"
    )


def test_rewriting_keeps_what_is_written_by_hand() -> None:
    marker = "% What follows is written by `python -m x`; do not edit it here.\n"
    once = replace_generated(f"# By hand\n\n{marker}\nold\n", "x", "new\n")
    assert once == f"# By hand\n\n{marker}\nnew\n"
    assert replace_generated(once, "x", "new\n") == once
    with pytest.raises(ValueError, match="marker"):
        replace_generated("# By hand\n", "x", "new\n")


has_no_cli = importlib.util.find_spec("vramplan.cli") is None


@pytest.mark.skipif(has_no_cli, reason="vramplan.cli does not exist yet")
def test_page_is_up_to_date() -> None:
    page = command_line.PAGE.read_text(encoding="utf-8")
    fresh = replace_generated(page, command_line.MODULE, command_line.render_commands())
    assert fresh == page, "run: python -m tools.docs.command_line"


@pytest.mark.skipif(has_no_cli, reason="vramplan.cli does not exist yet")
def test_every_command_and_argument_says_what_it_does() -> None:
    from vramplan.cli import build_parser

    for name, command in command_line.subcommands(build_parser()):
        assert command.description, f"vramplan {name} has no description"
        for action in command_line.visible(command):
            assert action.help, f"vramplan {name}: {action.dest} has no help"

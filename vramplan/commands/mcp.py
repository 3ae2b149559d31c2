"""``vramplan mcp``: the same questions for assistants that speak the Model Context Protocol."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from functools import wraps

from vramplan import __version__
from vramplan.commands import arguments
from vramplan.errors import MissingError, VramplanError
from vramplan.extras import install_command
from vramplan.quick_typing import Any

_INSTRUCTIONS = (
    "Will an AI model fit a GPU's memory, and if not, what is the cheapest change? "
    "Sizes are bytes. Ask check first, then plan; catalog and cards have the names."
)


def configure(parser: ArgumentParser) -> None:
    """Say what ``mcp`` takes."""
    arguments.describe(parser, "mcp")
    parser.add_argument("--debug", action="store_true", help="show a traceback with an error")


def run(_args: Namespace) -> int:
    """Answer on stdin and stdout until the other side hangs up; return 0."""
    make_server().run("stdio")
    return 0


def make_server() -> Any:
    """Return the server with its tools. Raises MissingError without the extra."""
    try:
        from mcp.server import MCPServer
        from mcp.server.mcpserver.exceptions import ToolError
    except ImportError:
        hint = install_command("mcp")
        raise MissingError("answering assistants needs mcp 2 or later", hint=hint) from None
    from vramplan.commands.questions import QUESTIONS

    def answering(question: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
        @wraps(question)
        def answer(*args: Any, **named: Any) -> dict[str, Any]:
            try:
                return question(*args, **named)
            except VramplanError as problem:
                hint = f" ({problem.hint})" if problem.hint else ""
                raise ToolError(f"{problem}{hint}") from None

        return answer

    server = MCPServer(
        "vramplan",
        version=__version__,
        instructions=_INSTRUCTIONS,
        log_level="ERROR",
    )
    for name, question in QUESTIONS.items():
        server.tool(name, description=" ".join((question.__doc__ or "").split()))(
            answering(question)
        )
    return server

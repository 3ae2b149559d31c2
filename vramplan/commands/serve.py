"""``vramplan serve``: the what-if page, for a browser."""

from __future__ import annotations

import os
import re
import sys
from argparse import ArgumentParser, Namespace
from contextlib import suppress

from vramplan.commands import arguments
from vramplan.commands.output import note, remark
from vramplan.commands.streams import write_stdout
from vramplan.errors import UsageError
from vramplan.interrupts import ending_tidily


def configure(parser: ArgumentParser) -> None:
    """Say what ``serve`` takes."""
    arguments.describe(parser, "serve")
    parser.usage = "%(prog)s [TARGET ...] [--port N] [--host ADDRESS] [option ...]"
    parser.add_argument(
        "targets",
        nargs="*",
        metavar="TARGET",
        help="more models for the page, beside the catalogue's: a .gguf file, a folder, "
        "ollama:NAME:TAG, hf:ORG/NAME",
    )
    parser.add_argument(
        "--port",
        type=_read_port,
        metavar="N",
        help="the port to listen on, 0 for any that is free (default: 8760, or the next free one)",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="the address to listen on: 127.0.0.1 (the default) for browsers on this machine "
        "alone, 0.0.0.0 for everybody who reaches it",
    )
    parser.add_argument("--open", action="store_true", help="open the page in the browser, too")
    arguments.add_cache(parser)
    arguments.add_common(parser)


def run(args: Namespace) -> int:
    """Serve until Ctrl-C; return 0."""
    from vramplan.page.answers import Page
    from vramplan.page.offered import open_models
    from vramplan.page.server import is_loopback, open_server

    page = Page(
        open_models(args.targets, remark, catalog=args.catalog), is_local=is_loopback(args.host)
    )
    with open_server(args.host, args.port, page, note) as server:
        write_stdout(f"{server.url}\n")
        if not args.quiet:
            note("the page is there until Ctrl-C")
            if not server.is_loopback:
                note(f"everybody who reaches this machine may ask it, on port {server.port}")
        if args.open:
            _open(server.url)
        with ending_tidily(), suppress(KeyboardInterrupt):
            server.serve_forever()
    return 0


def _open(url: str) -> None:
    import webbrowser

    # a browser of the terminal would take it over, and runs no scripts
    has_screen = sys.platform != "linux" or {"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ)
    if not has_screen or not webbrowser.open(url):
        note("no browser was found: open the address in one")


def _read_port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) > 65_535:
        raise UsageError(f"--port {text[:40]!r} is no port", hint="a number from 1024 to 65535")
    return int(text)

"""Time what the page's server takes from a knob that is turned to the new verdict.

    python benchmarks/page.py [--knobs 200] [--seed 2026]

Each turn is one knob of one of the catalogue's models, drawn by the seed among the values that the
page offers, and asked over loopback as a browser asks: verdicts on an 8 GB and a 12 GB card with
their budget, run and tables. The median that counts on a quiet machine is the clock's; processor
time beside it does not depend on neighbours. What a browser takes to draw it comes on top.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import statistics
import threading
import time
from urllib.parse import urlencode

from vramplan.ask.targets import silent
from vramplan.page.answers import Page
from vramplan.page.offered import open_models
from vramplan.page.server import LOOPBACK, open_server

#: settings by which runs grow until no tape holds: what is refused is no verdict
_REFUSED = 422


def main() -> None:
    """Print the medians, and the slowest turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--knobs", type=int, default=200, help="turns (default: 200)")
    parser.add_argument("--seed", type=int, default=2026)
    args = parser.parse_args()
    page = Page(open_models([], silent), is_local=False)
    with open_server(LOOPBACK, 0, page, print) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        connection = http.client.HTTPConnection(LOOPBACK, server.port)
        draw = random.Random(args.seed)  # noqa: S311  # a drawn setting is no secret
        turns = _turn(connection, args.knobs, draw)
        server.shutdown()
    walls, processor = [wall for wall, *_ in turns], [used for _, used, _ in turns]
    print(f"{len(turns)} turns")
    print(f"clock:     median {statistics.median(walls):.0f} ms, {_ninth(walls):.0f} ms at 90 %")
    print(
        f"processor: median {statistics.median(processor):.0f} ms, "
        f"{_ninth(processor):.0f} ms at 90 %"
    )
    for wall, used, link in sorted(turns, reverse=True)[:5]:
        print(f"  {wall:6.0f} ms, {used:5.0f} of the processor: {link}")


def _ninth(times: list[float]) -> float:
    return sorted(times)[len(times) * 9 // 10]


def _turn(
    connection: http.client.HTTPConnection, count: int, draw: random.Random
) -> list[tuple[float, float, str]]:
    """Return the clock's and the processor's milliseconds of each turn, and its link."""
    groups = _ask(connection, "start", "")[1]["models"]
    names = [model["name"] for group in groups for model in group["models"]]
    found: list[tuple[float, float, str]] = []
    while len(found) < count:
        asked = {"target": draw.choice(names)}
        cards = [("card", "8gb"), ("card", "12gb")]
        status, first = _ask(connection, "verdicts", urlencode([*asked.items(), *cards]))
        knobs = [knob for knob in first.get("knobs", []) if knob["stops"] or knob["words"]]
        if status == _REFUSED or not knobs:
            continue
        knob = draw.choice(knobs)
        asked[knob["key"]] = draw.choice([*knob["stops"], *knob["words"]])
        link = urlencode([*asked.items(), *cards])
        began, used = time.perf_counter(), time.process_time()
        status, _ = _ask(connection, "verdicts", link)
        wall, used = time.perf_counter() - began, time.process_time() - used
        if status != _REFUSED:
            found.append((1e3 * wall, 1e3 * used, link))
    return found


def _ask(connection: http.client.HTTPConnection, question: str, link: str) -> tuple[int, dict]:
    connection.request("GET", f"/answer/{question}?{link}")
    reply = connection.getresponse()
    return reply.status, json.loads(reply.read())


if __name__ == "__main__":
    main()

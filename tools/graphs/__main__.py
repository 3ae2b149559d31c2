"""Makes the graph tapes that ship, or holds them against the engine.

    python -m tools.graphs [NAME…]          make those of the names, else of all architectures
    python -m tools.graphs --check [NAME…]  make them anew, write nothing, say whether they hold
    python -m tools.graphs --count [NAME…]  of how many architectures are all buffers the engine's,
                                            without it and with it, of models made elsewhere

It needs the extra `engine`. Every tape is made of models with drawn numbers and held against
others, of other numbers, depths and settings (`holding`); one that is not the engine's graph node
for node, or not its buffers to the byte, is not written, and why stands on stderr.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.metadata
import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from tools.architectures import NAMES
from tools.graphs.asking import Asking
from tools.graphs.counting import count, count_asked
from tools.graphs.domain import known_keys
from tools.graphs.holding import RejectedError, hold
from tools.graphs.making import PROBLEMS, Maker
from vramplan.engines.ggml.graph.families import FAMILIES
from vramplan.engines.ggml.graph.tape import Tape, Tapes
from vramplan.engines.ggml.graph.tape_file import tell_tapes

OUT = Path(__file__).parents[2] / "profiles" / "graphs"
_PACKAGE = "xllamacpp"


def main(words: Sequence[str] | None = None) -> int:
    """Make the tapes, or check them; return 1 where one that was asked for does not hold."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("--count", action="store_true", help="make nothing, count what is exact")
    parser.add_argument("--most", type=int, default=8, metavar="N", help="sets of tensors")
    asked = parser.parse_args(words)
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        sys.stderr.write(f"error: {_PACKAGE} is not installed\n")
        return 3
    folder = Path(spec.submodule_search_locations[0])
    keys = known_keys(next(folder.glob("*.so")))
    names = asked.names or sorted(NAMES, key=lambda name: (name in FAMILIES, name))
    if asked.count:
        return _count(names)
    is_well = True
    with Asking() as engine, Asking(has_card=True) as card:
        for name in names:
            made = make(name, keys, engine, card, asked.most)
            if made is None:
                is_well = False
            elif not asked.check:
                write(made)
    return 0 if is_well else 1


def _count(names: Sequence[str]) -> int:
    """Print how each architecture's buffers are known without the engine and with it; return 0."""
    exact = asked = 0
    with Asking(has_card=True) as card:
        for name in names:
            said = count(name, card)
            # what is known without the engine is not asked for
            more = said if said == "exact" else count_asked(name, card)
            exact += said == "exact"
            asked += more == "exact"
            print(f"{name}: {said}" + f"; with the engine: {more}" * (said != "exact"), flush=True)
    print(f"{exact} of {len(names)} exact without the engine, {asked} with it")
    return 0


def make(name: str, keys: Sequence[str], engine: Asking, card: Asking, most: int) -> Tapes | None:
    """Return an architecture's tapes, those that hold; None where there are none."""
    maker = Maker(engine, name, keys)
    tapes: list[Tape] = []
    build = f"b{importlib.metadata.version(_PACKAGE).rpartition('.')[2]}"

    def tell(one: Sequence[Tape]) -> Tapes:
        return Tapes(
            architecture=name,
            build=build,
            names=tuple(maker.table.names),
            sizes=tuple(maker.table.sizes),
            tapes=tuple(one),
        )

    for style, tensors in maker.styles():
        for number, kept in enumerate(maker.sets(style, tensors)):
            if number >= (1 if name in FAMILIES else most):
                break  # of a family that is known by heart the tape is a test alone
            try:
                tape = maker.tape(style, kept)
                held = hold(tell([tape]), tape, maker, style, kept, engine, card, name)
            except (*PROBLEMS, RejectedError) as problem:
                _say(f"{name}: {len(kept)} of {len(tensors)} tensors: {problem}")
                continue
            tapes.append(tape)
            _say(f"{name}: {len(kept)} of {len(tensors)} tensors hold at {held} settings")
    if not tapes:
        _say(f"{name}: no tape: {maker.problem}")
        return None
    return tell(tapes)


def write(tapes: Tapes) -> None:
    """Write an architecture's tapes where they ship from."""
    text = json.dumps(tell_tapes(tapes), separators=(",", ":"))
    OUT.mkdir(exist_ok=True)
    path = OUT / f"{tapes.architecture}.json.gz"
    path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))


def _say(text: str) -> None:
    sys.stderr.write(f"{text[:500]}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())

"""Hold the compiled core against the Python that is its reference, at random settings.

    python -m tools.core_check --seed 1 --count 1000 [--from 0]

Both replay each question that `tools.random_settings` draws, shipped results left aside; every
figure of the two estimates must be the same. Exit code 1 where one is not, 3 without a core.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tools.random_settings import Question, draw
from vramplan.ask.targets import make_jobs, override
from vramplan.catalog import Catalog, load_catalog
from vramplan.engines.door import engine_of
from vramplan.engines.torch import rehearsals, shipped_results
from vramplan.engines.torch.tape import native
from vramplan.engines.torch.tape.rehearsal import Rehearsal
from vramplan.errors import VramplanError
from vramplan.model import Estimate


def answer(question: Question, catalog: Catalog) -> Estimate | str:
    """Return the estimate that a question gets now, or the error in a line."""
    (job,) = make_jobs([question.pipeline], catalog, {})
    try:
        asked = override(job, question.settings)
        card = catalog.card(question.card).candidates[0]
        return engine_of(job.pipeline).estimate(asked, card)
    except VramplanError as problem:
        return str(problem)


def differs(question: Question, catalog: Catalog) -> bool:
    """Return whether the core says something else than the reference."""
    with _replaying():
        fast = answer(question, catalog)
    with _replaying(), _without_core():
        return answer(question, catalog) != fast


@contextmanager
def _replaying() -> Iterator[None]:
    """Forget what was replayed, and leave what ships aside."""
    name, shipped_results.FILE = shipped_results.FILE, "none.json"
    shipped_results.forget()
    rehearsals.forget()
    try:
        yield
    finally:
        shipped_results.FILE = name
        shipped_results.forget()
        rehearsals.forget()


@contextmanager
def _without_core() -> Iterator[None]:
    """Let the reference answer, each run of it on its own: nothing is taken over from another."""
    find, native.find_core = native.find_core, lambda: (None, "left out")
    like = Rehearsal.like
    Rehearsal.like = lambda *_: None  # type: ignore[method-assign]  # for as long as this lasts
    try:
        yield
    finally:
        native.find_core = find
        Rehearsal.like = like  # type: ignore[method-assign]  # what it was


def main() -> int:
    """Compare, and say where the two differ."""
    parser = argparse.ArgumentParser(prog="python -m tools.core_check", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--from", type=int, default=0, dest="first")
    args = parser.parse_args()
    core, words = native.find_core()
    if core is None:
        print(f"no core: it {words}", file=sys.stderr)
        return 3
    catalog = load_catalog()
    questions = (draw(args.seed, number, catalog) for number in range(args.first, args.count))
    wrong = [question for question in questions if differs(question, catalog)]
    print("\n".join(map(str, wrong)) or f"{args.count - args.first} alike")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())

"""A worker of `runner.pool`: ``python -m vramplan.runner.pool_worker``, with pipes for streams.

What libraries print goes to stderr. It ends when its stdin does, in the middle of a task too, so
that nothing outlives a parent that was killed.
"""

from __future__ import annotations

import gc
import os
import pickle
import queue
import sys
import threading
from typing import Any

from vramplan.errors import VramplanError

#: what is made is needed to the end: looked through less often than by default
_GARBAGE = 50_000


def main() -> None:
    """Make the function that the first message tells of, and call it for each that follows."""
    gc.set_threshold(_GARBAGE)
    words = os.fdopen(os.dup(sys.stdin.fileno()), "rb")
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    heard: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def listen() -> None:
        try:
            while True:
                heard.put(pickle.load(words))  # noqa: S301  # from our own parent
        except (EOFError, OSError):
            os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    try:
        work = heard.get()()
        while True:
            pickle.dump((True, work(heard.get())), out)
            out.flush()
    except VramplanError as problem:
        pickle.dump((False, problem), out)
        out.flush()


if __name__ == "__main__":
    main()

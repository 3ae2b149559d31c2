"""Writes the replay results that ship beside the tapes, `profiles/tapes/results.json`.

    python -m tools.results            replay what ships and write it anew: some minutes
    python -m tools.results --check    exit 1 where it is not what the tapes say

What they are for is said where they are read: `vramplan.engines.torch.shipped_results`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from vramplan.catalog.pipelines import TORCH_RUNTIMES, load_pipeline_file
from vramplan.catalog.search import catalog_files
from vramplan.catalog.shipped import profiles_dir
from vramplan.engines.torch.estimate import settled
from vramplan.engines.torch.open import open_entry
from vramplan.engines.torch.replayed import Replayed, conditions_at, replay_run, result_key
from vramplan.engines.torch.result_json import to_json
from vramplan.engines.torch.shipped_results import CAPABILITIES, FILE
from vramplan.engines.torch.tape.format import read_tape
from vramplan.engines.torch.tape_files import look_for_tape
from vramplan.errors import VramplanError
from vramplan.known_results import shipped_text


def make_results(profiles: Path, progress: Callable[[str], None]) -> Iterator[tuple[str, Replayed]]:
    """Yield the key and the result of all that ships; `progress` is told what is replayed.

    Raises VramplanError for a tape that does not replay.
    """
    for entry in map(load_pipeline_file, catalog_files(profiles)[0]):
        if entry.runtime not in TORCH_RUNTIMES:
            continue
        opened = open_entry(entry, (profiles,))
        pipeline = settled(opened, opened.defaults)
        path = look_for_tape(pipeline) if pipeline.tape else None
        if path is None or path.parent != profiles / "tapes":
            continue
        tape, settings = read_tape(path), pipeline.defaults
        seen: set[str] = set()
        for capability in CAPABILITIES:
            if settled(opened, opened.defaults, capability).counted is not None:
                continue  # a kernel that was not recorded
            key = result_key(path, pipeline, settings, capability)
            if key not in seen:
                seen.add(key)
                progress(f"replaying {pipeline.name} on {capability}")
                conditions = conditions_at(pipeline, settings, capability, tape)
                yield key, replay_run(tape, conditions, capability)


def results_text(profiles: Path, progress: Callable[[str], None]) -> str:
    """Return what the file must say: the same text for the same tapes, a result a line."""
    return shipped_text([(key, to_json(one)) for key, one in make_results(profiles, progress)])


def main(arguments: Sequence[str]) -> int:
    """Write the shipped results, or with ``--check`` say whether they are as they should be."""
    profiles = profiles_dir()
    path = profiles / "tapes" / FILE
    try:
        text = results_text(profiles, lambda line: print(line, file=sys.stderr, flush=True))
    except VramplanError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return problem.exit_code
    if "--check" in arguments:
        is_fresh = path.is_file() and path.read_text(encoding="utf-8") == text
        print("fresh" if is_fresh else "stale: run python -m tools.results")
        return 0 if is_fresh else 1
    path.write_text(text, encoding="utf-8", newline="\n")
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

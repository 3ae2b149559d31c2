"""Where a run stops: one whose weights are too much stops in its load, and is not gone through."""

from __future__ import annotations

import pytest

from vramplan.catalog import load_catalog
from vramplan.engines import door
from vramplan.engines.torch.first_stop import find_refusal, stop_in_load
from vramplan.engines.torch.rehearsals import rehearse_once
from vramplan.engines.torch.replayed import conditions_at
from vramplan.engines.torch.tape_files import find_tape, open_tape
from vramplan.settings import resolve_settings

CATALOG = load_catalog()


@pytest.mark.parametrize("expandable", [False, True])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("sd15", {}),
        ("sd15", {"offload": "model"}),
        ("sd15", {"safety_checker": "off"}),
        ("sdxl", {"dtype": "fp32"}),
        ("llava-1.5-7b-hf", {"new_tokens": 2, "device_map": "cuda"}),
        ("vit-mae-base", {"mode": "train"}),
    ],
)
def test_a_stop_in_load_is_the_whole_runs(name, settings, expandable) -> None:
    pipeline = door.open_entry(CATALOG.pipeline(name), CATALOG.folders)
    chosen = resolve_settings(pipeline, {**pipeline.defaults, **settings})
    tape = open_tape(find_tape(pipeline))
    conditions = conditions_at(pipeline, chosen, "8.6", tape)
    run = rehearse_once(tape, conditions, expandable_segments=expandable)
    weights = sum(
        weights.total_bytes(conditions.element_bytes) for weights in tape.components.values()
    )
    found = []
    for percent in (-1, 0, 1, 10, 40, 70, 95, 99, 100, 101, 150):
        limit = weights * percent // 100
        stop = stop_in_load(tape, conditions, limit, expandable_segments=expandable)
        assert stop in (None, find_refusal(run, limit)), percent
        found.append(stop)
    assert found[-1] is None
    assert (found[5] is None) == (settings.get("offload") == "model"), "of 70 % of the weights"

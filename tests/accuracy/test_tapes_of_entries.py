"""What tapes of the catalogue's entries say, held to what must be so whatever the entry."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from vramplan.ask.targets import make_jobs, open_catalog
from vramplan.engines.torch.estimate import settled
from vramplan.engines.torch.job_tape import tape_at
from vramplan.engines.torch.pipeline import of_torch
from vramplan.engines.torch.rehearsals import rehearse_once
from vramplan.engines.torch.replayed import conditions_at, on_card
from vramplan.engines.torch.tape_files import find_tape, open_tape
from vramplan.errors import OutsideError
from vramplan.model import SettingValue

CATALOG = open_catalog()
TAPES = sorted(
    {
        path.name.split(".json")[0]
        for folder in CATALOG.folders
        for path in Path(folder, "tapes").glob("*.json.gz")
    }
    & CATALOG.pipelines.keys()
)


def peak(name: str, card: str, changed: dict[str, SettingValue]) -> int | None:
    """Return what is allocated at the peak, in bytes; None where the tape does not hold."""
    (job,) = make_jobs([name], CATALOG, changed)
    on = CATALOG.card(card).candidates[0]
    pipeline = settled(of_torch(job.pipeline), job.settings, on.compute_capability)
    if pipeline.counted is not None:
        return None
    settings = on_card(job.settings, on)
    tape = tape_at(pipeline, settings, find_tape(pipeline))
    try:
        conditions = conditions_at(pipeline, settings, on.compute_capability, tape)
        return rehearse_once(tape, conditions, expandable_segments=False).trace.allocated_peak_bytes
    except OutsideError:
        return None


@pytest.mark.parametrize("name", TAPES)
def test_a_larger_batch_never_needs_less_on_any_architecture(name: str) -> None:
    batch_bounds = CATALOG.pipeline(name).constraints.get("batch")
    most = (batch_bounds and batch_bounds.maximum) or 5
    # a few tokens tell it as well as many, each of which is walked
    few = {"new_tokens": 16} if "new_tokens" in CATALOG.pipeline(name).defaults else {}
    for card in ("rtx-3090", "h100", "t4"):
        found = [
            peak(name, card, {"batch": batch, **few}) for batch in (1, 2, 3, 5) if batch <= most
        ]
        known = [one for one in found if one is not None]
        assert known == sorted(known), (card, found)


def test_a_tape_that_lacks_code_for_some_settings_says_so() -> None:
    """Each word is known, and not with the other: never an error of a tape in a user's face."""
    path = next(
        path
        for folder in CATALOG.folders
        for path in Path(folder, "tapes").glob("flux1-vae.json.gz")
    )
    tape = open_tape(path)
    assert tape.known_facts["kernel"]
    numbers = {"batch": 2, "width": 512, "height": 512}
    facts = {"dtype": "bf16", "kernel": "cudnn", "mode": "both"}
    assert tape.lacks(facts, numbers) is None
    routines = {
        name: tuple(one for one in variants if "cudnn" not in one.when.get("kernel", ()))
        for name, variants in tape.routines.items()
    }
    less = replace(tape, routines={**tape.routines, "main": routines["main"]})
    assert less.lacks(facts, numbers) == "main"
    assert less.lacks({**facts, "kernel": "math"}, numbers) is None


@pytest.mark.parametrize("name", ["llama-3.1-8b", "llama-3.2-3b", "qwen2.5-7b", "qwen3-8b"])
def test_a_language_models_peak_is_its_weights_and_its_cache_by_hand(name: str) -> None:
    """Behind a short prompt nothing else is large: keys and values of every token, in bf16."""
    entry = CATALOG.pipeline(name)
    (component,) = entry.components()
    config, batch, tokens = component.config, 4, 64 + 400
    width = config["hidden_size"] // config["num_attention_heads"]  # type: ignore[operator]  # whole numbers
    heads = config["num_key_value_heads"] * config.get("head_dim", width)  # type: ignore[operator]  # the same
    cache = 2 * config["num_hidden_layers"] * heads * batch * tokens
    by_hand = 2 * ((component.parameters or 0) + cache)
    found = peak(name, "rtx-3090", {"batch": batch, "prompt_tokens": 64, "new_tokens": 400})
    assert found is not None
    assert by_hand <= found <= by_hand * 1.02

"""The engine's answers that docs/accuracy.md shows: ours beside them are what we say today."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("gguf")

from tools import engine_matrix as matrix  # after what it needs
from tools.model_files import sparse_module  # as above

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def witness() -> dict:
    import json

    return json.loads((ROOT / "docs" / "engine_witness.json").read_text())


def test_every_family_and_setting_was_asked(witness) -> None:
    asked = {(one["family"], one["ubatch"], one["flash_attention"], one["kv_type"])
             for one in witness["cases"]}  # fmt: skip
    wanted = {(name, *settings[1:]) for name in sparse_module("sparse_gguf").families()
              for settings in matrix.ALL}  # fmt: skip
    assert asked == wanted
    assert len(witness["cases"]) == len(sparse_module("sparse_gguf").families()) * len(matrix.ALL)


def test_ours_are_what_we_say_today(witness, tmp_path) -> None:
    models = sparse_module("sparse_gguf")
    paths = {}
    for case in witness["cases"]:
        name = case["family"]
        if name not in paths:
            paths[name] = models.write(tmp_path / f"{name}.gguf", models.families()[name])
        settings = tuple(case[key] for key in ("context", "ubatch", "flash_attention", "kv_type"))
        assert matrix.ours(paths[name], settings) == case["ours"], (name, settings)


def test_the_figures_that_are_asked_for_are_reached(witness) -> None:
    mib = 1 << 20
    for case in witness["cases"]:
        engine, ours = case["engine"], case["ours"]
        assert bool(engine) == bool(ours), case
        if not engine:
            continue
        for name in engine.keys() - {"compute"}:
            assert ours.get(name, 0) == pytest.approx(engine[name], abs=0.1 * mib), case
        assert -0.01 <= ours["compute"] / engine["compute"] - 1 <= 0.02, case

"""Every family that is called known: weights, caches and states are where the engine has them.

The files are made by the engine itself (`engine_made`); compute is held within its band.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from vramplan.engine_buffer import in_our_words
from vramplan.engines.ggml.coverage import KNOWN
from vramplan.engines.ggml.figures import counted
from vramplan.engines.ggml.layer_fit import as_asked
from vramplan.engines.ggml.load_plan import read_run
from vramplan.engines.ggml.open import open_model
from vramplan.engines.ggml.witness.answer import RefusedError, ask_engine
from vramplan.engines.ggml.witness.pretended_card import PretendedCard
from vramplan.model import LineKind, Origin, buffer_bytes
from vramplan.settings import resolve_settings

pytest.importorskip("xllamacpp")
pytest.importorskip("gguf")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the pretended card is for Linux")

_PATH = Path(__file__).parents[1] / "engine_made.py"
_SPEC = importlib.util.spec_from_file_location("engine_made", _PATH)
engine_made = sys.modules.setdefault("engine_made", importlib.util.module_from_spec(_SPEC))
_SPEC.loader.exec_module(engine_made)

MIB, GIB = 1 << 20, 1 << 30
#: the engine prints hundredths of a MiB, of up to three buffers
ROUNDING = 0.02 * MIB
CARD = PretendedCard(name="pretended", total_bytes=400 * GIB, free_bytes=390 * GIB)

FEW = ("bert", "deepseek32", "internlm2", "kimi-linear", "laguna", "plamo3", "rwkv7", "gpt2")


def hold(folder: Path, name: str) -> None:
    for variant in range(engine_made.VARIANTS):
        for path in engine_made.make(folder, name, variant) or ():
            try:
                hold_at(path, "all")
            except RefusedError:
                continue
            hold_at(path, 1)
            hold_at(path, 3)
            return
    pytest.fail(f"the engine takes no model of {name}")


def hold_at(path: Path, layers: object) -> None:
    pipeline = open_model(str(path), None)
    wanted = {"context": 8192, "parallel": 1, "gpu_layers": layers, "engine": "b11549"}
    chosen = resolve_settings(pipeline, {**pipeline.defaults, **wanted, "flash_attention": "on"})
    told = in_our_words(ask_engine(path, chosen, card=CARD).buffers)
    ours = counted(as_asked(read_run(pipeline, chosen, "8.6")))
    for kind, figure in (
        (LineKind.WEIGHTS, ours.weights),
        (LineKind.KV_CACHE, ours.cache),
        (LineKind.RECURRENT_STATE, ours.states),
    ):
        assert figure.origin is Origin.EXACT
        theirs = buffer_bytes(told, kind)
        assert theirs == pytest.approx(figure.band.expected_bytes, abs=ROUNDING), kind
    compute = buffer_bytes(told, LineKind.COMPUTE_BUFFER)
    if ours.compute.origin is Origin.ASSUMED:
        band = ours.compute.band
        assert band.low_bytes - ROUNDING <= compute <= band.high_bytes + ROUNDING


@pytest.mark.parametrize("name", FEW)
def test_the_engine_holds_what_is_called_known(tmp_path, name) -> None:
    hold(tmp_path, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(KNOWN))
def test_over_every_family_that_is_called_known(tmp_path, name) -> None:
    hold(tmp_path, name)

"""Every family that is called known: weights, caches and states are where the engine has them.

The files are made by the engine itself (`engine_made`). Where a graph is known, compute is equal on
both sides; elsewhere it is within its band.
"""

from __future__ import annotations

import importlib.util
import platform
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from tools import family_tensors
from vramplan.engine_buffer import in_our_words
from vramplan.engines.ggml.coverage import KNOWN
from vramplan.engines.ggml.family_tensors import READ
from vramplan.engines.ggml.figures import counted
from vramplan.engines.ggml.graph.families import FAMILIES
from vramplan.engines.ggml.layer_fit import as_asked
from vramplan.engines.ggml.load_plan import read_run
from vramplan.engines.ggml.open import open_model
from vramplan.engines.ggml.witness.answer import RefusedError, ask_engine
from vramplan.engines.ggml.witness.pretended_card import PretendedCard
from vramplan.errors import SourceError
from vramplan.model import LineKind, Origin, buffer_bytes
from vramplan.settings import resolve_settings
from vramplan.sources.gguf import read_gguf

pytest.importorskip("xllamacpp")
gguf = pytest.importorskip("gguf")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the pretended card is for Linux")

_PATH = Path(__file__).parents[1] / "engine_made.py"
_SPEC = importlib.util.spec_from_file_location("engine_made", _PATH)
engine_made = sys.modules.setdefault("engine_made", importlib.util.module_from_spec(_SPEC))
_SPEC.loader.exec_module(engine_made)

MIB, GIB = 1 << 20, 1 << 30
#: the engine prints hundredths of a MiB, of up to three buffers
ROUNDING = 0.02 * MIB
CARD = PretendedCard(name="pretended", total_bytes=400 * GIB, free_bytes=390 * GIB)

F32, F16, Q8 = (
    gguf.GGMLQuantizationType.F32,
    gguf.GGMLQuantizationType.F16,
    gguf.GGMLQuantizationType.Q8_0,
)
#: layers on the card
PLACED = ({"gpu_layers": 1}, {"gpu_layers": 3})
#: what splits a graph otherwise: layers, batches (few tokens are not worth a copy), sequences
SPLIT = (
    {"gpu_layers": 0},
    {"gpu_layers": 1},
    {"gpu_layers": 2, "ubatch": 128},
    {"gpu_layers": 3, "ubatch": 16},
    {"gpu_layers": 3, "parallel": 3},
    {"gpu_layers": 4, "flash_attention": "off"},
)

FEW = ("bert", "deepseek32", "internlm2", "kimi-linear", "laguna", "plamo3", "rwkv7", "gpt2")


def hold(folder: Path, name: str, kind: object, settings: Iterable[dict[str, object]]) -> None:
    """Hold the first model of an architecture that the engine takes, and its two files."""
    for variant in range(engine_made.VARIANTS):
        taken = 0
        for path in (engine_made.make(folder, name, variant, kind) or ())[:-1]:
            try:
                hold_at(path, gpu_layers="all")
            except RefusedError:
                continue
            for one in settings:
                hold_at(path, **one)
            taken += 1
        if taken:
            return
    pytest.fail(f"the engine takes no model of {name}")


def hold_at(path: Path, **settings: object) -> None:
    pipeline = open_model(str(path), None)
    wanted = {"context": 8192, "parallel": 1, "engine": "b11549", "flash_attention": "on"}
    chosen = resolve_settings(pipeline, {**pipeline.defaults, **wanted, **settings})
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
    band = ours.compute.band
    if ours.compute.origin is Origin.ASSUMED:
        assert band.low_bytes - ROUNDING <= compute <= band.high_bytes + ROUNDING
        return
    assert compute == pytest.approx(band.expected_bytes, abs=ROUNDING)
    host = buffer_bytes(told, LineKind.COMPUTE_BUFFER, on_host=True)
    assert host == pytest.approx(ours.host_compute_bytes, abs=ROUNDING)


@pytest.mark.parametrize("name", FEW)
def test_the_engine_holds_what_is_called_known(tmp_path, name) -> None:
    hold(tmp_path, name, F32, PLACED)


@pytest.mark.parametrize("kind", [F32, F16])
@pytest.mark.parametrize("name", ["llama", "deepseek2", "phi3", "gptneox", "glm4", "falcon-h1"])
def test_graphs_of_keys_alone_are_the_engines(tmp_path, name, kind) -> None:
    """What their files have and other known ones do not: factors, fused experts, sections."""
    hold(tmp_path, name, kind, SPLIT)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(KNOWN))
def test_over_every_family_that_is_called_known(tmp_path, name) -> None:
    hold(tmp_path, name, F32, PLACED)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [F32, F16, Q8])
@pytest.mark.parametrize("name", FAMILIES)
def test_over_every_family_whose_graph_is_known(tmp_path, name, kind) -> None:
    hold(tmp_path, name, kind, SPLIT)


#: tensors that only some families have
ELSEWHERE = ("attn_sinks", "ssm_in", "time_mix_w1", "position_embd", "ffn_gate_up_exps")


def hold_names(folder: Path, name: str) -> None:
    """Ask with one more tensor, of other families: what is refused here is refused there."""
    for variant in range(engine_made.VARIANTS):
        for path in (engine_made.make(folder, name, variant) or ())[:-1]:
            try:
                ask_engine(path, {"gpu_layers": 0}, card=CARD)
            except RefusedError:
                continue
            tensors = [(one.name, one.shape) for one in read_gguf(path).tensors]
            for stem in ELSEWHERE:
                is_outside = stem == "position_embd"
                if stem in READ[name][is_outside].split():
                    continue
                more = (f"{'' if is_outside else 'blk.0.'}{stem}.weight", (64,))
                engine_made._write(path, name, variant, [*tensors, more])
                with pytest.raises(RefusedError, match="wrong number of tensors"):
                    ask_engine(path, {"gpu_layers": 0}, card=CARD)
                with pytest.raises(SourceError, match="wrong number of tensors"):
                    open_model(str(path), None)
            return
    pytest.fail(f"the engine takes no model of {name}")


@pytest.mark.parametrize("name", ["llama", "bert", "rwkv7"])
def test_tensors_of_other_families_are_refused(tmp_path, name) -> None:
    hold_names(tmp_path, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(KNOWN))
def test_over_every_familys_names(tmp_path, name) -> None:
    hold_names(tmp_path, name)


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="reads x86-64 code")
@pytest.mark.skipif(not shutil.which("objdump"), reason="needs binutils")
def test_names_are_those_in_the_engines_code() -> None:
    assert family_tensors.table() == family_tensors.OUT.read_text(encoding="utf-8")

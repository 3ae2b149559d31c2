"""The engine's own graph, recorded, through our scheduler and allocator: the engine's own bytes.

On a CPU to the byte, which `record` asks of each; on the pretended card to the hundredths of a MiB
that the engine prints.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from vramplan.engine_buffer import in_our_words
from vramplan.engines.ggml import graph_tape
from vramplan.engines.ggml.graph import recording
from vramplan.engines.ggml.graph.recording import RecordingError, record
from vramplan.engines.ggml.layer_fit import as_asked
from vramplan.engines.ggml.load_plan import read_run
from vramplan.engines.ggml.open import open_model
from vramplan.engines.ggml.own_graph import recorded_sizes
from vramplan.engines.ggml.witness.answer import ask_engine
from vramplan.engines.ggml.witness.dry_run import request_of
from vramplan.engines.ggml.witness.pretended_card import PretendedCard
from vramplan.engines.ggml.witnessed import settle
from vramplan.model import LineKind, Origin, buffer_bytes
from vramplan.settings import resolve_settings

pytest.importorskip("xllamacpp")
pytest.importorskip("gguf")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the pretended card is for Linux")


def beside(name: str):
    path = Path(__file__).parents[1] / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    if name not in sys.modules:
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


sparse, engine_made = beside("sparse_gguf"), beside("engine_made")
FAMILIES = sparse.families()
MIB, GIB = 1 << 20, 1 << 30
#: the engine prints hundredths of a MiB, of up to two buffers
ROUNDING = 0.011 * MIB
CARD = PretendedCard(name="pretended", total_bytes=400 * GIB, free_bytes=390 * GIB)
FEW = ("llama", "gemma3", "deepseek2", "cohere2", "falcon-h1", "mixtral")
#: families whose graph nobody wrote by hand
UNWRITTEN = (
    "arcee",
    "gemma4",
    "internlm2",
    "phi2",
    "starcoder",
    "falcon",
    "rwkv7",
    "bert",
    "plamo3",
)


def run_of(path: Path, **wanted: object):
    pipeline = open_model(str(path), None)
    wanted = {"context": 2048, "engine": "b11549", "flash_attention": "on", "parallel": 1, **wanted}
    chosen = resolve_settings(pipeline, {**pipeline.defaults, **wanted})
    return read_run(pipeline, chosen, "8.6"), chosen


def hold(path: Path, **wanted: object) -> None:
    run, chosen = run_of(path, **wanted)
    gpu, host = recorded_sizes(as_asked(run))
    told = in_our_words(ask_engine(path, chosen, card=CARD).buffers)
    kind = LineKind.COMPUTE_BUFFER
    assert gpu == pytest.approx(buffer_bytes(told, kind), abs=ROUNDING)
    assert host == pytest.approx(buffer_bytes(told, kind, on_host=True), abs=ROUNDING)


@pytest.mark.parametrize("kv_type", ["f16", "q8_0"])
@pytest.mark.parametrize("layers", [0, 1, "all"])
@pytest.mark.parametrize("name", FEW)
def test_a_recorded_graph_takes_what_the_engine_takes(tmp_path, name, layers, kv_type) -> None:
    path = sparse.write(tmp_path / "model.gguf", FAMILIES[name])
    hold(path, gpu_layers=layers, kv_type=kv_type)


@pytest.mark.parametrize("name", UNWRITTEN)
def test_so_does_one_that_nobody_wrote(tmp_path, name) -> None:
    path = made(tmp_path, name)
    for layers in (0, 1, "all"):
        hold(path, gpu_layers=layers)


@pytest.mark.parametrize("parallel", [1, 4])
def test_several_sequences_and_no_flash_attention_are_recorded(tmp_path, parallel) -> None:
    path = sparse.write(tmp_path / "model.gguf", FAMILIES["gemma3"])
    hold(path, parallel=parallel, gpu_layers=1, flash_attention="off", context=8192)


def made(folder: Path, name: str) -> Path:
    for variant in range(engine_made.VARIANTS):
        for path in engine_made.make(folder, name, variant) or ():
            try:
                recorded_sizes(as_asked(run_of(path)[0]))
            except RecordingError:
                continue
            return path
    pytest.fail(f"the engine takes no model of {name}")


@pytest.mark.usefixtures("engine")
def test_an_unknown_familys_estimate_is_the_recorded_graphs(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(graph_tape, "tapes_of", lambda _: None)  # as of a newer name
    run, _ = run_of(made(tmp_path, "phi2"))
    fit, figures = settle(run, None)
    gpu, host = recorded_sizes(fit)
    band = figures.compute.band
    assert (band.low_bytes, band.expected_bytes, band.high_bytes) == (gpu, gpu, gpu)
    assert figures.host_compute_bytes == host
    assert figures.compute.origin is Origin.WITNESSED
    assert "recorded" in figures.compute.source
    assert "xllamacpp" in figures.compute.source


# ---------------------------------------------------------------- what goes wrong
def request(path: Path) -> dict[str, object]:
    return json.loads(request_of(path, {"context": 512}, CARD, "xllamacpp"))


def test_a_file_that_the_engine_refuses_is_one_line_with_the_build(tmp_path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF" + bytes(64))
    with pytest.raises(RecordingError, match=r"^xllamacpp 20[0-9.]+ tells no graph: .+"):
        record(request(path), tokens=512, outputs=1)


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import os; os.abort()", r"crashed \(signal 6\)"),
        ("while True: pass", "was not done within 1 seconds"),
        ("while True: print('x' * 4096)", "said too much"),
        ("print('{}')", "no graph that can be read"),
    ],
)
def test_a_child_that_crashes_hangs_or_babbles_is_a_result(
    tmp_path, monkeypatch, program, said
) -> None:
    (tmp_path / "child_of_test.py").write_text(program)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(recording, "_CHILD", "child_of_test")
    monkeypatch.setattr(recording, "_SECONDS", 1)
    with pytest.raises(RecordingError, match=said) as caught:
        record(request(tmp_path), tokens=512, outputs=1)
    assert "xllamacpp" in str(caught.value)


def test_a_graph_of_which_our_allocator_makes_other_bytes_is_not_taken(
    tmp_path, monkeypatch
) -> None:
    path = sparse.write(tmp_path / "model.gguf", FAMILIES["llama"])
    monkeypatch.setattr(recording, "allocate", lambda *_: [1])
    with pytest.raises(RecordingError, match="of which our allocator makes 1"):
        record(request(path), tokens=512, outputs=1)

"""llama.cpp's real server with an adapter, and with a draft model: what it reserves, and when.

Plans for files beside a model rest on it: an adapter has the graph reserved anew before the first
batch, and a draft model guesses without reserving anything more. Everything is computed on the CPU.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from vramplan.engine_buffer import in_our_words
from vramplan.engines.ggml.build_rules import WITNESS_BUILD
from vramplan.engines.ggml.witness.answer import ask_engine
from vramplan.engines.ggml.witness.dry_run import WITH_ADAPTERS
from vramplan.model import LineKind, buffer_bytes
from vramplan.units import MIB

pytest.importorskip("xllamacpp")
pytest.importorskip("gguf")
pytestmark = pytest.mark.skipif(
    sys.platform != "linux"
    or importlib.metadata.version("xllamacpp").rpartition(".")[2] != str(WITNESS_BUILD),
    reason=f"b{WITNESS_BUILD} on Linux is the witness",
)

_PATH = Path(__file__).parents[1] / "sparse_gguf.py"
_SPEC = importlib.util.spec_from_file_location("sparse_gguf", _PATH)
sparse = sys.modules.setdefault("sparse_gguf", importlib.util.module_from_spec(_SPEC))
_SPEC.loader.exec_module(sparse)

LAYERS, WIDE, INNER, RANK = 2, 256, 512, 8

SERVER = """
import ctypes, os, sys
import xllamacpp as engine
model, adapter, draft = sys.argv[1:]
params = engine.CommonParams()
params.model.path = model
params.n_ctx, params.n_parallel, params.verbosity = 512, 1, 4
params.fit_params, params.no_extra_bufts, params.warmup = False, True, bool(adapter)
# its threads wait for each other by spinning: more of them than free cores take minutes
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
if adapter:
    params.lora_adapters = [engine.CommonAdapterLoraInfo(adapter, 1.0)]
if draft:
    params.speculative.draft.mparams.path = draft
    params.speculative.draft.cpuparams.n_threads = 1
    params.speculative.draft.cpuparams_batch.n_threads = 1
    kind = engine.common_speculative_type.COMMON_SPECULATIVE_TYPE_DRAFT_SIMPLE
    params.speculative.types = [kind]
server = engine.Server(params)
# all words are as likely, also that which ends a text: the first of them is taken, to the end
wanted = {"n_predict": 24, "temperature": 0.0, "ignore_eos": True}
server.handle_completions({"prompt": [1, 5, 6, 7, 8, 5, 6, 7, 8], **wanted})
library = ctypes.CDLL(engine.xllamacpp.__file__)
log = library._Z15common_log_mainv
log.restype = ctypes.c_void_p
library._Z16common_log_pauseP10common_log(ctypes.c_void_p(log()))  # its thread writes to the end
os._exit(0)
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = sparse.language_model(
        layers=LAYERS, embedding=WIDE, heads=4, kv_heads=4, head=64, feed_forward=INNER
    )
    return sparse.write(tmp_path_factory.mktemp("beside") / "m.gguf", sparse.dense_layers(found))


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = sparse.Model("llama", words=0)
    found.general = {"general.type": "adapter", "adapter.type": "lora"}
    for layer in range(LAYERS):
        for name, inputs, outputs in (("ffn_up", WIDE, INNER), ("ffn_down", INNER, WIDE)):
            found.add(f"blk.{layer}.{name}.weight.lora_a", inputs, RANK, kind=sparse.F16)
            found.add(f"blk.{layer}.{name}.weight.lora_b", RANK, outputs, kind=sparse.F16)
    return sparse.write(tmp_path_factory.mktemp("beside") / "a.gguf", found)


def reserved(model: Path, adapter: Path | str = "", draft: Path | str = "") -> tuple[str, list]:
    """Return what the server printed, and the MiB that it reserved for graphs, in order."""
    done = subprocess.run(
        [sys.executable, "-c", SERVER, str(model), str(adapter), str(draft)],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=60,
        check=False,
    )
    said = done.stderr + done.stdout
    assert done.returncode == 0, said[-2000:]
    return said, [float(one) for one in re.findall(r"CPU compute buffer size = +([\d.]+)", said)]


def test_an_adapter_has_the_graph_reserved_anew_before_the_first_batch(
    model: Path, adapter: Path
) -> None:
    _, (at_load, at_work) = reserved(model, adapter=adapter)
    assert at_work > at_load
    asked = {"context": 512, "parallel": 1, "lora": str(adapter)}
    for words, size in ((asked, at_load), ({**asked, WITH_ADAPTERS: "on"}, at_work)):
        held = in_our_words(ask_engine(model, words).buffers)
        assert buffer_bytes(held, LineKind.COMPUTE_BUFFER, on_host=True) == round(size * MIB)


def test_a_draft_model_guesses_without_reserving_more(model: Path) -> None:
    said, sizes = reserved(model, draft=model)
    assert len(sizes) == 2  # the model's and the draft's, as they were loaded
    guesses = re.search(r"draft-simple: .*#gen tokens = +(\d+)", said)
    assert guesses is not None
    assert int(guesses[1]) > 0

"""The real llama.cpp planning for a card that is not there: partial offload has a witness too.

The engine is xllamacpp's CPU build with `engines.ggml.witness.pretended_card` plugged in, over
sparse files.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import itertools
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from vramplan.engine_buffer import in_our_words
from vramplan.engines.ggml.compute_buffer import compute_buffers
from vramplan.engines.ggml.layer_fit import as_asked, fit_run
from vramplan.engines.ggml.load_plan import read_run
from vramplan.engines.ggml.open import open_model
from vramplan.engines.ggml.witness.answer import EngineAnswer, ask_engine
from vramplan.engines.ggml.witness.pretended_card import PretendedCard
from vramplan.errors import MeasurementError
from vramplan.model import LineKind, buffer_bytes
from vramplan.settings import resolve_settings

pytest.importorskip("xllamacpp")
gguf = pytest.importorskip("gguf")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the pretended card is for Linux")

_PATH = Path(__file__).parents[1] / "sparse_gguf.py"
_SPEC = importlib.util.spec_from_file_location("sparse_gguf", _PATH)
sparse = sys.modules.setdefault("sparse_gguf", importlib.util.module_from_spec(_SPEC))
_SPEC.loader.exec_module(sparse)

FAMILIES = sparse.families()
MIB, GIB = 1 << 20, 1 << 30
#: the engine prints hundredths of a MiB
ROUNDING = 0.006 * MIB
CARD = PretendedCard(name="pretended", total_bytes=8 * GIB, free_bytes=7800 * MIB)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {name: sparse.write(folder / f"{name}.gguf", model) for name, model in FAMILIES.items()}


def held(told: EngineAnswer, kind: LineKind, *, on_host: bool = False) -> int:
    """Return what the engine printed of a kind, on the card or in host memory."""
    return buffer_bytes(in_our_words(told.buffers), kind, on_host=on_host)


def settings_of(path: Path, **wanted: object) -> tuple[object, dict[str, object]]:
    pipeline = open_model(str(path), None)
    wanted = {"context": 2048, "engine": "b11549", **wanted}
    return pipeline, resolve_settings(pipeline, {**pipeline.defaults, **wanted})


@pytest.mark.parametrize("layers", [0, 1, "all"])
@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma3", "mixtral"])
def test_weights_and_caches_go_where_we_say(files, name, layers) -> None:
    pipeline, chosen = settings_of(files[name], gpu_layers=layers, flash_attention="on")
    run = read_run(pipeline, chosen, "8.6")
    placement = as_asked(run).placement
    told = ask_engine(files[name], chosen, card=CARD)
    assert told.layers == (placement.on_gpu, run.model.total_layers)
    assert held(told, LineKind.WEIGHTS) == pytest.approx(placement.gpu_bytes, abs=0.1 * MIB)
    cache = run.batch.cache_of_last(placement.blocks_on_gpu)
    assert held(told, LineKind.KV_CACHE) == pytest.approx(cache, abs=2 * ROUNDING)


#: flash attention and type of the cache
ATTENTION = (("on", "f16"), ("on", "q8_0"), ("off", "f16"))
FEW = ("llama", "qwen3moe", "gemma3", "phi3", "deepseek2", "falcon-h1")


def hold(path: Path, layers: object, flash: str, kv_type: str, *, copies: bool = True) -> None:
    """Compare the compute buffers on both sides with ours: what is asked for is 2 %."""
    wanted = {"gpu_layers": layers, "flash_attention": flash, "kv_type": kv_type}
    pipeline, chosen = settings_of(path, **wanted)
    run = read_run(pipeline, chosen, "8.6")
    rules = replace(run.rules, offloads_host_weights=copies)
    ours = compute_buffers(run.model, run.batch, as_asked(run).placement, rules)
    told = ask_engine(path, {**chosen, "op_offload": copies}, card=CARD)
    gpu, host = (
        held(told, LineKind.COMPUTE_BUFFER),
        held(told, LineKind.COMPUTE_BUFFER, on_host=True),
    )
    assert ours.gpu.expected_bytes == pytest.approx(gpu, abs=4 * ROUNDING)
    assert ours.host_bytes == pytest.approx(host, abs=4 * ROUNDING)


@pytest.mark.parametrize(("flash", "kv_type"), ATTENTION)
@pytest.mark.parametrize("layers", [0, 1, "all"])
@pytest.mark.parametrize("name", FEW)
def test_compute_buffers_on_both_sides_are_what_we_say(files, name, layers, flash, kv_type) -> None:
    hold(files[name], layers, flash, kv_type)


@pytest.mark.slow
@pytest.mark.parametrize(("flash", "kv_type"), ATTENTION)
@pytest.mark.parametrize("layers", [0, 1, 2, "all"])
@pytest.mark.parametrize("name", FAMILIES)
def test_over_every_family(files, name, layers, flash, kv_type) -> None:
    if kv_type == "q8_0" and name == "gptneox":
        pytest.skip("heads of 80 are no multiple of the type's block of 32")
    hold(files[name], layers, flash, kv_type)


@pytest.mark.parametrize("layers", [0, 1, "all"])
@pytest.mark.parametrize("kv_type", ["f16", "q8_0"])
def test_attention_without_a_kernel_is_computed_on_the_host(tmp_path, layers, kv_type) -> None:
    model = sparse.language_model("llama", embedding=1024, heads=32, head=32, feed_forward=2816)
    path = sparse.write(tmp_path / "small-heads.gguf", sparse.dense_layers(model))
    hold(path, layers, "on", kv_type)


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_a_copy_of_a_quantised_cache_is_padded_as_what_attention_reads(files, layers) -> None:
    hold(files["cohere2"], layers, "on", "q8_0")


#: how many requests, over one cache or their own, and whether windows hold the whole context
SHARING = (
    {"parallel": "auto"},
    {"parallel": 3, "kv_unified": "on"},
    {"parallel": 3, "kv_unified": "off"},
)
WHOLE_WINDOW = {"parallel": 2, "kv_unified": "on", "swa_full": "on"}
SHARED = (
    *itertools.product(("llama", "gemma3", "gpt-oss", "falcon-h1", "deepseek2"), SHARING),
    *itertools.product(("gemma3", "gpt-oss"), (WHOLE_WINDOW,)),
)


@pytest.mark.parametrize(("name", "caches"), SHARED)
@pytest.mark.parametrize("layers", [1, "all"])
def test_shared_caches_are_what_we_say(files, name, layers, caches) -> None:
    wanted = {"context": 8192, "gpu_layers": layers, "flash_attention": "on", **caches}
    pipeline, chosen = settings_of(files[name], **wanted)
    run = read_run(pipeline, chosen, "8.6")
    placement = as_asked(run).placement
    ours = compute_buffers(run.model, run.batch, placement, run.rules)
    told = ask_engine(files[name], chosen, card=CARD)
    cache = run.batch.cache_of_last(placement.blocks_on_gpu)
    states = run.batch.states_of_last(placement.blocks_on_gpu)
    assert held(told, LineKind.KV_CACHE) == pytest.approx(cache, abs=2 * ROUNDING)
    assert held(told, LineKind.RECURRENT_STATE) == pytest.approx(states, abs=ROUNDING)
    gpu, host = (
        held(told, LineKind.COMPUTE_BUFFER),
        held(told, LineKind.COMPUTE_BUFFER, on_host=True),
    )
    assert ours.gpu.expected_bytes == pytest.approx(gpu, abs=4 * ROUNDING)
    assert ours.host_bytes == pytest.approx(host, abs=4 * ROUNDING)


@pytest.mark.parametrize("layers", [0, 1])
@pytest.mark.parametrize("name", ["llama", "mixtral"])
def test_host_layers_stay_on_the_host_where_nothing_is_copied(files, name, layers) -> None:
    hold(files[name], layers, "on", "f16", copies=False)


def test_a_card_that_is_too_small_is_out_of_memory(files) -> None:
    small = PretendedCard(name="small", total_bytes=GIB, free_bytes=200 * MIB)
    with pytest.raises(MeasurementError, match="cudaMalloc failed: out of memory"):
        ask_engine(files["llama"], {"gpu_layers": "all"}, card=small)


def test_the_engine_fits_fewer_layers_on_a_smaller_card(files) -> None:
    def layers_with(free_mib: int) -> int:
        card = PretendedCard(name="fit", total_bytes=8 * GIB, free_bytes=free_mib * MIB)
        return ask_engine(files["gemma2"], {"gpu_layers": "auto"}, card=card).layers[0]

    assert layers_with(7800) == 5
    assert 0 < layers_with(1500) < 5


@pytest.fixture(scope="module")
def mixture(tmp_path_factory) -> Path:
    """Twelve layers of Qwen3 30B-A3B: a layer's experts take 324 MiB."""
    model = sparse.language_model(
        "qwen3moe", layers=12, embedding=2048, feed_forward=6144, kv_heads=4
    )
    model.meta |= {
        "expert_count": 128,
        "expert_used_count": 8,
        "expert_feed_forward_length": 768,
    }
    sparse.dense_layers(model, "qk norm", "experts")
    return sparse.write(tmp_path_factory.mktemp("mixture") / "moe.gguf", model)


@pytest.mark.parametrize("experts", [1, 5, "all"])
@pytest.mark.parametrize("ubatch", [512, 1024])
def test_experts_on_the_cpu_are_the_engines_to_the_byte(mixture, experts, ubatch) -> None:
    pipeline, chosen = settings_of(
        mixture, gpu_layers="all", cpu_moe=experts, ubatch=ubatch, flash_attention="on"
    )
    run = read_run(pipeline, chosen, "8.6")
    placement = as_asked(run).placement
    told = ask_engine(mixture, chosen, card=CARD)
    assert held(told, LineKind.WEIGHTS) == pytest.approx(placement.gpu_bytes, abs=ROUNDING)
    compute = compute_buffers(run.model, run.batch, placement, run.rules).gpu.expected_bytes
    assert held(told, LineKind.COMPUTE_BUFFER) == pytest.approx(compute, abs=2 * ROUNDING)


@pytest.mark.parametrize("free_mib", [2000, 2600, 3500, 3800, 4200, 4500, 5000, 7800])
def test_the_engines_fit_of_a_mixture_is_ours(mixture, free_mib) -> None:
    pipeline, chosen = settings_of(mixture, flash_attention="on")
    ours = fit_run(read_run(pipeline, chosen, "8.6"), free_mib * MIB)
    card = PretendedCard(name="fit", total_bytes=8 * GIB, free_bytes=free_mib * MIB)
    told = ask_engine(mixture, chosen, card=card)
    assert told.layers == (ours.on_gpu, 13)
    assert held(told, LineKind.WEIGHTS) == pytest.approx(ours.placement.gpu_bytes, abs=ROUNDING)


@pytest.mark.parametrize("parallel", ["auto", 1, 3])
@pytest.mark.parametrize("free_mib", [2000, 2600, 3000, 4000])
def test_the_engine_cuts_its_own_context_to_ours(files, free_mib, parallel) -> None:
    wanted = {"context": "auto", "flash_attention": "on", "parallel": parallel}
    pipeline, chosen = settings_of(files["llama"], **wanted)
    ours = fit_run(read_run(pipeline, chosen, "8.6"), free_mib * MIB)
    card = PretendedCard(name="fit", total_bytes=8 * GIB, free_bytes=free_mib * MIB)
    told = ask_engine(files["llama"], chosen, card=card)
    cache = ours.run.batch.cache_of_last(ours.placement.blocks_on_gpu)
    assert told.layers[0] == ours.on_gpu
    assert held(told, LineKind.KV_CACHE) == pytest.approx(cache, abs=2 * ROUNDING)


def test_a_dry_run_reads_no_data(tmp_path) -> None:
    """17 GB of weights, and caches in host memory of 8 GB: neither is touched."""
    model = sparse.language_model("llama", layers=64, embedding=5120, feed_forward=27392)
    path = sparse.write(tmp_path / "large.gguf", sparse.dense_layers(model))
    assert path.stat().st_size > 17_000_000_000
    program = (
        "import resource, sys; from pathlib import Path;"
        "from vramplan.engines.ggml.witness.answer import ask_engine;"
        "from vramplan.engines.ggml.witness.pretended_card import PretendedCard;"
        f"card = PretendedCard(name='card', total_bytes={80 * GIB}, free_bytes={79 * GIB});"
        "told = ask_engine(Path(sys.argv[1]), {'gpu_layers': 8, 'context': 32768}, card=card);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    command = [sys.executable, "-c", program, str(path)]
    done = subprocess.run(command, capture_output=True, check=True, text=True, timeout=120)
    assert int(done.stdout) * 1024 < 400 * MIB


#: what an AMD MI300X printed, whose backend is CUDA's code (gpustack/gguf-parser-go#45)
PRINTED = (
    ("qwen3", "Q8_0", "all", 32.09),
    ("qwen3", "Q8_0", 4, 41.64),
    ("olmoe", "Q4_K_M", "all", 64.09),
    ("olmoe", "Q4_K_M", 4, 172.37),
)


@pytest.mark.skipif(
    importlib.metadata.version("xllamacpp") != "2026.8.10566",
    reason="needs the logs' engine: pip install --target DIR xllamacpp==2026.8.10566, PYTHONPATH",
)
@pytest.mark.parametrize(("name", "quantisation", "layers", "mib"), PRINTED)
def test_an_engine_of_that_month_says_what_a_real_card_printed(
    tmp_path, name, quantisation, layers, mib
) -> None:
    path = sparse.write(tmp_path / "model.gguf", _printed_model(name, quantisation))
    settings = {
        "context": 4096,
        "kv_type": "q8_0",
        "flash_attention": "on",
        "gpu_layers": layers,
    }
    told = ask_engine(path, settings, card=CARD)
    assert held(told, LineKind.COMPUTE_BUFFER) == pytest.approx(mib * MIB, abs=ROUNDING)


def _printed_model(name: str, quantisation: str):
    if name == "qwen3":
        shape = {"embedding": 1024, "heads": 16, "kv_heads": 8, "feed_forward": 3072}
        model = sparse.language_model("qwen3", layers=28, words=151936, **shape)
        sparse.dense_layers(model, "qk norm", "tied")
    else:
        shape = {"embedding": 2048, "heads": 16, "kv_heads": 16, "feed_forward": 1024}
        model = sparse.language_model("olmoe", layers=16, words=50304, **shape)
        model.meta |= {"expert_count": 64, "expert_used_count": 8}
        sparse.dense_layers(model, "qk norm wide", "experts")
    kinds = gguf.GGMLQuantizationType

    def kind(tensor: str, old):
        if old == kinds.F32:
            return old
        if quantisation == "Q8_0":
            return kinds.Q8_0
        is_finer = "ffn_down" in tensor or "attn_v" in tensor or "blk" not in tensor
        return kinds.Q6_K if is_finer else kinds.Q4_K

    model.tensors = [(one, shape, kind(one, old)) for one, shape, old in model.tensors]
    return model

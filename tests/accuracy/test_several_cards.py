"""The real llama.cpp planning for two and three cards that are not there, beside what we say.

Each card is held: weights and cache to half a MiB, compute buffers to half a percent.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tools.model_files import sparse_module
from vramplan.engine_buffer import in_our_words
from vramplan.engines.ggml.card_memory import CardMemory, together
from vramplan.engines.ggml.compute_buffer import compute_buffers
from vramplan.engines.ggml.graph_buffer import has_tape
from vramplan.engines.ggml.layer_fit import Fit, as_asked, fit_run
from vramplan.engines.ggml.load_plan import read_run
from vramplan.engines.ggml.open import open_model
from vramplan.engines.ggml.witness.answer import EngineAnswer, ask_engine
from vramplan.engines.ggml.witness.dry_run import NEXT_CONTEXT
from vramplan.engines.ggml.witness.pretended_card import PretendedCard
from vramplan.engines.ggml.witnessed import settle
from vramplan.errors import MeasurementError, UsageError
from vramplan.model import Device, LineKind, Origin
from vramplan.settings import resolve_settings

pytest.importorskip("xllamacpp")
pytest.importorskip("gguf")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the pretended card is for Linux")

_PATH = Path(__file__).parents[1] / "sparse_gguf.py"
_SPEC = importlib.util.spec_from_file_location("sparse_gguf", _PATH)
sparse = sys.modules.setdefault("sparse_gguf", importlib.util.module_from_spec(_SPEC))
_SPEC.loader.exec_module(sparse)

FAMILIES = sparse.families()
MIB, GIB = 1 << 20, 1 << 30
HALF_A_MIB, HALF_A_PERCENT = MIB // 2, 0.005
#: free memory of each card, MiB
TWO, UNEQUAL, THREE = (7800, 7800), (7800, 3000), (3000, 7800, 5000)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    found = {name: sparse.write(folder / f"{name}.gguf", model) for name, model in FAMILIES.items()}
    deep = sparse.language_model("llama", layers=12)
    found["llama 12"] = sparse.write(folder / "deep.gguf", sparse.dense_layers(deep))
    mixture = sparse.language_model(
        "qwen3moe", layers=12, embedding=2048, feed_forward=6144, kv_heads=4
    )
    mixture.meta |= {
        "expert_count": 128,
        "expert_used_count": 8,
        "expert_feed_forward_length": 768,
    }
    sparse.dense_layers(mixture, "qk norm", "experts")
    found["mixture"] = sparse.write(folder / "mixture.gguf", mixture)
    return found


def hold(
    path: Path,
    free_mib: Sequence[int],
    *,
    fits: bool = False,
    remotes: int = 0,
    **wanted: object,
) -> Fit:
    """Compare what each card holds with what the engine says, and return our fit.

    The first `remotes` cards are other machines'.
    """
    pipeline = open_model(str(path), None)
    wanted = {"context": 2048, "engine": "b11549", "flash_attention": "on", **wanted}
    chosen = resolve_settings(pipeline, {**pipeline.defaults, **wanted})
    free = [one * MIB for one in free_mib]
    cards = [
        CardMemory(total_bytes=24 * GIB, free_bytes=one, is_remote=number < remotes)
        for number, one in enumerate(free)
    ]
    run = read_run(pipeline, chosen, "8.6", together(cards))
    ours = fit_run(run, free) if fits else as_asked(run)
    told = ask(path, chosen, free, remotes)
    assert told.layers == (ours.on_gpu, run.model.total_layers)
    batch, placement = ours.run.batch, ours.placement
    compute = compute_buffers(run.model, batch, placement, run.rules)
    for number, (part, band) in enumerate(zip(placement.cards, compute.cards, strict=True)):
        held = {kind: held_by(told, kind, number) for kind in LineKind}
        assert held[LineKind.WEIGHTS] == pytest.approx(part.weights_bytes, abs=HALF_A_MIB)
        cache = batch.cache_on_card(part.first, part.stop)
        assert held[LineKind.KV_CACHE] == pytest.approx(cache, abs=HALF_A_MIB)
        states = batch.states_on_card(part.first, part.stop)
        assert held[LineKind.RECURRENT_STATE] == pytest.approx(states, abs=HALF_A_MIB)
        scratch = held[LineKind.COMPUTE_BUFFER]
        assert band.expected_bytes == pytest.approx(scratch, rel=HALF_A_PERCENT, abs=0.03 * MIB)
    host = held_by(told, LineKind.COMPUTE_BUFFER, None)
    assert compute.host_bytes == pytest.approx(host, rel=HALF_A_PERCENT, abs=0.03 * MIB)
    return ours


def ask(
    path: Path, settings: dict[str, object], free: Sequence[int], remotes: int = 0
) -> EngineAnswer:
    first, *others = (
        PretendedCard(
            name=f"card {number}",
            total_bytes=24 * GIB,
            free_bytes=one,
            is_remote=number < remotes,
        )
        for number, one in enumerate(free)
    )
    return ask_engine(path, settings, card=first, others=others)


def held_by(told: EngineAnswer, kind: LineKind, card: int | None) -> int:
    place = Device(gpu=card)
    buffers = in_our_words(told.buffers)
    return sum(one.size_bytes for one in buffers if one.kind is kind and one.device == place)


FEW = ("llama 12", "mixture", "gemma3", "deepseek2", "falcon-h1")


@pytest.mark.parametrize("layers", [2, "all"])  # and 1 and 3 over every family, below
@pytest.mark.parametrize("free", [TWO, UNEQUAL, THREE], ids=str)
@pytest.mark.parametrize("name", FEW)
def test_each_card_holds_what_we_say(files, name, free, layers) -> None:
    hold(files[name], free, gpu_layers=layers)


@pytest.fixture(scope="module")
def taped(tmp_path_factory) -> dict[str, Path]:
    """Files of families whose graph ships as a tape that says which norms are a layer's own."""
    folder = tmp_path_factory.mktemp("taped")
    made = sparse_module("engine_made")
    found = {}
    for name in TAPED:
        files = next(filter(None, (made.make(folder, name, one) for one in range(made.VARIANTS))))
        found[name] = files[TAPED[name]]
    return found


#: which of an architecture's files are of a set of tensors that was recorded
TAPED = {"internlm2": 0, "phi2": 1}


@pytest.mark.parametrize(("free", "layers"), [(TWO, 3), (UNEQUAL, "all"), (THREE, "all")])
@pytest.mark.parametrize("name", TAPED)
def test_tapes_tell_each_cards_buffers(taped, name, free, layers) -> None:
    ours = hold(taped[name], free, gpu_layers=layers)
    assert has_tape(ours.run.model, ours.run.batch, ours.run.rules, len(free))


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("internlm2", {"override_tensor": r"blk\.[0-3]\.ffn_.*=CPU;attn_output=CPU"}),
        ("phi2", {"override_tensor": "output=CPU;ffn_up=CPU", "gpu_layers": 4}),
        ("internlm2", {"kv_offload": "off"}),
        ("phi2", {"key_type": "q8_0", "value_type": "f16"}),
    ],
    ids=str,
)
def test_tapes_hold_with_what_people_set(taped, name, wanted) -> None:
    asked = {"gpu_layers": "all", "parallel": 1, "kv_unified": "off", **wanted}
    ours = hold(taped[name], (7800,), **asked)
    assert has_tape(ours.run.model, ours.run.batch, ours.run.rules)


def test_tapes_hold_over_cards_with_what_people_set(taped) -> None:
    moved = {"override_tensor": r"blk\.0\.=CUDA1;ffn_down=CPU", "gpu_layers": "all"}
    ours = hold(taped["internlm2"], UNEQUAL, **moved)
    assert has_tape(ours.run.model, ours.run.batch, ours.run.rules, 2)


@pytest.mark.parametrize("layers", [4, 9])
@pytest.mark.parametrize("free", [UNEQUAL, THREE], ids=str)
@pytest.mark.parametrize("name", ["llama 12", "mixture"])
def test_more_layers_are_shared_out_as_the_engine_does(files, name, free, layers) -> None:
    hold(files[name], free, gpu_layers=layers)


@pytest.mark.slow
@pytest.mark.parametrize("kv_type", ["f16", "q8_0"])
@pytest.mark.parametrize("layers", [1, 2, 3, "all"])
@pytest.mark.parametrize("free", [TWO, UNEQUAL, THREE], ids=str)
@pytest.mark.parametrize("name", FAMILIES)
def test_over_every_family(files, name, free, layers, kv_type) -> None:
    if kv_type == "q8_0" and name == "gptneox":
        pytest.skip("heads of 80 are no multiple of the type's block of 32")
    hold(files[name], free, gpu_layers=layers, kv_type=kv_type)


@pytest.mark.parametrize("shares", ["3/1", "1/0", "0/1", "1/2/5"])
def test_shares_that_were_asked_for_are_the_engines(files, shares) -> None:
    hold(files["llama 12"], THREE, gpu_layers="all", tensor_split=shares)


@pytest.mark.parametrize(
    "wanted",
    [
        {"flash_attention": "off"},
        {"parallel": 3, "kv_unified": "off", "context": 8192},
        {"kv_offload": "off"},
        {"ubatch": 64},
        {"ubatch": 16},
    ],
    ids=str,
)
@pytest.mark.parametrize("layers", [5, "all"])
def test_other_settings_change_each_card_alike(files, layers, wanted) -> None:
    hold(files["llama 12"], UNEQUAL, gpu_layers=layers, **wanted)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("nemotron_h", {"kv_offload": "off", "ubatch": 64}),
        ("mamba", {"kv_offload": "off", "ubatch": 64}),  # of one sequence: states of no others
        ("mamba2", {"kv_offload": "off", "ubatch": 512}),
        ("qwen35", {"gpu_layers": 2, "ubatch": 64, "parallel": 4, "context": 8192}),
        ("qwen35", {"ubatch": 8, "parallel": 4, "context": 8192, "kv_type": "q8_0"}),
        ("llama 12", {"key_type": "q8_0", "value_type": "f16"}),
        ("gemma3", {"key_type": "f16", "value_type": "q4_0"}),
        ("llama 12", {"kv_offload": "off", "flash_attention": "off", "gpu_layers": 5}),
    ],
    ids=str,
)
def test_caches_and_states_are_where_and_what_was_asked_for(files, name, wanted) -> None:
    asked = {"gpu_layers": "all", "parallel": 1, "kv_unified": "off"}
    hold(files[name], (7800,), **asked | wanted)


def test_a_latent_cache_is_of_one_type(files) -> None:
    with pytest.raises(UsageError, match="refuses two types"):
        hold(files["deepseek2"], (7800,), key_type="q8_0", value_type="f16")
    settings = {"key_type": "q8_0", "value_type": "f16", "context": 2048, "gpu_layers": "all"}
    with pytest.raises(MeasurementError, match="does not support different K"):
        ask(files["deepseek2"], settings, [7800 * MIB])


OTHER_CACHES = (
    {"kv_offload": "off"},
    {"kv_offload": "off", "kv_type": "q8_0"},
    {"kv_offload": "off", "flash_attention": "off"},
    {"key_type": "q8_0", "value_type": "f16"},
    {"key_type": "f16", "value_type": "q4_0"},
    {"key_type": "q8_0", "flash_attention": "off"},
)


@pytest.mark.slow
@pytest.mark.parametrize(("slots", "ubatch"), [(1, 512), (4, 64)])
@pytest.mark.parametrize("layers", [0, 2, "all"])
@pytest.mark.parametrize("wanted", OTHER_CACHES, ids=str)
@pytest.mark.parametrize("name", FAMILIES)
def test_other_caches_over_every_family(files, name, wanted, layers, slots, ubatch) -> None:
    has_blocks = any("q" in str(one) for one in wanted.values())
    if has_blocks and name == "gptneox":
        pytest.skip("heads of 80 are no multiple of the type's block of 32")
    if name == "deepseek2" and "key_type" in wanted:
        pytest.skip("a latent cache is of one type: the engine refuses two")
    asked = {"parallel": slots, "kv_unified": "off", "ubatch": ubatch, "gpu_layers": layers}
    hold(files[name], (7800,), **asked, **wanted)


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("layers", [2, "all"])
def test_layers_that_guess_ahead_have_a_context_of_their_own(files, layers) -> None:
    pipeline = open_model(str(files["glm4moe"]), None)
    wanted = {"context": 2048, "parallel": 1, "flash_attention": "on", "load_mtp": "on"}
    chosen = resolve_settings(pipeline, {**pipeline.defaults, **wanted, "gpu_layers": layers})
    _, ours = settle(read_run(pipeline, chosen, "8.6"), None)
    assert ours.compute.origin is Origin.WITNESSED
    both = [
        ask(files["glm4moe"], {**chosen, **one}, [24 * GIB]) for one in ({}, {NEXT_CONTEXT: "on"})
    ]
    assert held_by(both[0], LineKind.WEIGHTS, 0) == pytest.approx(
        ours.weights.band.expected_bytes, abs=HALF_A_MIB
    )
    for kind, size in (
        (LineKind.KV_CACHE, ours.cache.band.expected_bytes),
        (LineKind.COMPUTE_BUFFER, ours.compute.band.expected_bytes),
    ):
        told = sum(held_by(one, kind, 0) for one in both)
        assert told == pytest.approx(size, abs=0.03 * MIB), kind


#: what people write for -ot, and what nobody should
OVERRIDES = (
    "ffn_.*=CPU",
    r"blk\.[0-3]\.ffn_(up|down|gate).*=CPU;attn=CUDA0",
    "token_embd=CUDA0",
    "output.weight=CPU",
    r"blk\.(10|11)\.=CPU",
    "nothing_is_called_so=CPU",
)


@pytest.mark.parametrize("layers", [5, "all"])
@pytest.mark.parametrize("free", [(7800,), TWO], ids=str)
@pytest.mark.parametrize("patterns", OVERRIDES)
def test_tensors_go_where_patterns_say(files, patterns, free, layers) -> None:
    hold(files["llama 12"], free, gpu_layers=layers, override_tensor=patterns)


@pytest.mark.parametrize("free", [(7800,), TWO], ids=str)
def test_experts_go_where_patterns_say(files, free) -> None:
    patterns = r"blk\.[4-9]\.ffn_.*_exps=CPU" + (r";blk\.0\.ffn.*exps=CUDA1" * (len(free) > 1))
    hold(files["mixture"], free, gpu_layers="all", override_tensor=patterns)


@pytest.mark.parametrize("patterns", ["token_embd=CUDA0", "token_embd=CPU", "ffn_down=CPU"])
def test_a_table_of_words_that_is_the_output_matrix_too_is_moved_as_one(files, patterns) -> None:
    hold(files["gemma3"], (7800,), gpu_layers="all", override_tensor=patterns)


@pytest.mark.parametrize("batch", [64, 1024, 4096])
def test_a_batch_is_no_larger_than_what_is_taken_at_once(files, batch) -> None:
    hold(
        files["llama 12"], (7800,), gpu_layers="all", ubatch=2048, batch_tokens=batch, context=8192
    )


@pytest.mark.parametrize("layers", [5, "all"])
@pytest.mark.parametrize("pooling", ["auto", "none", "mean", "cls", "last"])
def test_embeddings_have_a_result_for_every_token(files, pooling, layers) -> None:
    wanted = {"embedding": "on", "pooling": pooling, "parallel": 2, "kv_unified": "on"}
    hold(files["llama 12"], (7800,), gpu_layers=layers, **wanted)


@pytest.mark.parametrize("name", ["gemma3", "qwen3moe", "falcon-h1", "deepseek2"])
def test_embeddings_of_other_families(files, name) -> None:
    hold(files[name], (7800,), gpu_layers="all", embedding="on", pooling="mean")


def test_a_pooling_that_nothing_is_embedded_for_takes_results_all_the_same(files) -> None:
    hold(files["llama 12"], (7800,), gpu_layers="all", pooling="last")


@pytest.mark.parametrize("experts", [3, "all"])
def test_with_experts_in_host_memory_there_is_no_pipeline(files, experts) -> None:
    hold(files["mixture"], TWO, gpu_layers="all", cpu_moe=experts)


@pytest.mark.parametrize(
    ("name", "free", "remotes", "layers"),
    [
        ("llama 12", (7800,), 1, 0),
        ("mixture", (7800,), 1, 5),
        ("mixture", UNEQUAL, 1, "all"),
        ("llama 12", THREE, 2, 5),
    ],
)
def test_cards_of_other_machines_hold_what_we_say(files, name, free, remotes, layers) -> None:
    ours = hold(files[name], free, remotes=remotes, gpu_layers=layers)
    assert ours.run.remotes == remotes


@pytest.mark.slow
@pytest.mark.parametrize("kv_type", ["f16", "q8_0"])
@pytest.mark.parametrize("layers", [0, 1, 3, "all"])
@pytest.mark.parametrize(("free", "remotes"), [((7800,), 1), (UNEQUAL, 1), (THREE, 2)], ids=str)
@pytest.mark.parametrize("name", FAMILIES)
def test_other_machines_over_every_family(files, name, free, remotes, layers, kv_type) -> None:
    if kv_type == "q8_0" and name == "gptneox":
        pytest.skip("heads of 80 are no multiple of the type's block of 32")
    hold(files[name], free, remotes=remotes, gpu_layers=layers, kv_type=kv_type)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("llama 12", {"tensor_split": "1/3"}),
        ("llama 12", {"override_tensor": r"blk\.[0-3]\.ffn.*=CPU"}),
        ("llama 12", {"flash_attention": "off", "ubatch": 16}),
        ("mixture", {"cpu_moe": "all"}),
        ("deepseek2", {"kv_offload": "off"}),
    ],
    ids=str,
)
def test_settings_over_other_machines_cards(files, name, wanted) -> None:
    hold(files[name], UNEQUAL, remotes=1, **{"gpu_layers": "all", **wanted})


@pytest.mark.parametrize(
    ("name", "free"), [("llama 12", (1300, 2600)), ("mixture", (1200, 1300, 1800))]
)
def test_the_engines_fit_over_other_machines_cards_is_ours(files, name, free) -> None:
    hold(files[name], free, remotes=1, fits=True)


def test_one_card_of_two_has_all_of_it(files) -> None:
    pipeline = open_model(str(files["llama 12"]), None)
    wanted = {"split_mode": "none", "main_gpu": 1, "gpu_layers": "all"}
    settings = resolve_settings(pipeline, {**pipeline.defaults, **wanted})
    told = ask(files["llama 12"], settings, [one * MIB for one in TWO])
    cards = together([CardMemory(total_bytes=8 * GIB, free_bytes=one * MIB) for one in TWO])
    run = read_run(pipeline, settings, "8.6", cards)
    assert run.cards == (1,)
    assert held_by(told, LineKind.WEIGHTS, 0) == 0
    assert held_by(told, LineKind.WEIGHTS, 1) == pytest.approx(
        as_asked(run).placement.gpu_bytes, abs=HALF_A_MIB
    )


@pytest.mark.parametrize("free", [(1500, 1500), (2600, 1300), (1300, 2600), (1200, 1300, 1800)])
@pytest.mark.parametrize("context", [2048, "auto"])
def test_the_engines_fit_over_cards_is_ours(files, free, context) -> None:
    hold(files["llama 12"], free, fits=True, context=context)


@pytest.mark.parametrize(
    "free",
    [(2600, 2600), (3500, 2000), (2000, 3500), (4500, 1500), (1500, 4500), (2000, 2000, 2000)],
)
def test_the_engines_fit_of_a_mixture_over_cards_is_ours(files, free) -> None:
    hold(files["mixture"], free, fits=True)


def test_rows_are_split_no_longer(files) -> None:
    settings = {"split_mode": "row", "gpu_layers": "all"}
    free = [one * MIB for one in TWO]
    with pytest.raises(MeasurementError, match="does not support split buffers"):
        ask(files["llama 12"], settings, free)

"""Which architectures are known, part by part: writes the table of docs/architectures.md.

    python -m tools.architectures

The names are those of llama.cpp b11549's library; what is known of each stands in
`vramplan.engines.ggml.coverage`, `graph.families` and the tapes of profiles/graphs
(`python -m tools.graphs`), and is held against the engine by tests/accuracy/test_engine_families.py
and test_graph_tapes.py (`-m slow` for all of them). No engine is needed here.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from vramplan.engines.ggml.coverage import ENCODERS, KNOWN
from vramplan.engines.ggml.graph.families import FAMILIES
from vramplan.engines.ggml.graph_tape import tapes_of
from vramplan.engines.ggml.windows import RULES

OUT = Path(__file__).parents[1] / "docs" / "architectures.md"

#: every name in the library's table of architectures, but for clip's
_WORDS = """
afmoe apertus arcee arctic arwkv7 baichuan bailingmoe bailingmoe2 bailingmoe3 bert bitnet bloom
chameleon chatglm codeshell cogvlm cohere2 cohere2moe command-r dbrx deci deepseek deepseek2
deepseek2-ocr deepseek32 deepseek4 dots1 dots3note dream ernie4_5 ernie4_5-moe eurobert exaone
exaone-moe exaone4 falcon falcon-h1 gemma gemma-embedding gemma-embedding2 gemma2 gemma3 gemma3n
gemma4 gemma4-assistant glm-dsa glm4 glm4moe glm5-next gpt-oss gpt2 gptj gptneox granite
granite_swa granitehybrid granitemoe graniteswitch grok grovemoe hrm_text hunyuan-dense
hunyuan-moe hunyuan_vl hy_v3 hy_v4 internlm2 jais jais2 jamba jina-bert-v2 jina-bert-v3
k2-horizon kimi-k3 kimi-linear laguna lfm2 lfm2moe llada llada-moe llama llama-embed llama4
maincoder mamba mamba2 maple mellum mimo2 minicpm minicpm3 minimax-01 minimax-m2 mistral3
mistral4 modern-bert mpt nanbeige nemotron nemotron_h nemotron_h_moe neo-bert nomic-bert
nomic-bert-moe olmo olmo2 olmoe openelm orion paddleocr pangu-embedded phi2 phi3 phimoe plamo
plamo2 plamo3 plm pockettts qwen qwen2 qwen2moe qwen2vl qwen3 qwen35 qwen35moe qwen3moe
qwen3next qwen3tts qwen3vl qwen3vlmoe qwen4exp refact rnd1 rwkv6 rwkv6qwen2 rwkv7 seed_oss
smallthinker smollm3 spark2_5 stablelm starcoder starcoder2 step35 t5 t5encoder talkie
wavtokenizer-dec xverse
"""
NAMES = tuple(_WORDS.split())

#: names of which the engine loads no model by itself, and what becomes of one
NOT_TAKEN = {
    "gemma4-assistant": "guesses ahead for a Gemma 4 and is loaded beside one",
    "gptj": "is a name alone: llama.cpp refuses it",
    "plm": "ends llama.cpp b11549 at a check of its own, whatever its sizes",
    "wavtokenizer-dec": "is a model of sound, and refused as one",
}

_HEAD = """\
# Architectures of model files

What is known of each architecture that llama.cpp b11549 has a name for;
`python -m tools.architectures` writes this table. *Exact*: the engine was asked, and allocates what
is counted here (`tests/accuracy/test_engine_families.py`). *Assumed*: within a band that says so.

Compute buffers come from the graph that the engine reserves. *Counted*: its family's graph is known
node for node. *Recorded*: it ships as a tape that was recorded of build b11549 and is replayed at a
model's own numbers, without the engine; the number is of tapes, one for each set of optional
tensors. A tape is shipped only if the engine itself, asked for models with other numbers, depths
and settings, has the same nodes and buffers of the same bytes, on the CPU and with no layer, one,
half and all of them on a card that is not there (`python -m tools.graphs`). A model outside of what
was recorded (other optional tensors, other keys) is *assumed*.

**With the engine** installed (the extra `engine`, on Linux) a file of a family that is not exact
throughout is planned by the engine itself, and each line says *witnessed*, with the build:
`python -m tools.graphs --count` asks for every name whether that is what the engine holds, without
the extra and with it, for models that no tape was made of.

"""


def _recorded() -> dict[str, int]:
    """Return how many tapes ship for each of the names that have any, and are not counted."""
    found = {name: tapes_of(name) for name in NAMES if name not in FAMILIES}
    return {name: len(one.tapes) for name, one in found.items() if one is not None}


def rows(recorded: Mapping[str, int]) -> list[str]:
    """Return the table's rows, a name each."""
    found = []
    for name in sorted(NAMES):
        kept = "exact" if name in KNOWN else "assumed"
        cache = "none" if name in ENCODERS else kept
        compute = "counted" if name in FAMILIES else "assumed"
        if name in recorded:
            compute = f"recorded ({recorded[name]})"
        window = "yes" if name in RULES else ""
        asked = "no model" if name in NOT_TAKEN else "exact"
        found.append(f"| `{name}` | {kept} | {cache} | {kept} | {compute} | {window} | {asked} |")
    return found


def page() -> str:
    """Return the page."""
    known = sum(name in FAMILIES for name in NAMES)
    recorded = _recorded()
    kept = sum(name in KNOWN for name in NAMES)
    whole = sum(name in KNOWN and (name in FAMILIES or name in recorded) for name in NAMES)
    said = (
        f"{len(NAMES)} names: {whole} are exact throughout without the engine, "
        f"{len(NAMES) - len(NOT_TAKEN)} with it. Of {known} the graph is counted, of "
        f"{len(recorded)} recorded; of {kept} weights, caches and states are exact.\n\n"
    )
    head = (
        "| architecture | weights | KV cache | state | compute buffer | windows | with the engine |"
    )
    rest = "".join(f"\n- `{name}` {why}." for name, why in NOT_TAKEN.items())
    rule = "|---|---|---|---|---|---|---|"
    return _HEAD + said + "\n".join((head, rule, *rows(recorded))) + "\n" + rest + "\n"


def main() -> int:
    """Write the page; return 0."""
    OUT.write_text(page(), encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

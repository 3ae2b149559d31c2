"""Thirty models that people run, each beside the engine's own plan for a card that is not there.

    python -m tools.popular_models              at 8,192 and 32,768 tokens on a card of 24 GiB
    python -m tools.popular_models --gib 12 'Qwen3 8B'

llama.cpp (the extra `engine`) fits each to the card as its server does. A line says how many layers
both put there, and by how much every buffer that the engine prints differs from ours; 1 is returned
where one differs by more than what it prints, hundredths of a MiB.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools.model_files import sparse_module
from vramplan.engine_buffer import in_our_words
from vramplan.engines.ggml.build_rules import WITNESS_ENGINE
from vramplan.engines.ggml.card_memory import CardMemory
from vramplan.engines.ggml.open import open_model
from vramplan.engines.ggml.witness.answer import ask_engine
from vramplan.engines.ggml.witness.card_build import card_build
from vramplan.engines.ggml.witness.pretended_card import PretendedCard
from vramplan.model import LANGUAGE_MODEL, Buffer, LineKind
from vramplan.quick_dataclass import dataclass
from vramplan.settings import format_setting, resolve_settings
from vramplan.units import GIB, MIB

CONTEXTS = (8192, 32_768)
#: what the engine prints, and graphs that are known by heart are held to (docs/accuracy.md)
ROUNDING_BYTES = 0.02 * MIB
_CARD_GIB = 24
_KINDS = (
    LineKind.WEIGHTS, LineKind.KV_CACHE, LineKind.RECURRENT_STATE, LineKind.COMPUTE_BUFFER,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One model at one context: layers on the card, and the buffers of both sides, bytes.

    `sizes` has ours and the engine's by kind and side.
    """

    layers: tuple[int, int]
    sizes: dict[str, tuple[int, int]]

    @property
    def worst(self) -> tuple[str, int]:
        """Return the buffer that differs most, and by how many bytes ours is more."""
        name = max(self.sizes, key=lambda one: abs(self.sizes[one][0] - self.sizes[one][1]))
        return name, self.sizes[name][0] - self.sizes[name][1]

    @property
    def is_equal(self) -> bool:
        """Return whether layers and every buffer are the engine's."""
        return self.layers[0] == self.layers[1] and abs(self.worst[1]) <= ROUNDING_BYTES


def names() -> tuple[str, ...]:
    """Return the models' names."""
    return tuple(_popular())


def _popular() -> dict[str, Any]:
    sparse_module("sparse_gguf")  # which the other is made with
    return dict(sparse_module("sparse_popular").models())


def compare(name: str, context: int, folder: Path, gib: int = _CARD_GIB) -> Compared:
    """Return a model beside the engine's plan for a card with so much free.

    Raises MeasurementError where the engine does not tell.
    """
    model = _popular()[name]
    path = sparse_module("sparse_gguf").write(folder / "popular.gguf", model)
    pipeline = open_model(str(path), None)
    most = pipeline.constraints["context"].maximum or context
    wanted = {"context": min(context, int(most)), "engine": WITNESS_ENGINE}
    settings = resolve_settings(pipeline, {**pipeline.defaults, **wanted})
    seen = CardMemory(total_bytes=gib * GIB, free_bytes=gib * GIB)
    ours = card_build(pipeline, settings, "8.9", seen)
    words = {key: format_setting(key, value) for key, value in ours.settings.items()}
    card = PretendedCard(name="card", total_bytes=gib * GIB, free_bytes=gib * GIB)
    told = ask_engine(path, words, card=card)
    theirs = [one for one in in_our_words(told.buffers) if one.component == LANGUAGE_MODEL]
    return Compared(
        layers=(ours.layers[0], told.layers[0] if told.layers else 0),
        sizes=dict(_sizes(ours.buffers, theirs)),
    )


def _sizes(ours: tuple[Buffer, ...], theirs: list[Buffer]) -> Iterator[tuple[str, tuple[int, int]]]:
    for kind in _KINDS:
        for is_host in (False, True):
            both = tuple(
                sum(
                    one.size_bytes
                    for one in held
                    if one.kind is kind and (one.device.gpu is None) == is_host
                )
                for held in (ours, theirs)
            )
            if any(both):
                yield f"{kind.value}{' in host memory' * is_host}", (both[0], both[1])


def main() -> int:
    """Ask for every model; return 1 where one is not the engine's."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--gib", type=int, default=_CARD_GIB, help="free memory of the card")
    asked = parser.parse_args()
    equal = count = 0
    with tempfile.TemporaryDirectory(prefix="vramplan-popular-") as folder:
        for name in asked.names or names():
            for context in CONTEXTS:
                found = compare(name, context, Path(folder), asked.gib)
                count, equal = count + 1, equal + found.is_equal
                said = "equal" if found.is_equal else f"{found.worst[0]} {found.worst[1]:+,} bytes"
                layers = " and ".join(map(str, dict.fromkeys(found.layers)))
                print(f"{name}, {context:,} tokens: {layers} layers, {said}", flush=True)
    print(f"{equal} of {count} are the engine's plan in every buffer")
    return 0 if equal == count else 1


if __name__ == "__main__":
    sys.exit(main())

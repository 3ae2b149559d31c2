"""Makes the tapes of an architecture: made models, their graphs laid over each other, held."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from tools.graphs.asking import Asking, EngineError
from tools.graphs.domain import Prober
from tools.graphs.fitting import Fitter, as_size
from tools.graphs.headers import HYBRID, STYLES, Style, suffix
from tools.graphs.laying import Layer, UnexplainedError, choose_features, lay
from tools.graphs.samples import (
    MODES,
    Sample,
    all_settings,
    dice,
    made_header,
    record,
)
from tools.graphs.sketch import UnlikeError
from vramplan.engines.ggml.graph.tape import Domain, Tape, class_of
from vramplan.engines.ggml.load_plan import NEVER_FLASH
from vramplan.engines.ggml.tape_quantities import OF_SETTINGS
from vramplan.engines.ggml.windows import RULES
from vramplan.errors import VramplanError
from vramplan.sources.gguf_header import GgufFile

#: made models that a tape is laid of, and of architectures with several kinds of layer
_HEADERS, _MORE_HEADERS = 9, 24
DEPTHS = (4, 6, 5, 7, 8)
#: depths of which alone a family is what it is: of other models it has no windows, or no rotations
_FIXED = {
    "exaone4": (64,), "gemma3n": (30, 35), "gemma-embedding2": (20, 24, 22, 26),
    "smallthinker": (5, 8, 6, 9, 12, 7),
}  # fmt: skip
OUTPUT = "output.weight"
_QUERIES = frozenset({"attn_q", "attn_k", "attn_v", "attn_qkv"})
#: keys whose effect is in what tells layers apart
_TOLD = frozenset({
    "attention.sliding_window_pattern", "leading_dense_block_count", "attention.recurrent_layers",
    "full_attention_interval", "attention.shared_kv_layers", "context_length",
})  # fmt: skip
PROBLEMS = (EngineError, UnlikeError, UnexplainedError, VramplanError, ValueError)


def depth(name: str, seed: int) -> int:
    """Return how many layers a made model has."""
    fixed = _FIXED.get(name)
    if fixed:
        return fixed[seed % len(fixed)]
    rule = RULES.get(name)
    period = rule.period if rule else 0
    if period and period > 1:  # the last layer sees everything in every other model
        return period * (1 + seed // 2 % 2 + (period < 4)) + (0 if seed % 2 else 1 + seed // 4 % 2)
    return DEPTHS[seed % len(DEPTHS)]


def deep_enough(name: str, layers: int) -> int:
    """Return a depth of at least so many layers that a family is known at; 0 for its own ones."""
    rule = RULES.get(name)
    period = rule.period or 0 if rule else 0
    return 0 if name in _FIXED else max(layers, period + 1)


class Maker:
    """Makes tapes of one architecture, over one table of sizes."""

    def __init__(self, asking: Asking, name: str, keys: Sequence[str]) -> None:
        self._asking, self._name, self._keys = asking, name, keys
        self.table = Layer()
        self._asked: dict[Style, tuple[dict[str, set[str]], list[str]]] = {}
        self.problem = ""
        self._is_single = False  # caches are of one type: latent attention's

    def settings(self, rng: random.Random) -> list[tuple[tuple[bool, str], dict[str, object]]]:
        """Return settings of every mode that the architecture takes."""
        has_flash = self._name not in NEVER_FLASH
        return all_settings(rng, is_single=self._is_single, has_flash=has_flash)

    def header(
        self, style: Style, seed: int, kept: Callable[[str], bool], layers: int = 0
    ) -> GgufFile:
        """Return a made model's header."""
        count = layers or depth(self._name, seed)
        return made_header(self._asking, self._name, style, seed, count, kept)

    def styles(self) -> Iterator[tuple[Style, frozenset[str]]]:
        """Yield the freest style that the engine takes, without and with experts, and its tensors.

        `problem` says why there is none.
        """
        seen = set()
        for has_experts in (False, True):
            for style in STYLES:
                if style.has_experts != has_experts:
                    continue
                found = self._tensors(style)
                if found is None:
                    continue
                if found not in seen:
                    seen.add(found)
                    yield style, found
                break

    def _tensors(self, style: Style) -> frozenset[str] | None:
        """Return the tensors of models of a style; None where the engine takes none of them."""
        for kept in (_no_factors, _anything):
            found: set[str] = set()
            taken = 0
            for seed in range(4):
                try:
                    header = self.header(style, seed, kept)
                    settings = self.settings(dice(seed))
                    record(self._asking, header, [settings[0][1], settings[-1][1]])
                except PROBLEMS as problem:
                    self.problem = str(problem)
                    continue
                taken += 1
                found |= {suffix(one.name) for one in header.tensors}
            if taken >= 2:
                return frozenset(found)
        return None

    def sets(self, style: Style, tensors: frozenset[str]) -> Iterator[frozenset[str]]:
        """Yield the sets of tensors that are worth a tape, those first that most files have."""
        optional = {one for one in sorted(tensors) if self._takes(style, tensors - {one})}
        factors = self._factors(style, tensors)
        # biases of one matrix and not of another may be refused together or alone
        biases = {one for one in optional if one.endswith(".bias")}
        of_queries = {one for one in biases if one.split(".")[1] in _QUERIES}
        heads = {one for one in tensors if one.startswith("cls")}  # of classifiers
        base = tensors - heads
        bare = base - biases
        least = set(bare)
        for one in sorted(optional - biases - {OUTPUT}):
            if self._takes(style, frozenset(least - {one})):
                least.discard(one)
        wanted = [bare, base, bare | of_queries, frozenset(least)]
        if factors:
            wanted += [bare | factors, base | factors]
        if heads:
            wanted += [tensors, tensors - biases]
        fused = _fused(tensors)
        if fused is not None:
            both = of_queries | {"*.attn_qkv.bias"}
            fused -= heads
            wanted += [fused - biases, fused, (fused - biases) | (both & fused)]
        seen = set()
        for one in wanted:
            found = frozenset(one)
            if found not in seen and self._takes(style, found):
                seen.add(found)
                yield found

    def _factors(self, style: Style, tensors: frozenset[str]) -> frozenset[str]:
        """Return the factors of rotations that the architecture's models may have."""
        for seed in range(6):
            try:
                header = self.header(style, seed, _anything)
            except PROBLEMS:
                continue
            found = {one.name for one in header.tensors if one.name.startswith("rope_")}
            return frozenset(found - tensors)
        return frozenset()

    def _takes(self, style: Style, tensors: frozenset[str]) -> bool:
        """Return whether the engine takes two models of these tensors: of one a kind may miss."""
        taken = 0
        for seed in range(6):
            try:
                header = self.header(style, seed, lambda name: suffix(name) in tensors)
                record(self._asking, header, [self.settings(dice(seed))[0][1]])
            except EngineError as problem:
                if "not found" in str(problem) or "tensor" in str(problem):
                    return False
                continue
            except PROBLEMS:
                continue
            taken += 1
            if taken == 2:
                return True
        return False

    def tape(self, style: Style, tensors: frozenset[str]) -> Tape:
        """Return the tape of one set of tensors. Raises one of `PROBLEMS`."""
        kept = keeps(tensors)
        if style not in self._asked:
            self._asked[style] = self._classes(style, kept)
        classes, read = self._asked[style]
        classes = {key: set(found) for key, found in classes.items() if key not in _TOLD}
        # a key of which any larger number makes the same graph may be any
        fixed = [key for key, found in classes.items() if "more" not in found]
        graphs: list[list[tuple[tuple[bool, str], Sample]]] = []
        problem: Exception | None = None
        has_kinds = self._name in RULES or self._name in HYBRID
        wanted_headers = _MORE_HEADERS if has_kinds else _HEADERS
        for seed in range(3 * wanted_headers):
            try:
                header = self._reduced(self.header(style, seed, kept), read)
                wanted = self.settings(dice(seed))
                found_here = record(self._asking, header, [one for _, one in wanted])
                graphs.append(list(zip((mode for mode, _ in wanted), found_here, strict=True)))
            except PROBLEMS as found:
                problem = found
                self._is_single = self._is_single or "different K" in str(found)
                if seed >= _HEADERS and not graphs:
                    break
            if len(graphs) == wanted_headers:
                break
        if len(graphs) < _HEADERS - 2:
            raise UnexplainedError(f"{len(graphs)} made models: {problem}")
        every = [one for found in graphs for one in found]
        samples = [sample for _, sample in every]
        by_mode = {mode: [one for its, one in every if its == mode] for mode in MODES}
        chosen: tuple[str, ...] = ()
        for own in filter(None, by_mode.values()):
            chosen = tuple(dict.fromkeys((*chosen, *choose_features(own))))
        modes = {mode: lay(own, chosen, self.table) for mode, own in by_mode.items() if own}
        for sample in samples:
            for key in read:
                if key in classes:
                    classes[key].add(class_of(sample.run.model.keys.get(key)))
        outside = {one for one in tensors if not one.startswith("*.")}
        may_tie = OUTPUT in tensors and self._takes(style, tensors - {OUTPUT})
        return Tape(
            domain=Domain(
                outside=frozenset(outside - {OUTPUT}),
                outputs=frozenset({OUTPUT in outside, OUTPUT in outside and not may_tie}),
                classes={key: frozenset(found) for key, found in classes.items()
                         if not found >= {"absent", "0", "1", "more"}},
                relations=tuple(self._relations(samples, fixed, len(graphs))),
            ),
            features=chosen,
            modes=modes,
        )  # fmt: skip

    def _reduced(self, header: GgufFile, read: Sequence[str]) -> GgufFile:
        kept = {f"{self._name}.{key}" for key in (*read, "block_count", "embedding_length",
                                                  "vocab_size", "context_length")}  # fmt: skip
        metadata = {
            key: value
            for key, value in header.metadata.items()
            if not key.startswith(f"{self._name}.") or key in kept or isinstance(value, tuple)
        }
        return replace(header, metadata=metadata)

    def _classes(
        self, style: Style, kept: Callable[[str], bool]
    ) -> tuple[dict[str, set[str]], list[str]]:
        """Return the keys on which the graph depends, with the classes that change nothing.

        And those that the architecture reads.
        """
        problem: Exception | None = None
        for seed in range(8):
            try:
                header = self.header(style, seed, kept, min(depth(self._name, 0), 5))
                prober = Prober(self._asking, header)
            except PROBLEMS as found:
                problem = found
                continue
            break
        else:
            raise UnexplainedError(f"no made model: {problem}")
        own = {key.removeprefix(f"{self._name}.") for key in header.metadata
               if key.startswith(f"{self._name}.")} - {"block_count", "embedding_length",
                                                       "vocab_size"}  # fmt: skip
        read = prober.read(sorted({*self._keys, *own}))
        classes = {
            key: {kind for kind, same in found.items() if same}
            for key, found in prober.classes(read).items()
            if not all(found.values()) or len(found) < 2
        }
        return classes, read

    def _relations(
        self, samples: Sequence[Sample], fixed: Sequence[str], wanted: int
    ) -> Iterator[tuple[int, int]]:
        """Yield quantities that were always what others say, and what they say.

        A model of which that is not so may have another graph.
        """
        instances = [
            sample.quantities.of(layer)
            for sample in samples[:: len(samples) // wanted]
            for layer in range(sample.run.model.layers)
        ]
        shared = set.intersection(*(set(one) for one in instances))
        names = [
            name
            for name in ("embedding", "heads", "kv_heads", "head_k", "head_v", "feed_forward",
                         *(f"key:{key}" for key in sorted(fixed)))
            if name in shared and name not in OF_SETTINGS
        ]  # fmt: skip
        done: list[str] = []
        for name in names:
            column = [one[name] for one in instances]
            others = Fitter(instances, done)
            terms = others.single(column)
            if terms is not None and (len(set(column)) > 1 or max(column) > 1):
                if name not in self.table.names:
                    self.table.names.append(name)
                size = self.table.place(as_size(terms, self.table.names))
                yield self.table.names.index(name), size
            else:
                done.append(name)


def keeps(tensors: frozenset[str]) -> Callable[[str], bool]:
    """Return what tells whether a tensor is one of a set."""
    return lambda name: suffix(name) in tensors


def _no_factors(name: str) -> bool:
    return not name.startswith("rope_")


def _anything(_name: str) -> bool:
    return True


def _fused(tensors: frozenset[str]) -> frozenset[str] | None:
    """Return the tensors with queries, keys and values in one matrix; None where they are not."""
    apart = {f"*.attn_{one}.weight" for one in "qkv"}
    if not apart <= tensors or "*.attn_qkv.weight" in tensors:
        return None
    biases = {f"*.attn_{one}.bias" for one in "qkv"}
    more = {"*.attn_qkv.weight"} | ({"*.attn_qkv.bias"} if biases <= tensors else set())
    return frozenset(tensors - apart - biases | more)

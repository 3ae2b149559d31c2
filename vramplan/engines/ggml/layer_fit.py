"""What an engine does on GPUs that are too small for all it was asked for.

llama.cpp (common/fit.cpp, since #16653) adds up the weights, cache and compute buffer that it is
about to allocate on each card, and changes what nobody set until its margin is left free on all:

1. the context, where it was not given: to what fits, but not below 4,096 tokens;
2. the layers, as many as fit, from the last, and from the last card; of a mixture of experts the
   layers without their experts, but for the first of them;
3. of a mixture whose layers fit so, the experts too, layer by layer from the first, and from the
   first card, and of one more layer a part, whose rest is on the next card.

Where layers, experts in host memory, or the cards' shares were asked for in numbers it gives up
after the context.

The margin is 1 GiB a card, and on the first the memory of the projector, which always goes there
(#21489). Ollama (llm/llama_server.go) sets the margin of every card to 1 GiB and the projector's
weights, to which llama.cpp adds the projector's memory once more; it moves the projector to the CPU
where less than its weights and 1 GiB are free, or when fewer layers are asked for than there are.
It always gives the context.

CUDA contexts and pools are in nobody's sum: they come out of the margin.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vramplan.engines.ggml.card_shares import HOST, cards_of
from vramplan.engines.ggml.compute_buffer import compute_buffers
from vramplan.engines.ggml.experts import HostExperts, HostPart, Moved
from vramplan.engines.ggml.load_plan import GgmlRun
from vramplan.engines.ggml.weights import Placement, place_layers
from vramplan.quick_dataclass import dataclass, replace
from vramplan.quick_typing import TypeVar
from vramplan.units import MIB

#: llama.cpp: common/common.h (fit_params_target); Ollama: mmprojOffloadHeadroom
MARGIN_BYTES = 1024 * MIB
#: llama.cpp: common/common.h (fit_params_min_ctx), for each cache
LEAST_CONTEXT = 4096
#: contexts are cut down to whole ones of these, for each cache
_CONTEXT_STEP = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """What is loaded: a run, at the context that is left to it, and its layers on the GPU.

    `shares` are the parts that several cards have of them.
    """

    run: GgmlRun
    on_gpu: int
    shares: tuple[float, ...] = ()

    @property
    def placement(self) -> Placement:
        """Return what is where, by the rules of the run's engine."""
        return place_layers(
            self.run.model,
            self.on_gpu,
            output_first=self.run.rules.output_layer_first,
            moved=self.run.moved,
            shares=self.shares,
            remotes=self.run.remotes,
        )


def as_asked(run: GgmlRun) -> Fit:
    """Return what is loaded where there is more than enough memory."""
    return Fit(run=run, on_gpu=run.asked_layers, shares=run.shares)


def layers_of(fit: Fit) -> tuple[int, ...]:
    """Return how many layers each card has, with those that guess ahead and the output layer."""
    owners = cards_of(fit.on_gpu, fit.shares)
    return tuple(owners.count(card) for card in range(max(len(fit.shares), 1)))


def has_projector_on_gpu(run: GgmlRun, free_bytes: int | None) -> bool:
    """Return whether the projector goes to the GPU; None stands for more than enough memory."""
    if run.vision is None or run.settings.get("mmproj_offload") == "off":
        return False
    if not run.is_ollama:
        return True
    if run.wanted_layers is not None and run.wanted_layers < run.model.total_layers:
        return False
    return free_bytes is None or free_bytes >= run.vision.counted_bytes + MARGIN_BYTES


def margin_bytes(run: GgmlRun, free_bytes: int) -> int:
    """Return what the engine wants to leave free, the projector's memory included.

    Of several cards on the first, which has the projector.
    """
    if run.vision is None or not has_projector_on_gpu(run, free_bytes):
        return MARGIN_BYTES
    from vramplan.engines.ggml.projector_compute import projector_compute

    weights = run.vision.weights_bytes
    compute = projector_compute(run.vision, has_flash=run.has_vision_flash).expected_bytes
    return other_margin_bytes(run, free_bytes) + weights + compute


def other_margin_bytes(run: GgmlRun, free_bytes: int) -> int:
    """Return what the engine wants to leave free on each card but the first."""
    if run.is_ollama and run.vision is not None and has_projector_on_gpu(run, free_bytes):
        return MARGIN_BYTES + -(-run.vision.counted_bytes // MIB) * MIB  # it passes whole MiB
    return MARGIN_BYTES


def gives_up(run: GgmlRun) -> bool:
    """Return whether the settings say so much that the engine moves no layers by itself."""
    return run.wanted_layers is not None or bool(run.moved) or run.has_own_shares


def least_free_bytes(run: GgmlRun) -> int:
    """Return how much must be free beside one card's context for an engine to move nothing away."""
    enough = 1 << 60
    return _used_bytes(as_asked(run))[0] + margin_bytes(run, enough)


def fit_run(run: GgmlRun, free_bytes: int | Sequence[int]) -> Fit:
    """Return what the engine makes of `run` on cards with so much free memory each."""
    free = (free_bytes,) if isinstance(free_bytes, int) else tuple(free_bytes)
    first, *others = free
    rest = other_margin_bytes(run, first)
    targets = (first - margin_bytes(run, first), *(one - rest for one in others))
    whole = as_asked(run)
    used = _used_bytes(whole)
    if _is_within(used, targets):
        return whole
    # on several cards there may be room enough, and not where it is wanted
    if run.may_shrink_context and sum(used) > sum(targets):
        whole, is_enough = _shrink(run, targets)
        if is_enough:
            return whole
    if gives_up(run):
        return whole
    return _Filling(whole.run, targets).run()


def _is_within(used: Sequence[int], targets: Sequence[int]) -> bool:
    return all(one <= most for one, most in zip(used, targets, strict=True))


def _used_bytes(fit: Fit) -> tuple[int, ...]:
    """Return what the engine adds up for each card."""
    run, placement = fit.run, fit.placement
    compute = compute_buffers(run.model, run.batch, placement, run.rules).cards
    own = tuple(
        card.weights_bytes
        + run.batch.cache_on_card(card.first, card.stop)
        + run.batch.states_on_card(card.first, card.stop)
        + band.expected_bytes
        for card, band in zip(placement.cards, compute, strict=True)
    )
    if run.draft is None:
        return own
    beside = _used_bytes(as_asked(run.draft))
    return tuple(one + other for one, other in zip(own, beside, strict=True))


def _shrink(run: GgmlRun, targets: Sequence[int]) -> tuple[Fit, bool]:
    """Return the run at the context that is left, and whether everything fits with it for sure.

    Between the least context and the model's the engine takes the straight line. Of several cards
    it takes half a layer a card, and half of one more, for lost.
    """
    streams = run.batch.streams
    largest = run.model.trained_context * streams
    least = LEAST_CONTEXT * streams
    whole = as_asked(run)
    if largest <= least:
        return whole, False
    target, cards = sum(targets), len(targets)
    if cards > 1:
        layers = min(run.asked_layers, run.model.layers)
        a_layer = whole.placement.gpu_bytes // max(layers, 1)
        target -= (cards + 1) * a_layer // (6 if run.model.has_experts else 2)
    smallest = as_asked(run.with_context(least))
    used, used_least = sum(_used_bytes(whole)), sum(_used_bytes(smallest))
    if not used > used_least or not target > used_least:
        return smallest, False
    tokens = least + (largest - least) * (target - used_least) // (used - used_least)
    tokens -= tokens % (_CONTEXT_STEP * streams)
    return as_asked(run.with_context(max(tokens, least))), cards == 1


def _guess(between: int, room: int, rise: int) -> int:
    """Return how far along the straight line `room` is, of a `rise` over `between` steps.

    At least one step, and not all. Where not even nothing fits, the engine's number wraps round and
    is larger than all.
    """
    if rise <= 0 or -between * room >= rise:
        return between - 1
    return min(max(between * room // rise, 1), between - 1)


# ------------------------------------------------------------------------- filling cards
@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """What one card has: `layers`, the last `parts` of them without their experts.

    Of the first of those `first_part` is elsewhere: on the card `first_to`, or in host memory.
    """

    layers: int = 0
    parts: int = 0
    first_part: HostPart = HostPart.EXPERTS
    first_to: int = HOST

    @property
    def whole(self) -> int:
        return self.layers - self.parts

    def more(self, layers: int, parts: int) -> _Part:
        return replace(self, layers=self.layers + layers, parts=self.parts + parts)


_Parts = tuple[_Part, ...]
T = TypeVar("T")


class _Filling:
    """Cards being filled with layers until nothing more has room.

    Numbers are found as the engine finds them: it guesses along the straight line between what has
    room and what has none, and puts the guess in place of the one or the other until nothing is
    between them. Bytes need not grow with every step, so another search could end elsewhere.
    """

    def __init__(self, run: GgmlRun, targets: Sequence[int]) -> None:
        self._run = run
        self._targets = targets
        self._last = len(targets) - 1
        # the engine deals out as many as there are without those that guess ahead, which are among
        # them all the same: the first ones stay behind (llama_model_n_layer)
        self._total = run.model.layers + 1
        self._has_experts = run.model.has_experts
        self._known: dict[_Parts, tuple[int, ...]] = {}

    def run(self) -> Fit:
        """Return the fit."""
        parts = (_Part(),) * len(self._targets)
        for card in range(self._last, -1, -1):
            parts = self._fill(parts, card)
        if self._has_experts and self._has_surplus():
            parts = self._take_experts(parts)
        return self._fit(parts)

    def _fit(self, parts: _Parts) -> Fit:
        """Return the run with these parts; the last card's whole layer is the output layer.

        Whole layers come first in each card, and the output layer counts as one of them, so that of
        the last card one block more has its experts than its numbers say.
        """
        layers = sum(part.layers for part in parts)
        rules, begin = [], self._total - layers
        for part in parts:
            first, begin = begin + part.whole, begin + part.layers
            if part.parts:
                rules.append(
                    HostExperts(
                        first=first,
                        stop=min(begin, self._run.model.layers),
                        first_part=part.first_part,
                        first_to=part.first_to,
                    )
                )
        run = replace(self._run, moved=Moved(experts=tuple(rules))) if rules else self._run
        shares = tuple(float(part.layers) for part in parts) if len(parts) > 1 else ()
        return Fit(run=run, on_gpu=layers, shares=shares if layers else self._run.shares)

    def _used(self, parts: _Parts) -> tuple[int, ...]:
        if parts not in self._known:
            self._known[parts] = _used_bytes(self._fit(parts))
        return self._known[parts]

    def _has_room(self, parts: _Parts, card: int) -> bool:
        return self._used(parts)[card] <= self._targets[card]

    # ------------------------------------------------------------ layers, from the last
    def _fill(self, parts: _Parts, card: int) -> _Parts:
        """Return the parts with as many more layers on `card` as have room, experts aside."""
        rest = self._total - sum(part.layers for part in parts[card + 1 :])
        if not rest:
            return parts

        def with_layers(low: _Parts, count: int) -> _Parts:
            without = count if self._has_experts else 0
            if without and card == self._last and not low[card].parts:
                without -= 1  # the output layer, which is never in parts
            return _changed(low, card, low[card].more(count, without))

        high = with_layers(parts, rest)
        if self._has_room(high, card):
            return high
        return self._search(parts, high, card, with_layers, lambda part: part.layers)

    def _search(
        self,
        low: _Parts,
        high: _Parts,
        card: int,
        step: Callable[[_Parts, int], _Parts],
        count: Callable[[_Part], int],
    ) -> _Parts:
        """Return how far it goes from `low`, which has room on `card`, to `high`, which has none.

        `step` returns the parts with so many steps more, of which `count` tells how many there are.
        """
        return _search(
            low,
            high,
            self._targets[card],
            used=lambda parts: self._used(parts)[card],
            count=lambda parts: count(parts[card]),
            step=step,
        )

    # ---------------------------------------------------------- experts, from the first
    def _has_surplus(self) -> bool:
        """Return whether all cards together have room for everything but the experts."""
        every = Moved(experts=(HostExperts(stop=self._run.model.layers),))
        used = _used_bytes(as_asked(replace(self._run, moved=every)))
        return sum(used) < sum(self._targets)

    def _take_experts(self, parts: _Parts) -> _Parts:
        """Return the parts with as many experts as there is room for beside their layers.

        `start` is the first card whose layers are still without.
        """
        start = self._last
        while start and parts[start - 1].layers:
            start -= 1
        card = 0
        while card <= start <= self._last:
            parts, start = self._convert(parts, start, card)
            parts, start = self._begin_one_more(parts, start, card)
            card += 1
        return parts

    def _convert(self, parts: _Parts, start: int, card: int) -> tuple[_Parts, int]:
        """Return the parts with layers given to `card`, with their experts, from the others."""
        high = parts
        for other in range(start, self._last + 1):
            moved = high[other].layers - (other == self._last)
            high = _changed(high, card, high[card].more(moved, 0))
            high = _changed(high, other, replace(high[other].more(-moved, 0), parts=0))
        if self._has_room(high, card):
            return high, self._last

        def with_experts(low: _Parts, count: int) -> _Parts:
            return _converted(low, _start_of(low, start), card, count)[0]

        found = self._search(parts, high, card, with_experts, lambda part: part.whole)
        return found, _start_of(found, start)

    def _begin_one_more(self, parts: _Parts, start: int, card: int) -> tuple[_Parts, int]:
        """Return the parts with as much of one more layer on `card` as there is room for.

        The rest of it is on the next card, or in host memory behind the last.
        """
        is_last = card == self._last
        if parts[start].layers <= is_last:
            return parts, start
        test = _changed(parts, start, parts[start].more(-1, -1))
        test = _changed(test, card, test[card].more(1, 1))
        begun = start + (test[start].parts == 0)

        def begin(part: HostPart, first_to: int) -> _Parts | None:
            found = replace(test[card], first_part=part, first_to=first_to)
            tried = _changed(test, card, found)
            used = self._used(tried)
            around = range(card, min(card + 2, self._last + 1))
            return tried if all(used[one] < self._targets[one] for one in around) else None

        next_card = HOST if is_last else card + 1
        if found := begin(HostPart.ALL_BUT_UP, next_card):
            return begin(HostPart.ALL_BUT_GATE, next_card) or found, begun
        found = begin(HostPart.ALL_BUT_ATTENTION, next_card)
        return (found, begun) if found else (parts, start)


def _search(
    low: T,
    high: T,
    target: int,
    *,
    used: Callable[[T], int],
    count: Callable[[T], int],
    step: Callable[[T, int], T],
) -> T:
    """Return what is nearest to `high`, which uses more than `target`, and does not itself.

    `low` uses no more, or nothing does.
    """
    while (between := count(high) - count(low)) > 1:
        test = step(low, _guess(between, target - used(low), used(high) - used(low)))
        if used(test) <= target:
            low = test
        else:
            high = test
    return low


def _start_of(parts: _Parts, start: int) -> int:
    """Return the first card from `start` on that has layers without experts, or the last."""
    return next((at for at in range(start, len(parts)) if parts[at].parts > 0), len(parts) - 1)


def _converted(parts: _Parts, start: int, card: int, count: int) -> tuple[_Parts, int]:
    """Return the parts with `count` layers without experts given to `card`, with them."""
    while start < len(parts):
        some = min(count, parts[start].parts)
        parts = _changed(parts, start, parts[start].more(-some, -some))
        parts = _changed(parts, card, parts[card].more(some, 0))
        count -= some
        if parts[start].parts > 0:
            break
        start += 1
    return parts, start


def _changed(parts: _Parts, card: int, part: _Part) -> _Parts:
    return (*parts[:card], part, *parts[card + 1 :])

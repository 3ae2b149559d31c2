"""The campaign's cases: a pipeline at settings, on a card of which so much is free.

The same seed draws the same cases, the first so many of a longer campaign too. Half of them have a
budget within 10 % of what the run needs; on which card that is the case follows from the need. The
others are judged on a card as it is. No recording and no rule was made from these settings.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from vramplan.ask.targets import make_jobs
from vramplan.budget.cuda_context import context_band
from vramplan.catalog import Catalog
from vramplan.catalog.cards import usable_bytes
from vramplan.engines.torch.estimate import estimate_torch, settled
from vramplan.engines.torch.pipeline import of_torch
from vramplan.errors import VramplanError
from vramplan.model import Card, Constraint, Estimate, Job, Settings
from vramplan.settings import parse_setting
from vramplan.units import GIB

#: the pipelines whose tapes have recipes, the small ones twice, and others that have tapes
PIPELINES: tuple[str, ...] = (
    *("sd15", "sd15-vae", "sdxl", "sdxl-vae", "sdxl-turbo", "sdxl-lightning", "llava-1.5-7b-hf"),
    *("vit-mae-base", "log-anomaly-ae", "denoising-ae", "sd15-vae", "vit-mae-base", "denoising-ae"),
    *("sd15-inpaint", "sd2.1", "sd3-vae", "flux1-vae", "flux2-vae", "taesd", "kandinsky-movq"),
    *("dc-ae-f32c32-sana", "qwen-image-vae", "whisper-tiny", "qwen3-0.6b", "llama-3.2-1b"),
    *("all-minilm-l6-v2", "bge-base-en-v1.5", "bge-m3", "bge-reranker-v2-m3", "bge-small-en-v1.5"),
    *("clip-vit-l-14", "clip-vit-h-14", "dinov2-small", "dinov2-large", "multilingual-e5-large"),
    *("nomic-embed-text-v1.5", "qwen3-embedding-0.6b", "siglip-base", "siglip-so400m"),
)
CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0")
#: sizes of cards, GiB on the box
CLASSES = (4, 6, 8, 10, 12, 16, 24)
#: steps and tokens: what only takes longer
_STEPS = {"denoising-ae": "3", "log-anomaly-ae": "3", "vit-mae-base": "3"}
_TOKENS = ("4", "9")
#: the most pixels of a batch; larger ones take no longer, but few cards have room
_MOST_PIXELS = 3 << 20
_DTYPES = ("fp16", "bf16", "fp32")
#: how far from a need a budget is that is near it
_NEAR = 0.1
_TRIES = 40
#: the settings that are words
_WORDS = {
    "attention": ("sdpa", "sdpa", "math"),
    "expandable_segments": ("off", "off", "on"),
    "vae_tiling": ("off",),
    "vae_slicing": ("off", "on"),
    "offload": ("none", "none", "none", "model"),
}
_MOST_NEED = 26 * GIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A job on a card, of which others hold `other_bytes`; whether that is near what it needs."""

    number: int
    job: Job
    card: Card
    other_bytes: int
    is_near: bool

    @property
    def budget_bytes(self) -> int:
        """What the card has for it, its CUDA context included."""
        return usable_bytes(self.card) - self.other_bytes


def draw_cases(
    catalog: Catalog, seed: int, count: int, *, skip: Collection[int] = ()
) -> Iterator[Case]:
    """Yield the first `count` cases of a seed, but for those whose numbers are in `skip`."""
    for number in range(count):
        if number in skip:
            continue
        chance = random.Random(f"{seed} {number}")  # noqa: S311  # the same cases every time
        yield _draw(chance, catalog, number)


def _draw(chance: random.Random, catalog: Catalog, number: int) -> Case:
    name = PIPELINES[number % len(PIPELINES)]
    is_near = number // len(PIPELINES) % 2 == number % 2
    for _ in range(_TRIES):
        cards = _cards(catalog, chance.choice(CAPABILITIES))
        (job,) = make_jobs([name], catalog, _settings(chance, catalog, name))
        found = estimate(job, cards[0])
        if found is None or found.need.band.expected_bytes > _MOST_NEED:
            continue
        if is_near:
            context = context_band(cards[0]).expected_bytes
            at_work = found.need.band.expected_bytes - context
            card, room = _placed_near(chance, cards, at_work)
        else:
            card, room = _placed(chance, cards)
        other = usable_bytes(card) - room
        return Case(number=number, job=job, card=card, other_bytes=other, is_near=is_near)
    raise AssertionError(f"{name}: no settings that its tape holds for")


def _cards(catalog: Catalog, capability: str) -> list[Card]:
    """Return the cards of an architecture that are sold, smallest first."""
    found = [
        card
        for card in catalog.cards.values()
        if card.compute_capability == capability and card.multiprocessors and not card.seats
    ]
    return sorted(found, key=lambda card: (card.class_gib, card.name))


def _placed_near(chance: random.Random, cards: Sequence[Card], at_work: int) -> tuple[Card, int]:
    """Return a card, and what it has free: about as much as a run takes."""
    share = chance.uniform(1 - _NEAR, 1 + _NEAR)

    def room_on(card: Card) -> int:
        return int(share * (context_band(card).expected_bytes + at_work))

    small = [card for card in cards if card.class_gib in CLASSES]
    with_room = [card for card in small or cards if usable_bytes(card) >= room_on(card)]
    card = chance.choice(with_room or cards[-1:])
    return card, min(room_on(card), usable_bytes(card))


def _placed(chance: random.Random, cards: Sequence[Card]) -> tuple[Card, int]:
    """Return a card of one of the classes as it is, or so much of a larger one."""
    small = [card for card in cards if card.class_gib in CLASSES]
    if small:
        card = chance.choice(small)
        return card, usable_bytes(card)
    return chance.choice(cards), chance.choice(CLASSES) * GIB * 97 // 100


def estimate(job: Job, card: Card) -> Estimate | None:
    """Return a job's estimate on a card; None where its tape does not hold for its settings."""
    pipeline = settled(of_torch(job.pipeline), job.settings, card.compute_capability)
    if pipeline.counted is not None:
        return None
    try:
        return estimate_torch(pipeline, job.settings, card)
    except VramplanError:
        return None


# -------------------------------------------------------------------------------------- settings
def _settings(chance: random.Random, catalog: Catalog, name: str) -> dict[str, object]:
    (job,) = make_jobs([name], catalog, {})
    has, bounds = job.settings, job.pipeline.constraints
    drawn: dict[str, str] = {}
    for key, usual in (("dtype", _DTYPES), ("mode", ())):
        if key in has:
            known = bounds[key].choices if key in bounds else ()
            drawn[key] = chance.choice(known or usual)
    if drawn.get("mode") == "decode" and name not in ("sd15-vae", "sdxl-vae"):
        drawn["mode"] = "encode"  # decode alone is not run of the others
    drawn |= dict(_sizes(chance, has, bounds))
    if "steps" in has:
        drawn["steps"] = _STEPS.get(name, "2")
    if "guidance" in has and chance.random() < 0.3:
        drawn["guidance"] = "1"
    for key, choices in _WORDS.items():
        if key in has:
            drawn[key] = chance.choice(choices)
    if "device_map" in has:
        drawn["device_map"] = "cuda"  # what is left to the CPU is another question
    return {key: parse_setting(key, text) for key, text in drawn.items()}


def _sizes(
    chance: random.Random, has: Settings, bounds: Mapping[str, Constraint]
) -> Iterator[tuple[str, str]]:
    """Yield the settings that are numbers."""
    if "image" in has:
        step = max(64, _bound(bounds, "image", "multiple_of", 8))
        sides = [step * chance.randint(4, 1024 // step) for _ in range(2)]
        yield "image", "{}x{}".format(*sides)
        most = max(1, _MOST_PIXELS // (sides[0] * sides[1]))
        yield "batch", str(chance.randint(1, min(4, most)))
    elif "batch" in has:
        most = _bound(bounds, "batch", "maximum", 64)
        yield "batch", str(min(most, int(2 ** chance.uniform(0, 6))))
    if "prompt_tokens" in has:
        most = _bound(bounds, "prompt_tokens", "maximum", 512)
        yield "prompt_tokens", str(chance.randint(16, min(most, 600)))
    if "new_tokens" in has:
        yield "new_tokens", chance.choice(_TOKENS)


def _bound(bounds: Mapping[str, Constraint], key: str, which: str, otherwise: int) -> int:
    return int(getattr(bounds.get(key), which, None) or otherwise)

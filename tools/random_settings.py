"""Ask for the verdict on every pipeline at random settings, and show what goes wrong.

    python -m tools.random_settings --seed 1 --count 1000 [--from 0] [--pipeline NAME]

Each question is drawn from the seed and its own number alone, so a run may be stopped and taken up
again with ``--from``, and one that failed is asked again with ``--from N --count 1``. A failure is
an error other than vramplan's own, a band out of order, a line that is not in its total, or a
verdict that its own figures contradict. Exit code 1 where there was one.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from vramplan.ask.judge import judge
from vramplan.ask.targets import make_jobs
from vramplan.catalog import CardChoice, Catalog, load_catalog
from vramplan.errors import VramplanError
from vramplan.model import Band, Constraint, Estimate, SettingValue, Verdict, VerdictKind
from vramplan.setting_values import DEVICE_MAPS, OFFLOAD_TYPES, QUANTIZATIONS

#: what is drawn for a setting; whole numbers between two, and what a pipeline does not take again
_SWITCH = ("on", "off")
_WORDS: Mapping[str, tuple[SettingValue, ...]] = {
    "dtype": ("fp16", "bf16", "fp32"),
    "attention": ("sdpa", "math", "sliced"),
    "offload": ("none", "model", "sequential", "auto"),
    "platform": ("linux", "linux", "windows", "wsl"),
    "device_map": DEVICE_MAPS,
    "guidance": (1.0, 7.5),
    "kv_type": ("f16", "q8_0", "q4_0"),
    "flash_attention": ("auto", "on", "off"),
    "quantization": ("none", *QUANTIZATIONS),
    "lora": ("none", "none", "rank16", "rank128:fused"),
    "offload_type": OFFLOAD_TYPES,
    "use_stream": _SWITCH,
    **dict.fromkeys(
        ("vae_tiling", "vae_slicing", "vae_upcast", "safety_checker", "expandable_segments"),
        _SWITCH,
    ),
}
_NUMBERS = {
    "batch": 6, "steps": 30, "prompt_tokens": 300, "new_tokens": 24, "context": 40_000,
    "ubatch": 2048, "parallel": 6, "num_blocks_per_group": 8, "frames": 60,
}  # fmt: skip
_LARGEST_SIDE = 1408
_STEP = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A pipeline at some settings on a card."""

    number: int
    pipeline: str
    card: str
    settings: Mapping[str, SettingValue]

    def __str__(self) -> str:
        """Return the command that asks it."""
        said = " ".join(
            f"--set {key}={f'{value[0]}x{value[1]}' if isinstance(value, tuple) else value}"
            for key, value in self.settings.items()
        )
        return f"{self.number}: vramplan check {self.pipeline} --card {self.card} {said}"


def draw(seed: int, number: int, catalog: Catalog, names: Sequence[str] = ()) -> Question:
    """Return one question on a pipeline of those named, or of all: the same for seed and number."""
    dice = random.Random(f"{seed}:{number}")  # noqa: S311  # a sample, not a secret
    (job,) = make_jobs([dice.choice(names or list(catalog.pipelines))], catalog, {})
    bounds = job.pipeline.constraints
    settings = {
        key: _draw(dice, key, bounds.get(key, Constraint()), value)
        for key, value in job.settings.items()
        if dice.random() < 0.7
    }
    card = dice.choice(sorted(catalog.cards))
    return Question(number=number, pipeline=job.pipeline.name, card=card, settings=settings)


def _draw(
    dice: random.Random, key: str, bounds: Constraint, otherwise: SettingValue
) -> SettingValue:
    if key == "image":
        step = bounds.multiple_of or 1
        low = -(-(bounds.minimum or 1) // step)
        high = min(bounds.maximum or _LARGEST_SIDE, _LARGEST_SIDE) // step
        width, height = (dice.randint(low, high) * step for _ in "wh")
        return width, height
    if key == "gpu_layers":
        return dice.choice(("auto", dice.randint(0, bounds.maximum or 0)))
    if key in _NUMBERS:
        step = bounds.multiple_of or 1
        most = min(bounds.maximum or _NUMBERS[key], _NUMBERS[key])
        return max(step, dice.randint(bounds.minimum or 1, most) // step * step)
    words = bounds.choices or _WORDS.get(key, (otherwise,))
    return dice.choice(words)


def ask(question: Question, catalog: Catalog) -> tuple[Verdict, Estimate]:
    """Return the verdict and the estimate behind it. Raises VramplanError."""
    (job,) = make_jobs([question.pipeline], catalog, question.settings)
    card = catalog.cards[question.card]
    choice = CardChoice(label=card.name, title=card.title, candidates=(card,))
    return judge(job, choice)


def wrong_with(verdict: Verdict, estimate: Estimate) -> Iterator[str]:
    """Yield what contradicts itself in a verdict and its estimate."""
    need, device = verdict.need, estimate.peak.device
    lines = sum((line.band for line in estimate.lines[1:]), estimate.lines[0].band)
    if lines != device:
        yield f"its lines add up to {lines}, not to {device}"
    for what, band in (("need", need), ("peak", device)):
        if band.low_bytes < 0:
            yield f"{what} below nothing: {band}"
    if estimate.peak.allocated_bytes > estimate.peak.reserved_bytes:
        yield "more is allocated than reserved"
    if not 0 <= verdict.offload_risk <= 1:
        yield f"risk {verdict.offload_risk}"
    if verdict.kind is VerdictKind.FITS and need.high_bytes > verdict.budget_bytes:
        yield "fits, and the high need does not"
    if verdict.kind is VerdictKind.OOM and _is_within(need, verdict):
        yield "oom, and the expected need is within the budget"


def _is_within(need: Band, verdict: Verdict) -> bool:
    return need.expected_bytes <= verdict.budget_bytes and verdict.layers is None


def failures(
    seed: int, numbers: range, catalog: Catalog, counts: Counter[str], names: Sequence[str] = ()
) -> Iterator[tuple[Question, str]]:
    """Yield each question that went wrong, and how; `counts` takes what became of all."""
    for number in numbers:
        question = draw(seed, number, catalog, names)
        try:
            verdict, estimate = ask(question, catalog)
        except VramplanError as problem:
            counts[f"refused: {type(problem).__name__}"] += 1
            continue
        except Exception:  # noqa: BLE001  # whatever it is: that is what is looked for
            counts["failed"] += 1
            yield question, traceback.format_exc(limit=-3)
            continue
        counts[verdict.kind.value] += 1
        found = list(wrong_with(verdict, estimate))
        if found:
            counts["contradicts itself"] += 1
            yield question, "; ".join(found)


def main() -> int:
    """Ask, print what went wrong as it is found, and the counts at the end."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--from", type=int, default=0, dest="first")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so many")
    parser.add_argument("--pipeline", action="append", default=[], metavar="NAME")
    args = parser.parse_args()
    catalog, counts = load_catalog(()), Counter[str]()
    began = time.monotonic()
    is_wrong, number = False, args.first
    for number in range(args.first, args.first + args.count):
        if time.monotonic() - began > args.seconds:
            break
        these = range(number, number + 1)
        for question, how in failures(args.seed, these, catalog, counts, args.pipeline):
            is_wrong = True
            sys.stdout.write(f"{question}\n{how}\n")
            sys.stdout.flush()
    else:
        number += 1
    asked = number - args.first
    told = ", ".join(f"{what} {count}" for what, count in sorted(counts.items()))
    sys.stdout.write(f"seed {args.seed}, {asked} from {args.first} on: {told}\n")
    return int(is_wrong)


if __name__ == "__main__":
    sys.exit(main())

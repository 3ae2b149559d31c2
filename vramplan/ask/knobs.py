"""What can be turned: a job's settings, each with the values that its pipeline takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from vramplan.ask.largest import legal_sizes
from vramplan.known_settings import SETTING_HELP, Form, form_of
from vramplan.model import Constraint, Job, SettingValue
from vramplan.quick_dataclass import dataclass
from vramplan.settings import format_setting

#: what is turned first, in this order
_FIRST = (
    "image",
    "batch",
    "frames",
    "context",
    "dtype",
    "quantization",
    "kv_type",
    "offload",
    "gpu_layers",
    "attention",
    "mode",
)
#: an image's sides are whole ones of these where it takes too many sizes to slide along
_COARSE_SIDE = 64
_MOST_STOPS = 80
#: where a count has no bound of its own its stops end here: what is beyond is typed
_FARTHEST = {
    "batch": 1 << 8,
    "context": 1 << 17,
    "max_cache_len": 1 << 17,
    "batch_tokens": 1 << 14,
    "ubatch": 1 << 13,
    "main_gpu": 15,
}
_FARTHEST_COUNT = 1 << 10
#: and begin here where fewer are legal and nobody takes so few
_NEAREST = {"context": 1 << 8, "max_cache_len": 1 << 8, "batch_tokens": 1 << 5, "ubatch": 1 << 5}
_NO_BOUNDS = Constraint()


@dataclass(frozen=True, slots=True, kw_only=True)
class Knob:
    """A setting of a job: what it is now, and what it may be, all as ``--set`` reads it.

    `kind` is that of `settings.Form`. `words` are all values of a choice, and those of another kind
    that are no number. `stops` are values of a size or a count, rising, among them the present one:
    enough to slide along, not all that there are. `bounds` says in words which there are.
    """

    key: str
    help: str
    kind: str
    value: str
    default: str
    words: tuple[str, ...]
    stops: tuple[str, ...]
    bounds: Constraint
    is_first: bool


def find_knobs(job: Job) -> tuple[Knob, ...]:
    """Return a job's settings, the usual ones first; those that name files are left out."""
    rank = {key: place for place, key in enumerate(_FIRST)}
    keys = sorted(job.pipeline.defaults, key=lambda key: rank.get(key, len(rank)))
    forms = ((key, form_of(key)) for key in keys)
    return tuple(_knob(job, key, form) for key, form in forms if form.kind != "files")


def _knob(job: Job, key: str, form: Form) -> Knob:
    bounds = job.pipeline.constraints.get(key) or _NO_BOUNDS
    value = job.settings[key]
    kind = "choice" if bounds.choices and form.kind == "text" else form.kind
    words = bounds.choices if kind == "choice" and bounds.choices else form.words
    return Knob(
        key=key,
        help=SETTING_HELP[key],
        kind=kind,
        value=format_setting(key, value),
        default=format_setting(key, job.pipeline.defaults[key]),
        words=words,
        stops=tuple(_stops(key, value, job.pipeline.defaults[key], form, bounds)),
        bounds=bounds,
        is_first=key in _FIRST,
    )


def _stops(
    key: str, now: SettingValue, default: SettingValue, form: Form, bounds: Constraint
) -> Iterator[str]:
    """Yield the values that a knob stops at, in text: rising, then the words."""
    if form.kind == "size" and isinstance(now, tuple):
        sizes = {now, *_image_stops(now, bounds)}
        yield from (format_setting(key, size) for size in sorted(sizes, key=_area))
    elif form.kind == "count":
        legal = form.least if bounds.minimum is None else bounds.minimum
        least = max(legal, _NEAREST.get(key, legal))
        most = bounds.maximum or _FARTHEST.get(key, _FARTHEST_COUNT)
        counts = {one for one in (now, default) if isinstance(one, int)}
        counts |= set(_count_stops(least, most, bounds.multiple_of or 1))
        yield from (format_setting(key, count) for count in sorted(counts))
        yield from form.words


def _image_stops(now: tuple[int, int], bounds: Constraint) -> Iterable[tuple[int, int]]:
    """Return sizes of the shape of `now`, all that are legal or those with round sides."""
    legal = legal_sizes(now, bounds, "image")
    sizes = [size for size in legal if isinstance(size, tuple)]
    if len(sizes) > _MOST_STOPS:
        sizes = [size for size in sizes if not min(size) % _COARSE_SIDE]
    every = -(-len(sizes) // _MOST_STOPS) or 1
    return sizes[::every]


def _area(size: tuple[int, int]) -> int:
    return size[0] * size[1]


def _count_stops(least: int, most: int, step: int) -> Iterator[int]:
    """Yield all counts where there are few, else the ends, powers of two and what is between."""
    if most // step <= _MOST_STOPS and least % step == 0:
        yield from range(least, most + 1, step)
        return
    yield least
    power = 1
    while power <= most:
        yield from (n for n in (power, power + power // 2) if least <= n <= most and not n % step)
        power *= 2
    yield most

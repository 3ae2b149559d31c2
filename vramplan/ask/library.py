"""The questions for programs: what the commands ask, with plain arguments and nothing printed.

A setting is given as the command line has it, in text, or as the value itself: ``image="768x768"``
or ``image=(768, 768)``, ``batch=2``, ``vae_tiling=True``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from vramplan.ask import check as checking
from vramplan.ask.estimate import estimate_target
from vramplan.ask.targets import make_jobs, open_catalog, silent
from vramplan.budget.plan import Plan
from vramplan.budget.ranked import Ranking
from vramplan.errors import UsageError
from vramplan.model import Estimate, Job, SettingValue, SweepRow, VerdictKind
from vramplan.quick_dataclass import replace
from vramplan.settings import parse_setting
from vramplan.units import parse_size

Setting = str | int | float | bool | tuple[int, int]
#: one CARD or several: names, classes, sizes or ``auto``
Cards = str | Sequence[str]


def check(
    *targets: str,
    card: Cards = (),
    together: bool = False,
    margin: int | str = 0,
    other: int | str | None = None,
    mmproj: str | Path | None = None,
    catalog: Sequence[str | Path] = (),
    engine_check: bool = False,
    largest: bool = False,
    **settings: Setting,
) -> checking.Answer:
    """Return the verdict for each TARGET on each CARD, as ``vramplan check`` gives it.

    Without a card this machine's GPUs are judged, or an 8 GB and a 12 GB card where it has none;
    the answer's `remarks` say which. `margin` and `other` are bytes, or sizes such as ``"500MiB"``.
    With `largest` the answer has the largest of each size that fits too. Raises VramplanError: for
    a target, card or setting nobody knows, and for what has no estimate.

    >>> answer = check("sd15", card="12gb", image="512x512")
    >>> [str(verdict.kind) for verdict in answer.verdicts]
    ['fits']
    """
    if not targets:
        raise UsageError("no target", hint='name one, such as: check("sd15", card="8gb")')
    remarks: list[str] = []
    question = checking.read_targets(
        targets,
        _cards(card),
        read_settings(**settings),
        remarks.append,
        catalog=catalog,
        mmproj=None if mmproj is None else str(mmproj),
        is_together=together,
        margin_bytes=_size(margin),
        other_bytes=None if other is None else _size(other),
    )
    question = replace(question, wants_largest=largest)
    found = checking.answer(question, silent, asks_engine=engine_check)
    return replace(found, remarks=tuple(remarks))


def estimate(
    target: str,
    *,
    card: Cards = (),
    mmproj: str | Path | None = None,
    catalog: Sequence[str | Path] = (),
    **settings: Setting,
) -> Estimate:
    """Return the budget of a TARGET, as ``vramplan estimate`` gives it.

    Of several cards the one that needs most is taken; without one compute capability 8.6 is
    assumed, and the estimate's notes say so. Raises VramplanError.

    >>> estimate("sd15").peak.phase
    'decode_image'
    """
    found = estimate_target(
        target,
        _cards(card),
        read_settings(**settings),
        silent,
        catalog=catalog,
        mmproj=None if mmproj is None else str(mmproj),
    )
    return found.estimate


def plan(
    *targets: str,
    card: str,
    together: bool = False,
    accept: str = "fits",
    margin: int | str = 0,
    other: int | str | None = None,
    mmproj: str | Path | None = None,
    catalog: Sequence[str | Path] = (),
    **settings: Setting,
) -> Plan:
    """Return what makes a TARGET fit a CARD, as ``vramplan plan`` gives it.

    `options` are the ways, cheapest first, each with its settings, its verdict and the lines to
    type; `largest` has the largest image, batch and context that fit with all else as it is. With
    `together` several are to be on the card at once, and any of them may be changed: an option's
    settings are of a target by name (``sd15.batch``), and its `targets` are all of them.
    `accept` is the worst verdict that is good enough, ``"fits"`` or ``"tight"``. Raises
    VramplanError: for a target, card or setting nobody knows, and for what has no estimate.

    >>> found = plan("sdxl", card="8gb")
    >>> [option.line for option in found.options][0]
    'pipe.enable_model_cpu_offload()'
    """
    from vramplan.ask.plan import find_plan, read_plan
    from vramplan.ask.plan_together import find_joint_plan, read_joint_plan

    asked = [card], read_settings(**settings), silent
    beside = None if mmproj is None else str(mmproj)
    sizes = _size(margin), None if other is None else _size(other)
    worst = _accepted(accept)
    if together:
        joint = read_joint_plan(
            targets,
            *asked,
            catalog=catalog,
            mmproj=beside,
            margin_bytes=sizes[0],
            other_bytes=sizes[1],
            worst=worst,
        )
        return find_joint_plan(joint)
    if len(targets) != 1:
        hint = 'several at once: plan("sd15", "llava:7b", card="8gb", together=True)'
        raise UsageError("a plan is for one target", hint=hint)
    question = read_plan(
        targets[0],
        *asked,
        catalog=catalog,
        mmproj=beside,
        margin_bytes=sizes[0],
        other_bytes=sizes[1],
        worst=worst,
    )
    return find_plan(question)


def _accepted(word: str) -> VerdictKind:
    for kind in (VerdictKind.FITS, VerdictKind.TIGHT):
        if word == kind.value:
            return kind
    raise UsageError(f"accept={word!r} is not taken", hint="use fits or tight")


def fit(
    *models: str | Path,
    card: str,
    only_named: bool = False,
    pairs: bool = False,
    margin: int | str = 0,
    other: int | str | None = None,
    catalog: Sequence[str | Path] = (),
    **settings: Setting,
) -> Ranking:
    """Return what runs on a CARD, as ``vramplan fit`` ranks it: the best fit first.

    The catalogue, the models in Ollama's and LM Studio's stores and `models` are looked at, with
    `only_named` those alone: TARGETs, and folders whose model files are. Each takes those of the
    settings that it has. A row whose `problem` is not None has no verdict. With `pairs` any two
    that have room alone are judged side by side. Raises VramplanError for
    a target, a card or a setting nobody knows.

    >>> rows = fit(card="8gb").rows
    >>> [row.name for row in rows if row.is_whole and row.name in ("sd15", "sdxl")]
    ['sd15']
    """
    from vramplan.ask.fit import rank, read_fit

    question = read_fit(
        models,
        [card],
        read_settings(**settings),
        silent,
        catalog=catalog,
        only_named=only_named,
        wants_pairs=pairs,
        margin_bytes=_size(margin),
        other_bytes=None if other is None else _size(other),
    )
    return rank(question)


def sweep(
    *targets: str,
    card: Cards = (),
    jobs: int = 1,
    on: str = "here",
    margin: int | str | None = None,
    other: int | str | None = None,
    catalog: Sequence[str | Path] = (),
    advice: bool = False,
    **settings: Setting | list[Setting],
) -> Iterator[SweepRow]:
    """Yield the verdict of each TARGET at every combination of settings on each CARD, in order.

    A setting takes one value, several in a list, or text as on the command line: ``batch="1..8"``.
    The rows are those of ``vramplan sweep``; one whose `problem` is not None has no verdict. `jobs`
    processes share the work, on ``"here"`` or ``"ray"`` (there 0 for every core of the cluster);
    memory does not grow with the rows. A TARGET may be the YAML file of a sweep. Raises
    VramplanError before the first row is computed for what nobody knows.

    >>> rows = list(sweep("sd15", card="8gb", image=["512x512", "768x768"], batch="1..2"))
    >>> [(row.settings["image"], row.settings["batch"], str(row.kind)) for row in rows][:2]
    [((512, 512), 1, 'fits'), ((512, 512), 2, 'fits')]
    """
    from vramplan.ask.sweep import Sweep, compute_in_order, read_sweep, require_ray
    from vramplan.catalog.sweep_file import PLACES, RAY

    if not targets:
        raise UsageError("no target", hint='name one, such as: sweep("sd15", batch="1..8")')
    if on not in PLACES:
        raise UsageError(f"on={on!r} is no place", hint="use " + " or ".join(PLACES))
    if jobs < (0 if on == RAY else 1):
        raise UsageError(f"jobs={jobs} is no number of processes")
    if on == RAY:
        require_ray()
    question = read_sweep(
        targets,
        _cards(card),
        {key: _values(key, value) for key, value in settings.items()},
        silent,
        catalog=catalog,
        margin_bytes=None if margin is None else _size(margin),
        other_bytes=None if other is None else _size(other),
        wants_advice=advice,
    )
    opened = Sweep(question, silent)
    batches = compute_in_order(opened, question, tuple, jobs=jobs, on=on)
    return (row for _, rows in batches for row in rows)


def open_target(
    target: str,
    *,
    mmproj: str | Path | None = None,
    catalog: Sequence[str | Path] = (),
    **settings: Setting,
) -> Job:
    """Return what a TARGET stands for, at its defaults with `settings` over them.

    Raises VramplanError for a target nobody knows, and for a setting that it does not have.

    >>> open_target("sd15", batch=2).settings["batch"]
    2
    """
    beside = None if mmproj is None else str(mmproj)
    (job,) = make_jobs([target], open_catalog(catalog), read_settings(**settings), beside)
    return job


def read_settings(**settings: Setting) -> dict[str, SettingValue]:
    """Return settings as the command line would read them; raises UsageError."""
    return {key: parse_setting(key, _text(value)) for key, value in settings.items()}


def _values(key: str, value: Setting | list[Setting]) -> tuple[SettingValue, ...]:
    from vramplan.catalog.axes import read_axis

    listed = value if isinstance(value, list) else [value]
    return read_axis(key, ",".join(map(_text, listed)))


def _text(value: Setting) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return "x".join(str(side) for side in value)
    return str(value)


def _cards(card: Cards) -> Sequence[str]:
    return [card] if isinstance(card, str) else card


def _size(size: int | str) -> int:
    return parse_size(size) if isinstance(size, str) else size

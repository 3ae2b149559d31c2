"""What the page asks, as the part of its address behind the question mark holds it.

``target=sd15&card=8gb&card=12gb&image=768x768&show=12gb``: the settings stand under their own
names, and only those that are not the model's defaults. A link holds all of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import parse_qsl, urlencode

from vramplan.errors import UsageError, VramplanError
from vramplan.known_settings import form_of
from vramplan.model import Job, Pipeline, SettingValue
from vramplan.quick_dataclass import dataclass, field
from vramplan.settings import check_setting, format_setting, parse_setting
from vramplan.units import parse_size

#: what is longer is no link of ours
LONGEST = 8_192
_LONGEST_VALUE = 1_000
MOST_CARDS = 8
_MOST_FIELDS = 96
_OWN = ("target", "card", "margin", "other", "show")


class SettingError(UsageError):
    """A setting that cannot be taken: `key` says which."""

    def __init__(self, key: str, problem: VramplanError) -> None:
        super().__init__(str(problem), hint=problem.hint)
        self.key = key


@dataclass(frozen=True, slots=True, kw_only=True)
class PageQuery:
    """A link's text in parts; nothing of it has been understood yet."""

    target: str = ""
    cards: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    margin: str = ""
    other: str = ""
    #: the card whose budget and plan are shown
    show: str = ""


def read_query(text: str) -> PageQuery:
    """Return the parts of a link; raises UsageError for what is too long or said twice."""
    if len(text) > LONGEST:
        raise UsageError("this link is too long to be one of this page's")
    try:
        pairs = parse_qsl(text, max_num_fields=_MOST_FIELDS, errors="replace")
    except ValueError:
        raise UsageError("this link has more in it than this page has settings") from None
    own: dict[str, str] = {}
    cards: dict[str, None] = {}
    settings: dict[str, str] = {}
    for key, value in pairs:
        if len(value) > _LONGEST_VALUE:
            raise UsageError(f"{key[:40]}: {len(value):,} characters are too many")
        if key == "card":
            cards[value.strip()] = None
        elif key in _OWN:
            own[key] = value.strip()
        else:
            settings[key[:40]] = value.strip()
    if len(cards) > MOST_CARDS:
        raise UsageError(f"more than {MOST_CARDS} cards", hint="a sweep takes any number of them")
    return PageQuery(cards=tuple(cards), settings=settings, **own)


def read_job(query: PageQuery, pipeline: Pipeline) -> Job:
    """Return a pipeline at a link's settings.

    Raises SettingError for one that it does not have or take, and for one that names a file.
    """
    settings: dict[str, SettingValue] = dict(pipeline.defaults)
    for key, text in query.settings.items():
        try:
            settings[key] = _read_setting(pipeline, key, text)
        except UsageError as problem:
            raise SettingError(key, problem) from problem
    return Job(pipeline=pipeline, settings=settings)


def _read_setting(pipeline: Pipeline, key: str, text: str) -> SettingValue:
    if form_of(key).kind == "files":
        raise UsageError(f"{key}: this page opens no file")
    value = parse_setting(key, text)
    check_setting(pipeline, key, value)
    return value


def read_bytes(key: str, text: str) -> int:
    """Return the bytes of ``margin`` or ``other``; nothing is 0. Raises SettingError."""
    try:
        return parse_size(text) if text else 0
    except UsageError as problem:
        raise SettingError(key, problem) from problem


def write_query(
    job: Job, cards: Sequence[str], *, margin: str = "", other: str = "", show: str = ""
) -> str:
    """Return the link of a job on cards, with what is not a default in it."""
    pairs = [("target", job.pipeline.name), *(("card", card) for card in cards)]
    pairs += changed_settings(job).items()
    pairs += [(key, text) for key, text in (("margin", margin), ("other", other)) if text]
    if show and show != cards[0]:
        pairs.append(("show", show))
    return urlencode(pairs, safe=":,/")


def changed_settings(job: Job) -> dict[str, str]:
    """Return the settings of a job that are not its pipeline's defaults, in text."""
    return {
        key: format_setting(key, value)
        for key, value in job.settings.items()
        if value != job.pipeline.defaults[key]
    }

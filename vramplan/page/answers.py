"""What the page is told: the models and cards it offers, verdicts, and what to change.

One object of JSON a question. The figures are those of `vramplan check`, `estimate` and `plan`, the
words those of their reports, and ``result`` is what ``--json`` writes.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from vramplan import __version__
from vramplan.ask.cards import (
    DEFAULT_CLASSES,
    LOCAL,
    choose_cards,
    choose_default_cards,
    local_choices,
)
from vramplan.ask.judge import judge
from vramplan.ask.knobs import find_knobs
from vramplan.ask.plan import PlanQuestion, find_plan
from vramplan.ask.targets import silent
from vramplan.catalog import CardChoice
from vramplan.catalog.cards import class_names
from vramplan.errors import MissingError, UsageError, VramplanError
from vramplan.hearing import heard_by
from vramplan.model import Estimate, Settings, Verdict, VerdictKind
from vramplan.page import view
from vramplan.page.offered import Models
from vramplan.page.query import (
    MOST_CARDS,
    PageQuery,
    SettingError,
    changed_settings,
    read_bytes,
    read_job,
    read_query,
    write_query,
)
from vramplan.report import plain
from vramplan.report.serial import Json, check_result
from vramplan.report.text import clean
from vramplan.searching import searching

#: hears the step at hand, and may raise to end the work
Hear = Callable[[str], None]

#: what is shown where a link names no model
_DEFAULT_TARGET = "sd15"
#: what the kinds of cards are called; others are put last, under their own
_KINDS = {"consumer": "GeForce", "laptop": "Laptop", "workstation": "Workstation"}
_KINDS |= {"datacenter": "Data centre", "shared": "Shared memory"}


class Page:
    """Answers the page's questions about some models.

    A question is a link's text; its answer depends on that alone, and on what is free on a local
    GPU. `is_local` lets the page look at this machine's GPU, and name files as they were named to
    it.
    """

    def __init__(self, models: Models, *, is_local: bool) -> None:
        self._models = models
        self._is_local = is_local
        self._questions: Mapping[str, Callable[[PageQuery, Hear], dict[str, Json]]] = {
            "start": self._start,
            "verdicts": self._verdicts,
            "plan": self._plan,
        }

    @property
    def questions(self) -> frozenset[str]:
        """The names of the questions that are answered."""
        return frozenset(self._questions)

    def offer(self, target: str) -> str:
        """Offer what a TARGET stands for too, and return what it is called on the page."""
        return self._models.add(target, silent).name

    def answer(self, question: str, link: str, hear: Hear = silent) -> dict[str, Json]:
        """Return the answer to a question about a link; raises VramplanError, and what `hear` does.

        `hear` is told what is being tried while that takes its time. Nothing is recorded, which may
        take minutes: what `vramplan check` has recorded here is taken.
        """
        with heard_by(hear), searching():
            return self._questions[question](read_query(link), hear)

    def _start(self, _query: PageQuery, _hear: Hear) -> dict[str, Json]:
        """Return all that can be chosen: models, and cards by their kinds."""
        return {
            "version": __version__,
            "models": self._model_groups(),
            "cards": self._card_groups(),
            "most_cards": MOST_CARDS,
        }

    def _model_groups(self) -> list[Json]:
        """Return the models that were named, then the catalogue's by family or what runs them."""
        groups: dict[str, list[Json]] = {}
        for pipeline in self._models.listed:
            is_named = pipeline.name in self._models.named
            # an entry may say what it is listed with; a model file does not
            family = getattr(pipeline, "family", "") or f"runs in {pipeline.runtime}"
            title = "Named when this page was started" if is_named else family
            groups.setdefault(title, []).append(view.model_view(pipeline))
        return [{"title": clean(title, 60), "models": models} for title, models in groups.items()]

    def _card_groups(self) -> list[Json]:
        known = self._models.catalog.cards
        groups: dict[str, list[Json]] = {}
        if self._is_local and _has_gpu(self._models):
            groups["This machine"] = [{"name": LOCAL, "title": "this machine's GPUs"}]
        groups["Any card of a size"] = [
            {"name": name, "title": f"any {name.removesuffix('gb')} GB card"}
            for name in class_names(known.values())
        ]
        kinds = {
            **_KINDS,
            **{card.kind: _KINDS.get(card.kind, card.kind) for card in known.values()},
        }
        for kind, title in kinds.items():
            found = sorted(
                (card for card in known.values() if card.kind == kind),
                key=lambda card: (card.class_gib, card.name),
            )
            if found:
                groups[title] = [
                    {"name": card.name, "title": clean(card.title, 80)} for card in found
                ]
        return [{"title": clean(title, 40), "cards": cards} for title, cards in groups.items()]

    def _verdicts(self, query: PageQuery, hear: Hear) -> dict[str, Json]:
        """Return a verdict for each card, and the budget on the one that is shown."""
        asked = _Asked(self._models, query, is_local=self._is_local)
        judged: list[tuple[Verdict, Estimate]] = []
        for choice in asked.choices:
            hear(f"{asked.job.pipeline.name} on {choice.label}")
            judged.append(
                judge(
                    asked.job,
                    choice,
                    margin_bytes=asked.margin_bytes,
                    other_bytes=asked.other_bytes,
                )
            )
        verdicts = [verdict for verdict, _ in judged]
        shown = _shown(query, verdicts)
        verdict, estimate = judged[shown]
        return {
            "link": asked.link(),
            "model": view.model_view(asked.job.pipeline),
            "knobs": [view.knob_view(knob) for knob in find_knobs(asked.job)],
            "cards": [choice.label for choice in asked.choices],
            "margin": query.margin,
            "other": query.other,
            "changed": [*changed_settings(asked.job)],
            "verdicts": [view.verdict_view(one) for one in verdicts],
            "shown": verdict.card,
            "said": plain.headline(verdicts),
            "budget": view.budget_view(estimate, verdict),
            "run": view.run_view(estimate, verdict),
            "details": view.detail_view(estimate),
            "notes": view.notes_view(estimate, asked.remarks),
            "command": asked.command("check"),
            "result": check_result(verdicts),
        }

    def _plan(self, query: PageQuery, hear: Hear) -> dict[str, Json]:
        """Return the plan for the card that is shown."""
        from vramplan.report.plan import plan_result

        asked = _Asked(self._models, query, is_local=self._is_local)
        choice = next((one for one in asked.choices if one.label == query.show), asked.choices[0])
        question = PlanQuestion(
            job=asked.job,
            choice=choice,
            catalog=self._models.catalog,
            margin_bytes=asked.margin_bytes,
            other_bytes=asked.other_bytes,
        )
        plan = find_plan(question, hear)
        return {
            **view.plan_view(plan, asked.link),
            "card": choice.label,
            "command": asked.command("plan", choice.label),
            "result": plan_result(plan),
        }


class _Asked:
    """A link that was understood: the job, the cards, and what is taken off them.

    Raises VramplanError for what is not on the page, and for settings that cannot be taken.
    """

    def __init__(self, models: Models, query: PageQuery, *, is_local: bool) -> None:
        self._query = query
        self.remarks: list[str] = []
        target = query.target or _default_target(models)
        pipeline = models.find(target)
        self._name = models.command_name(pipeline) if is_local else pipeline.name
        self.job = read_job(query, pipeline)
        self.choices = _choices(query, models, self.remarks.append, is_local=is_local)
        self.margin_bytes = read_bytes("margin", query.margin)
        self.other_bytes = read_bytes("other", query.other) if query.other else None

    def link(self, settings: Settings = MappingProxyType({})) -> str:
        """Return the page's address for this, with some settings changed."""
        query = self._query
        labels = [choice.label for choice in self.choices]
        job = self.job.changed(settings)
        return write_query(job, labels, margin=query.margin, other=query.other, show=query.show)

    def command(self, name: str, card: str | None = None) -> str:
        """Return what to type in a terminal for the same answer."""
        words = ["vramplan", name, self._name]
        for label in [card] if card else [choice.label for choice in self.choices]:
            words += ["--card", label]
        for key, text in changed_settings(self.job).items():
            words += ["--set", f"{key}={text}"]
        taken = (("--margin", self._query.margin), ("--other", self._query.other))
        words += [word for option, text in taken if text for word in (option, text)]
        return clean(shlex.join(words), 2000)


def _default_target(models: Models) -> str:
    names = [pipeline.name for pipeline in models.listed]
    if models.named or _DEFAULT_TARGET not in names:
        return names[0]
    return _DEFAULT_TARGET


def _choices(
    query: PageQuery, models: Models, remark: Callable[[str], None], *, is_local: bool
) -> list[CardChoice]:
    """Return the cards of a link, or the usual ones; a GPU of this machine only where it may be."""
    if not query.cards and is_local:
        return choose_default_cards(models.catalog, silent)
    cards = query.cards or DEFAULT_CLASSES
    if not is_local and any(LOCAL in card.lower().partition(":")[0] for card in cards):
        problem = UsageError("this page does not look at its machine's GPU", hint="name the card")
        raise SettingError("card", problem)
    try:
        return choose_cards(cards, models.catalog, remark)
    except (UsageError, MissingError) as problem:
        raise SettingError("card", problem) from problem


def _shown(query: PageQuery, verdicts: Sequence[Verdict]) -> int:
    """Return the verdict whose budget is shown: the card that was named, else the first failure."""
    for place, verdict in enumerate(verdicts):
        if verdict.card == query.show:
            return place
    return next(
        (place for place, one in enumerate(verdicts) if one.kind is not VerdictKind.FITS), 0
    )


def _has_gpu(models: Models) -> bool:
    try:
        return bool(local_choices(models.catalog, silent))
    except MissingError:
        return False


def problem_object(problem: VramplanError) -> dict[str, Json]:
    """Return an error as the page shows it; `key` is the setting, or None."""
    key = problem.key if isinstance(problem, SettingError) else None
    return {
        "error": clean(str(problem), 400),
        "hint": clean(problem.hint or "", 400),
        "key": key,
    }

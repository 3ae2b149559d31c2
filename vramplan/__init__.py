"""vramplan: will this pipeline fit this card, and if not, what is the cheapest change?

What the commands do, as functions that print nothing::

    import vramplan

    answer = vramplan.check("sd15", "llava:7b", card="12gb")
    for verdict in answer.verdicts:
        print(verdict.pipeline, verdict.card, verdict.kind, verdict.headroom_bytes)

Everything in `__all__` is loaded when it is asked for: ``import vramplan`` costs next to nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as in typing, of which nothing else is wanted here

if TYPE_CHECKING:
    from vramplan.ask.check import Answer as Answer
    from vramplan.ask.library import check as check
    from vramplan.ask.library import estimate as estimate
    from vramplan.ask.library import fit as fit
    from vramplan.ask.library import open_target as open_target
    from vramplan.ask.library import plan as plan
    from vramplan.ask.library import sweep as sweep
    from vramplan.budget.plan import Plan as Plan
    from vramplan.budget.ranked import Ranking as Ranking
    from vramplan.errors import VramplanError as VramplanError
    from vramplan.model import Advice as Advice
    from vramplan.model import Band as Band
    from vramplan.model import Card as Card
    from vramplan.model import Component as Component
    from vramplan.model import Estimate as Estimate
    from vramplan.model import Job as Job
    from vramplan.model import Origin as Origin
    from vramplan.model import Pipeline as Pipeline
    from vramplan.model import SweepRow as SweepRow
    from vramplan.model import Verdict as Verdict
    from vramplan.model import VerdictKind as VerdictKind

__version__ = "0.1.0"

#: public name -> the module that has it
_HOMES = {
    "Advice": "model",
    "Answer": "ask.check",
    "Band": "model",
    "Card": "model",
    "Component": "model",
    "Estimate": "model",
    "Job": "model",
    "Origin": "model",
    "Pipeline": "model",
    "Plan": "budget.plan",
    "Ranking": "budget.ranked",
    "SweepRow": "model",
    "Verdict": "model",
    "VerdictKind": "model",
    "VramplanError": "errors",
    "check": "ask.library",
    "estimate": "ask.library",
    "fit": "ask.library",
    "open_target": "ask.library",
    "plan": "ask.library",
    "sweep": "ask.library",
}

__all__ = [
    "Advice",
    "Answer",
    "Band",
    "Card",
    "Component",
    "Estimate",
    "Job",
    "Origin",
    "Pipeline",
    "Plan",
    "Ranking",
    "SweepRow",
    "Verdict",
    "VerdictKind",
    "VramplanError",
    "check",
    "estimate",
    "fit",
    "open_target",
    "plan",
    "sweep",
]


def __getattr__(name: str) -> object:
    """Load a public name from its module the first time it is asked for (PEP 562)."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value: object = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

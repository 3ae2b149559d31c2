"""What to change so that it fits: settings tried one after the other, cheapest first."""

from vramplan.plan.advice import first_advice, together_advice

__all__ = ["first_advice", "together_advice"]

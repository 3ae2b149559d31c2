"""vramplan: will this pipeline fit this card, and if not, what is the cheapest change?"""

__version__ = "0.1.0"

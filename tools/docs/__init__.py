"""The generators of the documentation's figures, tables and pictures, one module a page."""

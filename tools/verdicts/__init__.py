"""The campaign of verdicts: what vramplan says of a card, and what torch does on it."""

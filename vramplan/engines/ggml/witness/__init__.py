"""The real llama.cpp as witness: it plans for a card that is not there, and we stand beside it."""

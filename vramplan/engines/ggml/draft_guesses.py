"""How many tokens a draft model guesses ahead where nobody says."""

from __future__ import annotations

#: llama.cpp: common/common.h (common_params_speculative_draft, n_max)
GUESSES = 3
#: Ollama: api/types.go (DefaultOptions, DraftNumPredict)
OLLAMA_GUESSES = 4

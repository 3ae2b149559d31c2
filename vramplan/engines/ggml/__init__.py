"""ggml: llama.cpp, Ollama and LM Studio, whose memory is a few buffers allocated at load."""

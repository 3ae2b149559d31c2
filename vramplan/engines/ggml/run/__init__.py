"""Runs llama.cpp and Ollama and tells what they held."""

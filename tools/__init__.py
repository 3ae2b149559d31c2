"""Programs that make files of this repository, or check them: ``python -m tools.NAME``."""

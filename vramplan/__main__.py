"""``python -m vramplan`` is the command line."""

from __future__ import annotations

from vramplan.cli import start

if __name__ == "__main__":
    start()

"""The errors a person may meet, each with its exit code.

    VramplanError                  1 line for a person; exit code 2
    ├── UsageError                 a wrong argument or setting
    ├── CatalogError               a wrong YAML file: file:line:column and key path
    ├── TapeError                  a tape that is damaged, foreign or does not cover the settings
    ├── RecordingError             a recording that does not reproduce what the code did
    ├── SourceError                a model file, folder or store that cannot be read
    ├── MeasurementError           a measured run that cannot be read or does not hold together
    └── MissingError               nothing to measure or record with; exit code 3

Only ``cli.main`` catches them.
"""

from __future__ import annotations

from collections.abc import Iterable


class VramplanError(Exception):
    """What was wrong and where, in one line; `hint` says what to do next."""

    exit_code = 2

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(VramplanError):
    """An argument, target, card or setting that cannot be used."""


class CatalogError(VramplanError):
    """A catalogue file that does not say what it must; the message starts with file:line:column."""


class TapeError(VramplanError):
    """A tape that cannot be read, or that does not hold for the settings asked for."""


class OutsideError(TapeError):
    """A tape does not hold at the settings that are asked for: nobody recorded them."""


class RecordingError(VramplanError):
    """A recording whose events the fitted tape does not reproduce exactly."""


class MeasurementError(VramplanError):
    """A file of a measured run, or of a driver's output, that does not say what it must."""


class SourceError(VramplanError):
    """A model file, a folder or a store that does not say what it must."""


class MissingError(VramplanError):
    """No GPU, no driver, or an extra that is not installed."""

    exit_code = 3


def did_you_mean(word: str, known: Iterable[str], *, likeness: float = 0.5) -> str | None:
    """Return ``did you mean 'x'?`` for the nearest of `known`, or None when nothing is near.

    `likeness` is how near it must be, 0 to 1.
    """
    import difflib  # only a mistake needs it

    near = difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=likeness)
    return f"did you mean {near[0]!r}?" if near else None

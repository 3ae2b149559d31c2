"""How many ways a regular expression may be tried at one place of a text, before it is tried.

Python's `re` goes back and tries another way, so that a short pattern can take for ever. What is
counted is an upper bound: alternatives add up, parts in a row multiply, a repeat stands for as many
ways as a text is long. Read is what ECMAScript's grammar has (std::regex, which llama.cpp uses).
"""

from __future__ import annotations

from vramplan.quick_dataclass import dataclass

#: ggml's names of tensors have room for so many characters (GGML_MAX_NAME)
TEXT_LENGTH = 64
#: three repeats of whatever comes, and a handful of alternatives
MOST_WAYS = 1_000_000


class TooManyWaysError(ValueError):
    """A pattern that could take for ever, or is not in the grammar."""


def check_pattern(pattern: str) -> None:
    """Raise TooManyWaysError for a pattern that may be tried in more than `MOST_WAYS` ways.

    It must be one that `re` compiles. A repeat at its beginning or end costs nothing in a search.
    """
    reader = _Reader(pattern.removeprefix(".*").removesuffix(".*"))
    ways = reader.alternatives()
    if ways > MOST_WAYS:
        raise TooManyWaysError("it has too many repeats and alternatives to be tried on every name")


@dataclass(slots=True)
class _Reader:
    """A pattern being read, from `at` on."""

    text: str
    at: int = 0

    def _next(self) -> str:
        return self.text[self.at : self.at + 1]

    def alternatives(self) -> int:
        """Return the ways of everything up to the end of a group, or of the pattern."""
        total, ways = 0, 1
        while self.at < len(self.text) and self._next() != ")":
            if self._next() == "|":
                self.at += 1
                total, ways = total + ways, 1
            else:
                ways = min(ways * self._repeated(), MOST_WAYS + 1)
        return total + ways

    def _repeated(self) -> int:
        ways, is_one = self._atom()
        sign = self._next()
        if sign not in {"*", "+", "?", "{"} or not sign:
            return ways
        count = 2
        if sign == "{":
            end = self.text.find("}", self.at)
            bounds = self.text[self.at + 1 : end if end > 0 else None]
            least, comma, most = bounds.partition(",")
            if not comma:
                count = 1
            elif most.isdecimal() and least.isdecimal():
                count = min(int(most) - int(least), TEXT_LENGTH) + 1
            else:
                count = TEXT_LENGTH
            self.at = end if end > 0 else len(self.text)
        elif sign != "?":
            count = TEXT_LENGTH
        self.at += 1
        if self._next() and self._next() in "?+":  # as few, or nothing given back
            self.at += 1
        if not is_one and sign != "?":
            raise TooManyWaysError("a group in it is repeated: repeat single characters")
        return ways * count

    def _atom(self) -> tuple[int, bool]:
        """Return the ways of a character, a class or a group, and whether it is one character."""
        sign = self._next()
        self.at += 1
        if sign == "\\":
            if self._next() in set("123456789"):
                raise TooManyWaysError("it refers back to a group")
            self.at += 1
        elif sign == "[":
            self.at += self._next() == "^"
            self.at += self._next() == "]"
            while self.at < len(self.text) and self._next() != "]":
                self.at += 2 if self._next() == "\\" else 1
            self.at += 1
        elif sign == "(":
            if self._next() == "?":
                if self.text[self.at : self.at + 2] not in {"?:", "?=", "?!"}:
                    raise TooManyWaysError("its (? is not in ECMAScript's grammar")
                self.at += 2
            ways = self.alternatives()
            self.at += 1
            return ways, False
        return 1, True

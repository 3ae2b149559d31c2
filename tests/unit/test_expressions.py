"""Size expressions: what they give, and the refusal of anything but plain arithmetic."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vramplan.engines.torch.tape.expressions import (
    LARGEST,
    check_expression,
    compile_expressions,
    derive,
    evaluate,
    evaluate_all,
)
from vramplan.errors import TapeError

# -- what they give ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5120*n*h1*w1", 5120 * 2 * 33 * 41),
        ("(h1+1)//2", 17),
        ("h1%8", 1),
        ("-n+3", 1),
        ("steps+(steps>1)", 51),
        ("min(h1,w1,40)", 33),
        ("max(n-5, 0)", 0),
        ("h1<=64 and w1<=64", 1),
        ("not (n==2)", 0),
        ("1 < n <= 2", 1),
        ("42", 42),
    ],
)
def test_values(text: str, value: int) -> None:
    assert evaluate(text, {"n": 2, "h1": 33, "w1": 41, "steps": 50}) == value


def test_several_at_once_in_their_order() -> None:
    code = compile_expressions(["n", "n*n", "7"])
    assert evaluate_all(code, {"n": 3}) == (3, 9, 7)
    assert evaluate_all(compile_expressions([]), {}) == ()


def test_later_definitions_use_earlier_ones() -> None:
    assert derive({"h1": "(h+1)//2", "h2": "(h1+1)//2"}, {"h": 65}) == {"h": 65, "h1": 33, "h2": 17}


def test_names_are_dimensions_and_not_functions() -> None:
    assert check_expression("max(n, 2*h1) + min(w, 3)") == {"n", "h1", "w"}
    assert check_expression("12") == frozenset()


# -- the refusal -------------------------------------------------------------------------------

HOSTILE = [
    "",
    " ",
    "__import__",
    "_hidden",
    "n.real",
    "n[0]",
    "'n'",
    "f'n'",
    "n**2",
    "n<<60",
    "n/2",
    "n:=1",
    "lambda: n",
    "(n for n in n)",
    "max(x for x in n)",
    "max(*n, 1)",
    "max(n, key=n)",
    "n if n else n",
    "()",
    "(1, 2)*999999999",
    "1, 2",
    "max",
    "max(n)",
    "max(max, 1)",
    "n(1)",
    "open(n, 1)",
    "print(1, 2)",
    "True",
    "None",
    "1e9",
    "0x10",
    "1_000",
    "1j",
    "1if 2else 3",
    "n is n",
    "n in n",
    "n n",
    "n\n+1",
    "n#1",
    "n+",
    "ｎ+1",
    "9" * 30,
    "x" * 33,
    "n+" * 300 + "n",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_anything_else_is_refused_before_it_is_compiled(text: str) -> None:
    with pytest.raises(TapeError):
        compile_expressions([text])


def test_nesting_to_the_longest_text_is_read_or_refused() -> None:
    assert evaluate("-" * 399 + "1", {}) == -1
    with pytest.raises(TapeError):
        check_expression("(" * 199 + "1" + ")" * 199 + "+")


@given(st.text(st.sampled_from("nhw 01+-*/%()<>=!,maxinotrd_.[]'\"\\:\n"), max_size=40))
@settings(max_examples=300)
def test_any_text_is_a_number_or_one_error(text: str) -> None:
    try:
        value = evaluate(text, {"n": 3, "h": 5, "w": 7})
    except TapeError:
        return
    assert abs(value) <= LARGEST


# -- at hostile dimensions ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "dims"),
    [
        ("1//n", {"n": 0}),
        ("1%n", {"n": 0}),
        ("missing", {"n": 1}),
        ("*".join(["n"] * 100), {"n": 1 << 40}),
        ("-n*n", {"n": 1 << 40}),
    ],
)
def test_what_has_no_reasonable_value_is_one_error(text: str, dims: dict[str, int]) -> None:
    with pytest.raises(TapeError, match=r"expression in the tape|out of range"):
        evaluate(text, dims)


@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_the_same_as_python(n: int, h: int) -> None:
    text = "3*n*h+(n+h)//2-min(n,h)%7"
    assert evaluate(text, {"n": n, "h": h}) == 3 * n * h + (n + h) // 2 - min(n, h) % 7


@pytest.mark.parametrize("text", ["n*n*n", "-n*n*n"])
def test_a_size_out_of_range_is_refused_beside_one_that_is_not(text: str) -> None:
    code = compile_expressions(["n", text])
    assert evaluate_all(code, {"n": 3})
    with pytest.raises(TapeError, match="out of range"):
        evaluate_all(code, {"n": 1 << 30})


def test_the_largest_size_is_a_size() -> None:
    code = compile_expressions(["n", "-n"])
    assert evaluate_all(code, {"n": LARGEST}) == (LARGEST, -LARGEST)
    with pytest.raises(TapeError, match="out of range"):
        evaluate_all(code, {"n": LARGEST + 1})

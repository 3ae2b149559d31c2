"""The values of an axis: lists and ranges as text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vramplan.catalog.axes import read_axis, read_axis_assignment
from vramplan.errors import UsageError
from vramplan.known_settings import SETTING_HELP


@pytest.mark.parametrize(
    ("key", "text", "values"),
    [
        ("batch", "1", (1,)),
        ("batch", "1..4", (1, 2, 3, 4)),
        ("batch", "1..8:3", (1, 4, 7)),
        ("batch", "4,1..3, 2", (4, 1, 2, 3)),
        ("batch", "3..3", (3,)),
        ("image", "512,512x512,768x512", ((512, 512), (768, 512))),
        ("image", "512..768:128", ((512, 512), (640, 640), (768, 768))),
        ("dtype", "float16,bf16", ("fp16", "bf16")),
        ("guidance", "1,7.5", (1.0, 7.5)),
        ("context", "auto,2048..4096:2048", ("auto", 2048, 4096)),
        ("vae_tiling", "on,off", ("on", "off")),
    ],
)
def test_what_text_stands_for(key, text, values) -> None:
    assert read_axis(key, text) == values
    assert read_axis_assignment(f" {key} = {text} ") == (key, values)


@pytest.mark.parametrize(
    "text", ["", ",", "1,", "..", "1..", "..2", "1...2", "1..2..3", "2..1", "1..2:0", "1..2:x", "a"]
)
def test_what_is_no_axis(text) -> None:
    with pytest.raises(UsageError):
        read_axis("batch", text)


@given(st.sampled_from(sorted(SETTING_HELP)), st.text("0123456789.,:x-autofpl ", max_size=20))
def test_any_text_is_read_or_refused_in_bounds(key, text) -> None:
    try:
        values = read_axis(key, text)
    except UsageError:
        return
    assert 0 < len(values) == len(set(values)) <= 100_000

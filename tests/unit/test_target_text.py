"""A TARGET and the settings in its brackets."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vramplan.catalog.axes import read_axis_assignment
from vramplan.catalog.target_text import LONGEST, Target, read_target, split_target
from vramplan.errors import UsageError
from vramplan.settings import write_target


@pytest.mark.parametrize(
    ("text", "name", "settings"),
    [
        ("sd15", "sd15", {}),
        ("llava:7b", "llava:7b", {}),
        ("sd15[offload=model]", "sd15", {"offload": "model"}),
        ("sd15[image=768, batch = 2]", "sd15", {"image": (768, 768), "batch": 2}),
        ("hf:org/name:x.gguf[context=16k]", "hf:org/name:x.gguf", {"context": 16384}),
        ("x[1].gguf", "x[1].gguf", {}),
        ("x[1].gguf[context=512]", "x[1].gguf", {"context": 512}),
        ("two\nlines", "two\nlines", {}),
    ],
)
def test_what_stands_in_brackets_is_the_targets_own(text, name, settings) -> None:
    assert read_target(text) == Target(text=name, settings=settings)


def test_patterns_have_brackets_too() -> None:
    text = r"x.gguf[override_tensor=blk\.[0-9]+\.ffn_.*=CPU,context=4096]"
    assert read_target(text).settings == {
        "override_tensor": r"blk\.[0-9]+\.ffn_.*=CPU",
        "context": 4096,
    }


def test_a_sweeps_settings_may_be_ranges() -> None:
    found = split_target("sd15[batch=1..3,image=512]", read_axis_assignment)
    assert found == ("sd15", {"batch": (1, 2, 3), "image": ((512, 512),)})


def test_what_lies_here_under_such_a_name_is_meant(tmp_path: Path) -> None:
    folder = tmp_path / "model[batch=2]"
    assert read_target(str(folder)).settings == {"batch": 2}
    folder.mkdir()
    assert read_target(str(folder)) == Target(text=str(folder))


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("sd15[batch=2", "'sd15[batch=2': the bracket is not closed", "'sd15[batch=2]'"),
        ("sd15[batch=2]]", "a bracket is closed that is not open", "'sd15[batch=2][batch=2]'"),
        ("sd15]", "'sd15]': a bracket is closed", "'sd15[batch=2]'"),
        ("sd15[]", "no setting is in the brackets", "leave the brackets out"),
        ("sd15[ ]", "no setting is in the brackets", "leave the brackets out"),
        ("[batch=2]", "nothing stands before the bracket", "'sd15[batch=2]'"),
        ("sd15[bacth=2]", "sd15: unknown setting 'bacth'", "did you mean 'batch'?"),
        ("sd15[batch]", "sd15: not a setting: 'batch'", "write key=value"),
        ("sd15[batch=2,]", "sd15: not a setting: ''", "write key=value"),
        ("sd15[batch=0]", "sd15: batch 0: must be at least 1", ""),
        ("sd15[batch=2,batch=2]", "sd15: batch stands twice", ""),
        ("x" * LONGEST + "[batch=2]", "is longer than 16,384", ""),
    ],
)
def test_mistakes_name_the_target(text: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_target(text)
    assert message in str(caught.value)
    assert hint in (caught.value.hint or "")


@settings(max_examples=60)
@given(st.text(max_size=40) | st.text(alphabet="ab[]{}(),=batch2", max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Never another error, and what is read says the same again."""
    try:
        found = read_target(text)
    except UsageError:
        return
    again = read_target(write_target(found.text, found.settings))
    assert again.settings == found.settings

"""YAML: what words stay words, what is refused, and where messages point."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from vramplan.catalog import yaml_reader
from vramplan.catalog.yaml_reader import LARGEST_FILE_BYTES, Plain, parse_yaml, read_yaml
from vramplan.errors import CatalogError


@pytest.fixture(params=["CSafeLoader", "SafeLoader"], autouse=True)
def _each_parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run every test with libyaml and with PyYAML's own parser, which has no C."""
    monkeypatch.setattr(yaml_reader, "_LOADER", getattr(yaml, request.param))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"),
        ("off", "off"),
        ("yes", "yes"),
        ("No", "No"),
        ("12:30", "12:30"),
        ("010", "010"),
        ("1_000", "1_000"),
        ("0x1F", "0x1F"),
        ("2024-01-01", "2024-01-01"),
        (".inf", ".inf"),
        ("1e999", "1e999"),
        ("<<", "<<"),
        ("512x512", "512x512"),
        ("'8.6'", "8.6"),
        ('"true"', "true"),
        ("1e6", 1_000_000.0),
        ("1e-05", 1e-05),
        ("0.5", 0.5),
        (".5", 0.5),
        ("12", 12),
        ("-3", -3),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("null", None),
    ],
)
def test_plain_words_mean_what_they_look_like(text: str, value: Plain) -> None:
    data = parse_yaml(f"key: {text}\n", "f.yaml").data
    assert data == {"key": value}
    assert isinstance(data, dict)
    assert type(data["key"]) is type(value)


letters = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cn", "Cs", "Zl", "Zp")), max_size=8
)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(10**15), 10**15) | st.floats(0, 1e9) | letters,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(letters, inner, max_size=3),
        max_leaves=8,
    )
)
def test_json_is_read_as_what_it_says(value: Plain) -> None:
    text = json.dumps({"key": value}, ensure_ascii=False)
    assert parse_yaml(text, "f.yaml").data == {"key": value}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x 1\nb: *x\n", "f.yaml:1:4: anchors and aliases are not allowed"),
        ("a: *x\n", "f.yaml:1:4: anchors and aliases are not allowed"),
        ("&x a: 1\n", "f.yaml:1:1: anchors and aliases are not allowed"),
        ("a: 1\nb:\n  c: 1\n  c: 2\n", "f.yaml:4:3: the key 'c' appears twice"),
        ("a: !!python/name:os.system x\n", "f.yaml:1:4: the tag"),
        ("a: !include x\n", "f.yaml:1:4: the tag '!include' is not allowed"),
        ("? [a]\n: 1\n", "f.yaml:1:3: a key must be a word"),
        ("", "f.yaml:1:1: the file is empty"),
        ("# only a comment\n", "f.yaml:1:1: the file is empty"),
        ("~\n", "f.yaml:1:1: the file is empty"),
        ("a: 1\n---\nb: 2\n", "f.yaml:2:1: only one document is allowed"),
        ("a: [1, 2\nb: 3\n", "not YAML"),
        ("a: b: c\n", "f.yaml:1:5: not YAML"),
        ("a:\n\t- 1\n", "f.yaml:2:1: not YAML"),
        ("a: 1\nb: \x01\n", "f.yaml:2:1: not YAML: the character U+0001 is not allowed"),
        ("a: " + "[" * 40 + "]" * 40, "nested more than 24 deep"),
    ],
)
def test_cleverness_and_mistakes_are_refused_where_they_stand(text: str, message: str) -> None:
    with pytest.raises(CatalogError) as caught:
        parse_yaml(text, "f.yaml")
    assert message in str(caught.value)


def test_a_duplicate_key_names_the_first() -> None:
    with pytest.raises(CatalogError) as caught:
        parse_yaml("a: 1\nb: 2\na: 3\n", "f.yaml")
    assert caught.value.hint == "it stands first in line 1"


def test_billion_laughs_stay_a_few_bytes() -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40)]
    with pytest.raises(CatalogError, match="anchors and aliases"):
        parse_yaml("\n".join(lines), "f.yaml")


def test_errors_name_the_dotted_path_and_the_place() -> None:
    document = parse_yaml("components:\n  - {name: unet, config: {dtype: fp17}}\n  - 3\n", "f.yaml")
    where = ("components", 0, "config", "dtype")
    assert str(document.error(where, "unknown")) == (
        "f.yaml:2:34: components.unet.config.dtype: unknown"
    )
    assert str(document.error(where, "no", at_key=True)).startswith("f.yaml:2:27: ")
    assert str(document.error(("components", 1), "no")) == "f.yaml:3:5: components[1]: no"
    assert str(document.error(("components", 0, "class"), "missing")).startswith("f.yaml:2:5: ")
    assert str(document.error((), "wrong")) == "f.yaml:1:1: wrong"


def test_files_that_cannot_be_read_say_so(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="cannot be read: No such file"):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(CatalogError, match="cannot be read: Is a directory"):
        read_yaml(tmp_path)
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("a: 1\nb: größe\n".encode("latin-1"))
    with pytest.raises(CatalogError, match=r"latin\.yaml:2:1: not UTF-8 text"):
        read_yaml(latin)
    large = tmp_path / "large.yaml"
    large.write_text("a: " + "x" * LARGEST_FILE_BYTES)
    with pytest.raises(CatalogError, match="larger than 256 KiB"):
        read_yaml(large)


def test_a_byte_order_mark_is_no_character(tmp_path: Path) -> None:
    file = tmp_path / "bom.yaml"
    file.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read_yaml(file).data == {"a": 1}


@given(st.text(max_size=60))
def test_any_text_is_data_or_a_catalogue_error(text: str) -> None:
    message = "f.yaml:"
    try:
        parse_yaml(text, "f.yaml")
    except CatalogError as problem:
        message = str(problem)
    assert message.startswith("f.yaml:")

"""What can be turned on the page: asked from the settings and the catalogue, never listed twice."""

from __future__ import annotations

import pytest

from vramplan.ask.knobs import find_knobs
from vramplan.ask.library import open_target
from vramplan.ask.targets import open_catalog
from vramplan.errors import UsageError
from vramplan.known_settings import SETTING_HELP, form_of
from vramplan.model import Job
from vramplan.setting_values import DTYPES
from vramplan.settings import check_setting, format_setting, parse_setting

NAMES = list(open_catalog().pipelines)


def test_every_setting_has_a_form_that_it_keeps() -> None:
    for key in SETTING_HELP:
        form = form_of(key)
        assert form.kind in {"choice", "size", "count", "number", "files", "text"}
        assert form.words or form.kind != "choice"
        for word in form.words:
            assert format_setting(key, parse_setting(key, word)) == word


def test_a_choice_refuses_every_other_word() -> None:
    assert form_of("dtype").words == DTYPES
    with pytest.raises(UsageError, match="unknown dtype"):
        parse_setting("dtype", "fp17")


@pytest.mark.parametrize("name", NAMES)
def test_a_model_takes_every_value_that_a_knob_offers(name: str) -> None:
    job = open_target(name)
    for knob in find_knobs(job):
        assert knob.value == knob.default == format_setting(knob.key, job.settings[knob.key])
        for text in {*knob.stops, *(knob.words if knob.kind == "choice" else ())}:
            check_setting(job.pipeline, knob.key, parse_setting(knob.key, text))
        if knob.stops:
            assert knob.value in knob.stops
            assert len(knob.stops) == len(set(knob.stops)) <= 100


def test_stops_rise_and_keep_an_image_in_its_shape() -> None:
    job = open_target("sd15", image="768x512")
    image = next(knob for knob in find_knobs(job) if knob.key == "image")
    sizes = [tuple(map(int, stop.split("x"))) for stop in image.stops]
    assert all(width * 2 == height * 3 for width, height in sizes)
    assert sizes == sorted(sizes)
    assert "768x512" in image.stops
    context = next(knob for knob in find_knobs(open_target("llava:7b")) if knob.key == "context")
    counts = [int(stop) for stop in context.stops if stop.isdigit()]
    assert counts == sorted(counts)
    assert counts[-1] == 32768
    assert context.stops[-1] == "auto"


def test_what_names_a_file_is_no_knob() -> None:
    job = open_target("sd15")
    defaults = {**job.pipeline.defaults, "lora": "none"}
    pipeline = type(job.pipeline)(**{**vars_of(job.pipeline), "defaults": defaults})
    assert "lora" not in {
        knob.key for knob in find_knobs(Job(pipeline=pipeline, settings=defaults))
    }


def vars_of(pipeline) -> dict[str, object]:
    return {name: getattr(pipeline, name) for name in type(pipeline).__dataclass_fields__}

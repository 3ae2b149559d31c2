"""Every entry of the catalogue: what it says of its components, held to what others publish."""

from __future__ import annotations

import gzip
import re
from dataclasses import replace

import pytest

from vramplan.catalog import load_catalog, profiles_dir
from vramplan.catalog.pipelines import TORCH_RUNTIMES, Entry
from vramplan.engines.torch.described import describe
from vramplan.engines.torch.open import open_entry
from vramplan.engines.torch.replayed import holds_at
from vramplan.engines.torch.tape_files import look_for_tape, open_tape

CATALOG = load_catalog()
ENTRIES = tuple(CATALOG.pipelines.values())
#: those that say their parameters: their own classes run, and not a sketch of ours
DESCRIBED = [one for one in ENTRIES if one.components() and one.parameters is not None]
FOLDERS = (profiles_dir(),)
_UNITS = {"M": 10**6, "B": 10**9}


def is_said(published: int | str, *counts: int) -> bool:
    """Return whether a figure is one of some counts, to the digits that it has: rounded or cut."""
    if isinstance(published, int):
        return published in counts
    number, unit = published[:-1], published[-1]
    step = _UNITS[unit] / 10 ** len(number.partition(".")[2])
    return any(abs(count - float(number) * _UNITS[unit]) < step for count in counts)


def published_of(entry: Entry) -> dict[str, int | str]:
    """Return what others publish of an entry's components, by their names."""
    return {
        str(one["name"]): one["published"]["parameters"]
        for one in entry.body["components"]  # type: ignore[attr-defined]  # a list, by the schema
        if "published" in one
    }


def test_there_are_as_many_as_people_run() -> None:
    assert len(DESCRIBED) >= 100
    assert len({one.family for one in DESCRIBED}) >= 10
    assert sum(len(one.repositories) for one in DESCRIBED) >= 150


def test_every_entry_says_its_family_its_task_and_its_licence() -> None:
    for one in ENTRIES:
        assert one.family, one.name
        assert one.task, one.name
        assert one.license or one.runtime == "torch", one.name


def test_no_repository_stands_for_two_entries() -> None:
    named = [name.lower() for one in ENTRIES for name in one.repositories]
    assert sorted(named) == sorted(set(named))
    assert set(named) == set(CATALOG.repositories)


def test_no_alias_is_another_entrys_name() -> None:
    names = [name for one in ENTRIES for name in (one.name, *one.aliases)]
    assert sorted(names) == sorted(set(names))


def test_the_largest_component_is_one_whose_parameters_somebody_publishes() -> None:
    for one in DESCRIBED:
        largest = max(one.components(), key=lambda part: part.parameters or 0)
        heavy = {part.name for part in one.components() if part.parameters == largest.parameters}
        if one.name in ("llava-1.5-7b-hf", "hunyuan-dit"):  # the language models of theirs
            continue
        assert heavy & published_of(one).keys(), one.name


def test_what_is_published_is_what_is_said() -> None:
    """The figures that count buffers too are held when the class is built, below."""
    buffers = {"sd3.5-medium", "flux2-vae", "flux2-dev", "flux2-klein-4b", "flux2-klein-9b"}
    buffers |= {"ltx-video-vae", "ltx-video-0.9.7"}
    for one in DESCRIBED:
        said = published_of(one)
        for part in one.components():
            if part.name in said and one.name not in buffers and one.name != "mochi-1":
                assert is_said(said[part.name], part.parameters or 0), (one.name, part.name)


def test_a_figure_is_held_to_the_digits_it_has() -> None:
    assert is_said("12B", 11_901_408_320)
    assert is_said("865M", 865_910_724)
    assert not is_said("864M", 865_910_724)
    assert not is_said("1.3B", 1_418_996_800)
    assert not is_said(11_901_408_321, 11_901_408_320)


@pytest.mark.parametrize("name", ["flux1-dev", "qwen3-0.6b", "wan2.1-t2v-1.3b", "dinov2-base"])
def test_without_a_tape_its_parameters_are_counted(name: str) -> None:
    entry = CATALOG.pipeline(name)
    pipeline = describe(open_entry(entry, FOLDERS), entry)
    assert pipeline.counted is not None
    assert sum(part.parameters for part in pipeline.counted.parts) == entry.parameters
    assert (pipeline.counted.decoder is not None) is ("image" in entry.defaults)
    assert (pipeline.counted.language is not None) is ("new_tokens" in entry.defaults)


def test_a_t5_keeps_a_third_of_it_in_fp32_in_fp16() -> None:
    entry = CATALOG.pipeline("flux1-dev")
    pipeline = describe(open_entry(entry, FOLDERS), entry)
    assert pipeline.counted is not None
    t5 = next(part for part in pipeline.counted.parts if part.name == "text_encoder_2")
    assert t5.bytes_in("bf16") == 2 * 4_762_310_656
    assert t5.bytes_in("fp16") == 2 * (4_762_310_656 + 24 * 4096 * 10240)


def test_a_tape_has_the_parameters_that_its_entry_says() -> None:
    held = 0
    for one in DESCRIBED:
        path = profiles_dir() / "tapes" / f"{one.text('tape') or one.name}.json"
        packed = path.with_suffix(".json.gz")
        if packed.is_file():
            text = gzip.decompress(packed.read_bytes()).decode()
        elif path.is_file():
            text = path.read_text(encoding="utf-8")
        else:
            continue
        # the table alone: reading a hundred tapes whole takes longer than this test may
        counts = set(map(int, re.findall(r'"parameters":(\d+)', text)))
        for part in one.components():
            assert part.parameters in counts, (one.name, part.name)
            held += 1
    assert held > 20


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")  # of the libraries' own constructors
@pytest.mark.parametrize("family", sorted({one.family for one in DESCRIBED}))
def test_every_class_has_the_parameters_that_are_said_and_published(family: str) -> None:
    """Each component, built on `meta` from its config; what is tied is counted once."""
    torch = pytest.importorskip("torch")
    from vramplan.engines.torch.record.saved.build import SavedPart, build_part

    built: dict[str, tuple[int, ...]] = {}
    for one in (one for one in DESCRIBED if one.family == family):
        assert one.runtime in TORCH_RUNTIMES
        said = published_of(one)
        for part in one.components():
            key = f"{part.class_path} {part.config}"
            if key not in built:
                made = SavedPart(
                    name=part.name,
                    class_path=part.class_path,
                    config=part.config,
                    elements=part.parameters or 0,
                )
                module = build_part(made, torch.float32)
                floats = (t for t in module.state_dict().values() if t.is_floating_point())
                decoder = getattr(module, "decoder", None) if one.name == "mochi-1" else None
                built[key] = (
                    sum(parameter.numel() for parameter in module.parameters()),
                    sum(tensor.numel() for tensor in floats),
                    *([sum(p.numel() for p in decoder.parameters())] if decoder else []),
                )
            assert built[key][0] == part.parameters, (one.name, part.name)
            if part.name in said:
                assert is_said(said[part.name], *built[key]), (one.name, part.name)


@pytest.mark.parametrize("mode", ["encode", "decode"])
@pytest.mark.parametrize("image", [(512, 512), (1024, 768)])
def test_any_classes_own_code_and_a_recipe_of_ours_record_the_same(
    mode: str, image: tuple[int, int]
) -> None:
    """FLUX.1's autoencoder is Stable Diffusion's, but for latents of 16 channels instead of 4."""
    from vramplan.engines.door import engine_of
    from vramplan.model import Job
    from vramplan.settings import resolve_settings

    peaks = []
    for name in ("flux1-vae", "sdxl-vae"):
        pipeline = open_entry(CATALOG.pipeline(name), FOLDERS)
        chosen = {"mode": mode, "image": image, "dtype": "bf16"}
        job = Job(pipeline=pipeline, settings=resolve_settings(pipeline, chosen))
        card = CATALOG.card("rtx-3090").candidates[0]
        peaks.append(engine_of(pipeline).estimate(job, card).peak.allocated_bytes)
    assert peaks[0] == pytest.approx(peaks[1], rel=0.002)


def test_a_tape_holds_at_its_defaults_where_there_are_fused_kernels() -> None:
    """What is asked most is answered by the tape without looking into it first."""
    for entry in ENTRIES:
        pipeline = open_entry(entry, FOLDERS) if entry.runtime in TORCH_RUNTIMES else None
        if pipeline is None or pipeline.tape_within is None:
            continue
        taped = replace(pipeline, tape=pipeline.tape_within, tape_within=None, counted=None)
        path = look_for_tape(taped)
        if path is not None:
            for capability in ("8.0", "8.6", "8.9", "9.0", "10.0", "12.0"):
                assert holds_at(taped, taped.defaults, capability, open_tape(path)), entry.name

"""The pipeline that a denoiser's own file belongs to, and how its weights are held then.

A file of eleven thousand million parameters to the unit is FLUX.1 dev's transformer, whatever its
tensors are called. It is planned with the rest of that pipeline, as `from_single_file` and
diffusers' pipeline would load it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from vramplan.catalog.pipelines import TORCH_RUNTIMES, Entry
from vramplan.engines.torch.diffusers_offload import DENOISERS
from vramplan.engines.torch.open import open_entry
from vramplan.engines.torch.pipeline import TorchPipeline
from vramplan.engines.torch.same_model import likeness
from vramplan.model import ComponentSpec
from vramplan.quick_dataclass import replace
from vramplan.setting_values import QUANTIZATIONS
from vramplan.sources.denoiser_file import DenoiserFile
from vramplan.units import format_size

_SETTING = "quantization"
_FLOATS = {"F16": "fp16", "BF16": "bf16", "F32": "fp32"}


def open_denoiser(
    file: DenoiserFile,
    entries: Iterable[Entry],
    folders: Sequence[Path],
    remark: Callable[[str], None],
) -> TorchPipeline | None:
    """Return the catalogue's pipeline with the denoiser of a file, and remark which it is.

    Several have the same one, such as a model and the one that edits with it: the file's name
    decides. None where no entry's denoiser has as many parameters.
    """
    found: dict[str, tuple[Entry, ComponentSpec]] = {}
    for entry in entries:
        if entry.runtime not in TORCH_RUNTIMES:
            continue
        for spec in entry.components():
            if spec.name in DENOISERS and _is_of(file, spec):  # of two alike the first
                found.setdefault(entry.name, (entry, spec))
    if not found:
        return None
    name = max(found, key=lambda one: (likeness(one, file.stem), -len(one)))
    entry, spec = found[name]
    pipeline = open_entry(entry, folders)
    alike = [one.name for one in pipeline.components if one.name in DENOISERS]
    others = [other for other in found if other != name]
    called = f" (or {', '.join(others)}: name that instead)" if others else ""
    remark(
        f"{file.place}: the {spec.name} of the catalogue's {name}{called}, by its "
        f"{spec.parameters or 0:,} parameters; planned with the rest of that pipeline"
        f"{_held(file, alike)}"
    )
    defaults = dict(pipeline.defaults)
    way = f"gguf-{file.type_name.lower()}"
    if _SETTING in defaults and way in QUANTIZATIONS:
        defaults[_SETTING] = ";".join(f"{one}:{way}" for one in alike)
    return replace(
        pipeline,
        name=file.stem,
        title=f"{pipeline.title} with {Path(file.place).name}",
        defaults=defaults,
        has_own_defaults=True,
        source=file.place,
        aliases=(),
    )


def _is_of(file: DenoiserFile, spec: ComponentSpec) -> bool:
    """Return whether a file is of a component, by its class where it is told, and parameters."""
    if file.class_name and file.class_name != spec.class_path.rpartition(".")[2]:
        return False
    return spec.parameters in (file.elements, file.elements - file.positions)


def _held(file: DenoiserFile, components: Sequence[str]) -> str:
    """Return how the file holds its weights, and what diffusers makes of that."""
    size = format_size(file.size_bytes)
    if file.type_name in _FLOATS:
        return ""
    if f"gguf-{file.type_name.lower()}" in QUANTIZATIONS:
        return f"; {size} in the file, most of it {file.type_name}"
    if file.type_name.startswith("F8"):
        ways = ";".join(f"{one}:fp8-layerwise" for one in components)
        told = f"'{_SETTING}={ways}'" if len(components) > 1 else f"{_SETTING}={ways}"
        keep = f"--set {told} keeps them in fp8"
        return f"; {size} of fp8 in the file, which from_single_file casts ({keep})"
    return f"; {size} of {file.type_name} in the file, which is cast where it is loaded"

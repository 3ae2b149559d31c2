"""Writes profiles/modules: the layers of each component in the catalogue, by their own classes.

    python -m tools.module_lists             every pipeline that has none yet
    python -m tools.module_lists NAME ...    these, anew
    python -m tools.module_lists --check NAME ...   write nothing; fail where a list differs

What is quantised, cast or moved in groups goes by a layer's class, name and shape, which neither a
tape nor a catalogue's entry has. Each class is built on `meta`, and the libraries themselves are
asked which of its layers they leave alone. Needs diffusers and transformers. What of each list is
linear is told beside them, so that whoever asks only that need not read it.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vramplan.engines.torch.module_list import LINEAR_FILE, shipped_modules
from vramplan.engines.torch.quantised import linear_in_all
from vramplan.known_results import shipped_text

if TYPE_CHECKING:
    import torch

    from vramplan.engines.torch.pipeline import TorchPipeline

FOLDER = Path(__file__).parents[1] / "profiles" / "modules"
Value = Any


def describe_component(module: torch.nn.Module) -> dict[str, Value]:
    """Return a component's layers as `vramplan.engines.torch.module_list` reads them."""
    from vramplan.engines.torch.record.routines import module_tensors

    names = {id(one): name for name, one in module.named_modules()}
    owners: dict[int, torch.nn.Module] = {}
    for one in module.modules():
        for tensor in (*one.parameters(recurse=False), *one.buffers(recurse=False)):
            owners.setdefault(id(tensor), one)
    rows: list[list[Value]] = []
    for tensors in module_tensors(module):
        owner = owners[id(tensors[0])]
        sizes = [_size(tensor) for tensor in tensors]
        rows.append([names[id(owner)], *_kind(owner), sizes])
    lists, inner = _blocks(module, "")
    return {
        "is_transformers": type(module).__module__.startswith("transformers."),
        "modules": rows,
        "kept": sorted(_kept(module)),
        "uncast": sorted(_uncast(module)),
        "lists": lists,
        "inner": inner,
    }


def _size(tensor: torch.Tensor) -> Value:
    if tensor.is_floating_point():
        return int(tensor.numel())
    return f"{tensor.numel() * tensor.element_size()}B"


def _kind(module: torch.nn.Module) -> tuple[str, int]:
    """Return what a layer is to those who change it, and its rows where it is a linear layer."""
    import torch
    from diffusers.hooks._common import _GO_LC_SUPPORTED_PYTORCH_LAYERS
    from transformers.pytorch_utils import Conv1D

    if isinstance(module, Conv1D):
        return "linear", int(module.weight.shape[1])
    if type(module) is torch.nn.Linear or type(module).__name__ == "LoRACompatibleLinear":
        return "linear", int(module.out_features)
    if isinstance(module, _GO_LC_SUPPORTED_PYTORCH_LAYERS):
        return "layer", 0
    return "other", 0


def _kept(module: torch.nn.Module) -> Iterator[str]:
    """Yield the linear layers that a quantiser leaves as they are when nobody says which.

    Sources: transformers, quantizers/base.py, `get_modules_to_not_convert`; diffusers,
    quantizers/bitsandbytes/utils.py, `_replace_with_bnb_linear`, with what a class keeps in fp32.
    """
    is_linear = {name for name, one in module.named_modules() if _kind(one)[0] == "linear"}
    fp32 = list(getattr(module, "_keep_in_fp32_modules", None) or ())
    if type(module).__module__.startswith("transformers."):
        from transformers.quantizers.base import HfQuantizer
        from transformers.quantizers.quantizers_utils import should_convert_module

        patterns = HfQuantizer.get_modules_to_not_convert(module, None, fp32)
        yield from (name for name in is_linear if not should_convert_module(name, patterns))
        return
    for name in is_linear:
        last = name.rpartition(".")[2]
        if last in fp32 or any(f"{key}." in name or key == name for key in fp32):
            yield name


def _uncast(module: torch.nn.Module) -> Iterator[str]:
    """Yield the layers that layerwise casting leaves: diffusers, `enable_layerwise_casting`."""
    from diffusers.hooks.layerwise_casting import DEFAULT_SKIP_MODULES_PATTERN as PATTERNS

    patterns = [
        *PATTERNS,
        *(getattr(module, "_keep_in_fp32_modules", None) or ()),
        *(getattr(module, "_skip_layerwise_casting_patterns", None) or ()),
    ]
    for name, one in module.named_modules():
        if _kind(one)[0] == "other":
            continue
        parents = name.split(".")
        paths = [".".join(parents[:end]) for end in range(1, len(parents) + 1)]
        if any(re.search(pattern, path) for pattern in patterns for path in paths):
            yield name


def _blocks(module: torch.nn.Module, prefix: str) -> tuple[list[str], list[str]]:
    """Return the lists whose blocks group offload moves, and the modules in which it looks again.

    Source: diffusers, hooks/group_offloading.py, `_apply_group_offloading_block_level`.
    """
    import torch

    lists: list[str] = []
    inner: list[str] = []
    looked_in = set(getattr(module, "_group_offload_block_modules", None) or ())
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        if name in looked_in:
            inner.append(path)
            found = _blocks(child, f"{path}.")
            lists += found[0]
            inner += found[1]
        elif isinstance(child, (torch.nn.ModuleList, torch.nn.Sequential)):
            lists.append(path)
    return lists, inner


def describe(pipeline: TorchPipeline) -> str:
    """Return the text of a pipeline's list."""
    import torch

    from vramplan.engines.torch.record.recorder import versions
    from vramplan.engines.torch.record.saved.build import SavedPart, build_part

    components = {}
    for spec in pipeline.components:
        part = SavedPart(
            name=spec.name, class_path=spec.class_path, config=spec.config, elements=None
        )
        components[spec.name] = describe_component(build_part(part, torch.bfloat16))
    body = {"schema": 1, "built_with": versions(), "components": components}
    return json.dumps(body, separators=(",", ":")) + "\n"


def pipelines(names: Sequence[str]) -> Iterator[TorchPipeline]:
    """Yield the catalogue's pipelines of libraries' classes, all or those that are named."""
    from vramplan.catalog.pipelines import TORCH_RUNTIMES, load_pipeline_file
    from vramplan.catalog.search import catalog_files
    from vramplan.catalog.shipped import profiles_dir
    from vramplan.engines.torch.open import open_entry

    for entry in map(load_pipeline_file, catalog_files(profiles_dir())[0]):
        if entry.runtime not in TORCH_RUNTIMES or (names and entry.name not in names):
            continue
        pipeline = open_entry(entry, ())
        if all(not spec.class_path.startswith("torch.nn.") for spec in pipeline.components):
            yield pipeline


def main(arguments: Sequence[str]) -> int:
    """Write the lists, or hold them to what is built now."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--check", action="store_true")
    asked = parser.parse_args(arguments)
    from vramplan.engines.torch.libraries import QUIET

    os.environ.update({**QUIET, "TRANSFORMERS_VERBOSITY": "critical"})
    differing = 0
    FOLDER.mkdir(exist_ok=True)
    for pipeline in pipelines(asked.names):
        path = FOLDER / f"{pipeline.name}.json.gz"
        if not asked.names and not asked.check and path.is_file():
            continue
        data = gzip.compress(describe(pipeline).encode(), 9, mtime=0)
        if asked.check:
            known = gzip.decompress(path.read_bytes()) if path.is_file() else b""
            if known != gzip.decompress(data):
                differing += 1
                print(f"{path}: not what is built now", flush=True)
        else:
            path.write_bytes(data)
            print(f"{pipeline.name}: {len(data):,} bytes", flush=True)
    if not asked.check:
        (FOLDER / LINEAR_FILE).write_text(linear_text(), encoding="utf-8", newline="\n")
    return int(differing > 0)


def linear_text() -> str:
    """Return what the file beside the lists says of each: its linear layers' elements, and all."""
    names = sorted(path.name.removesuffix(".json.gz") for path in FOLDER.glob("*.json.gz"))
    return shipped_text([(name, list(linear_in_all(shipped_modules(name)))) for name in names])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

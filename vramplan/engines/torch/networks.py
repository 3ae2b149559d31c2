"""ControlNets and IP-Adapters beside a pipeline of images: what each holds, and when.

A ControlNet runs before the denoiser in every step, and offload leaves both on the device together.
An IP-Adapter is matrices beside those of the denoiser's attention, a projection with them, and an
encoder of images, which runs once. Each is a file, a folder, a repository of the hub, or a name
whose parameters are known here: tests build the classes and count them. Sources: diffusers 0.42.1,
pipelines/controlnet/pipeline_controlnet.py, pipelines/flux/pipeline_flux_controlnet.py,
loaders/ip_adapter.py, loaders/unet.py and loaders/transformer_flux.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from vramplan.engines.torch.diffusers_offload import DECODER, UNET
from vramplan.engines.torch.module_list import Module, ModuleList
from vramplan.errors import SourceError, UsageError, did_you_mean
from vramplan.model import Band, Origin, Settings
from vramplan.quick_dataclass import dataclass, field, replace
from vramplan.setting_values import files_of
from vramplan.sources.hub_address import REPOSITORY
from vramplan.sources.other_formats import PICKLE_HINT
from vramplan.sources.safetensors import Tensor, read_safetensors

CONTROLNET, IP_ADAPTER, IMAGE_ENCODER = "controlnet", "ip_adapter", "image_encoder"
_SUFFIX, _HUB = ".safetensors", "hf:"
#: families that have both, by what their denoisers' cross-attention is given
SD15, SD21, SDXL, FLUX = "Stable Diffusion 1.5", "Stable Diffusion 2.1", "SDXL", "FLUX.1"
_BY_WIDTH: Mapping[int, str] = {768: SD15, 1024: SD21, 2048: SDXL, 4096: FLUX}
_OTHER = "another family"
_FLUX_BLOCKS, _FLUX_WIDTH = 19, 3072
#: a UNet's channels where its maps are largest
_UNET_WIDTH = 320
#: a module of a network that is known by its parameters alone: its tensors are loaded one by one
_PIECE = 1 << 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A network by its parameters. `config` is what its results' sizes follow from."""

    parameters: int
    config: Mapping[str, object]


_UNET = {"block_out_channels": (320, 640, 1280, 1280), "layers_per_block": 2}
_UNET_XL = {"block_out_channels": (320, 640, 1280), "layers_per_block": 2}
#: what a UNet's ControlNet is trained for decides nothing about its size
_KINDS = (
    "canny", "depth", "openpose", "scribble", "lineart", "softedge", "normal", "seg", "mlsd",
    "tile", "inpaint",
)  # fmt: skip
_OF_UNETS: Mapping[str, Known] = {
    SD15: Known(parameters=361_279_120, config=_UNET),
    SD21: Known(parameters=364_228_240, config=_UNET),
    SDXL: Known(parameters=1_251_014_160, config=_UNET_XL),
}
#: FLUX's, by how many blocks of each kind they copy: InstantX/FLUX.1-dev-Controlnet-Canny; -Union
#: of InstantX and -Union-Pro of Shakker-Labs; the latter's 2.0
_OF_FLUX: Mapping[str, Known] = {
    "canny": Known(parameters=1_791_605_248, config={"num_layers": 5, "num_single_layers": 0}),
    "union": Known(parameters=3_301_956_608, config={"num_layers": 5, "num_single_layers": 10}),
    "union-pro-2.0": Known(
        parameters=2_140_876_800, config={"num_layers": 6, "num_single_layers": 0}
    ),
}
#: repositories of those
_REPOSITORIES: Mapping[str, tuple[str, str]] = {
    "instantx/flux.1-dev-controlnet-canny": (FLUX, "canny"),
    "instantx/flux.1-dev-controlnet-union": (FLUX, "union"),
    "shakker-labs/flux.1-dev-controlnet-union-pro": (FLUX, "union"),
    "shakker-labs/flux.1-dev-controlnet-union-pro-2.0": (FLUX, "union-pro-2.0"),
    "diffusers/controlnet-canny-sdxl-1.0": (SDXL, "canny"),
    "diffusers/controlnet-depth-sdxl-1.0": (SDXL, "depth"),
    **{
        f"lllyasviel/control_{name}": (SD15, kind)
        for name, kind in {
            "v11p_sd15_canny": "canny",
            "v11f1p_sd15_depth": "depth",
            "v11p_sd15_openpose": "openpose",
            "v11p_sd15_scribble": "scribble",
            "v11p_sd15_lineart": "lineart",
            "v11p_sd15_softedge": "softedge",
            "v11p_sd15_normalbae": "normal",
            "v11p_sd15_seg": "seg",
            "v11p_sd15_mlsd": "mlsd",
            "v11f1e_sd15_tile": "tile",
            "v11p_sd15_inpaint": "inpaint",
        }.items()
    },
}

#: encoders of images, their buffers of whole numbers beside them
_VIT_L, _VIT_H, _VIT_G = 303_966_208, 632_076_800, 1_844_907_264
_POSITIONS = "2056B"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Adapter:
    """An IP-Adapter that is known: of which family, its projection's parameters, its encoder's."""

    family: str
    projection: int
    encoder: int


_PLUS_15, _PLUS_XL = 29_918_208, 82_961_664
#: as the files of h94/IP-Adapter and XLabs-AI/flux-ip-adapter are called
_IP_ADAPTERS: Mapping[str, _Adapter] = {
    **dict.fromkeys(
        ("ip-adapter_sd15", "ip-adapter_sd15_light"),
        _Adapter(family=SD15, projection=3_150_336, encoder=_VIT_H),
    ),
    **dict.fromkeys(
        ("ip-adapter-plus_sd15", "ip-adapter-plus-face_sd15"),
        _Adapter(family=SD15, projection=_PLUS_15, encoder=_VIT_H),
    ),
    "ip-adapter-full-face_sd15": _Adapter(family=SD15, projection=2_625_024, encoder=_VIT_H),
    "ip-adapter_sdxl": _Adapter(family=SDXL, projection=10_498_048, encoder=_VIT_G),
    "ip-adapter_sdxl_vit-h": _Adapter(family=SDXL, projection=8_400_896, encoder=_VIT_H),
    **dict.fromkeys(
        ("ip-adapter-plus_sdxl_vit-h", "ip-adapter-plus-face_sdxl_vit-h"),
        _Adapter(family=SDXL, projection=_PLUS_XL, encoder=_VIT_H),
    ),
    "flux-ip-adapter": _Adapter(family=FLUX, projection=12_607_488, encoder=_VIT_L),
}
#: the encoder that a file's projection is made for, by the last side of its first matrix
_BY_PROJECTION: Mapping[str, Mapping[int, int]] = {
    "image_proj.proj.weight": {768: _VIT_L, 1024: _VIT_H, 1280: _VIT_G},
    "image_proj.proj_in.weight": {1280: _VIT_H, 1664: _VIT_G},
    "image_proj.proj.0.weight": {1280: _VIT_H, 1664: _VIT_G},
}


#: of ControlNets' results and the images they are made of, in tenths: low, expected and high. They
#: are live from the first step on; beside them the denoiser's own skips are added to, and blocks of
#: the allocator are cut otherwise. The replays of sd15-controlnet and sdxl-controlnet need 1.2 to 5
#: times as much more than those of sd15 and sdxl, mostly twice (tests/unit/test_networks.py)
_RULE = (10, 20, 40)
_DENOISERS = (UNET, "transformer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A network that settings add, and the component whose time on the device it shares.

    `modules` are its tensors as a tape has them. `config` is a ControlNet's.
    """

    name: str
    beside: str
    parameters: int
    modules: tuple[tuple[int | str, ...], ...]
    source: str
    origin: Origin = Origin.EXACT
    config: Mapping[str, object] = field(default_factory=dict)

    @property
    def is_controlnet(self) -> bool:
        """Return whether it is a ControlNet, which has results of its own."""
        return self.name.startswith(CONTROLNET)

    def bytes_at(self, element_bytes: int) -> int:
        """Return what it takes on the device in its pipeline's dtype."""
        sizes = (size for tensors in self.modules for size in tensors)
        return sum(
            int(size[:-1]) if isinstance(size, str) else size * element_bytes for size in sizes
        )


# ----------------------------------------------------------------------------- which there are
def family_of(lists: Mapping[str, ModuleList]) -> tuple[str, str] | None:
    """Return the denoiser's name, and its family; None for one that neither is known for."""
    if UNET in lists:
        width = next((one.columns for one in lists[UNET].modules if _is_cross(one)), 0)
        return (UNET, _BY_WIDTH[width]) if width in (768, 1024, 2048) else None
    if "transformer" in lists:
        modules = lists["transformer"].modules
        width = next((one.columns for one in modules if one.name == "context_embedder"), 0)
        is_flux = width == 4096 and sum(map(_is_double, modules)) == _FLUX_BLOCKS
        return ("transformer", FLUX) if is_flux else None
    return None


def _is_cross(one: Module) -> bool:
    return one.name.endswith(".attn2.to_k")


def _is_double(one: Module) -> bool:
    return one.name.startswith("transformer_blocks.") and one.name.endswith(".attn.to_k")


def networks_of(settings: Settings, lists: Mapping[str, ModuleList]) -> tuple[Network, ...]:
    """Return the networks that ``controlnet`` and ``ip_adapter`` name.

    Raises UsageError for what is none, or is none for this pipeline; a SourceError is passed on.
    """
    nets, adapters = (files_of(settings.get(key)) for key in (CONTROLNET, IP_ADAPTER))
    found = family_of(lists) if nets or adapters else None
    if found is None:
        if nets or adapters:
            raise UsageError(
                "this pipeline's denoiser takes no ControlNet or IP-Adapter known here"
            )
        return ()
    denoiser, family = found
    made = [_controlnet(text, denoiser, family) for text in nets]
    encoders: dict[int, None] = {}
    for text in adapters:
        network, encoder = _ip_adapter(text, denoiser, family, lists[denoiser])
        made.append(network)
        encoders |= {encoder: None} if encoder else {}
    if len(encoders) > 1:  # a pipeline has one image_encoder
        raise UsageError(
            f"{IP_ADAPTER}: these are for different image encoders",
            hint="a pipeline has one, so that all have to be for that",
        )
    made += [_encoder(size, lists) for size in encoders]
    return tuple(_numbered(made))


def _check_family(key: str, text: str, theirs: str, family: str) -> None:
    if theirs != family:
        raise UsageError(f"{key} {text}: it is for {theirs}, and this pipeline is {family}'s")


def _numbered(networks: Iterable[Network]) -> Iterator[Network]:
    """Yield networks with names of their own: controlnet, controlnet_2."""
    seen: dict[str, int] = {}
    for one in networks:
        count = seen[one.name] = seen.get(one.name, 0) + 1
        yield one if count == 1 else replace(one, name=f"{one.name}_{count}")


def _pieces(parameters: int) -> tuple[tuple[int, ...], ...]:
    whole, rest = divmod(parameters, _PIECE)
    return (*((_PIECE,) for _ in range(whole)), *(((rest,),) if rest else ()))


# ----------------------------------------------------------------------------- ControlNets
def _controlnet(text: str, denoiser: str, family: str) -> Network:
    known = _known_controlnet(text, family)
    if known is not None:
        return Network(
            name=CONTROLNET,
            beside=denoiser,
            parameters=known.parameters,
            modules=_pieces(known.parameters),
            source=f"counted from its class's config, {family}'s {text}",
            config=known.config,
        )
    tensors, config = _read_network(text, family)
    if not any("controlnet" in one.name or "hint" in one.name for one in tensors):
        raise UsageError(f"{CONTROLNET} {text}: its tensors are no ControlNet's")
    theirs = _family_of_tensors(tensors)
    if theirs is not None:
        _check_family(CONTROLNET, text, theirs, family)
    usual = _OF_UNETS[family].config if family in _OF_UNETS else _OF_FLUX["canny"].config
    return Network(
        name=CONTROLNET,
        beside=denoiser,
        parameters=sum(one.elements for one in tensors),
        modules=tuple((one.elements,) for one in tensors),
        source=f"counted from the headers of {text}",
        config={**usual, **{key: config[key] for key in usual if key in config}},
    )


def _known_controlnet(text: str, family: str) -> Known | None:
    """Return a network that has a name here. Raises UsageError for another family's."""
    word = text.lower().removeprefix(_HUB)
    theirs, word = _REPOSITORIES.get(word, (family, word))
    _check_family(CONTROLNET, text, theirs, family)
    if family == FLUX:
        return _OF_FLUX.get(word)
    return _OF_UNETS[family] if word in _KINDS else None


def _read_network(text: str, family: str) -> tuple[tuple[Tensor, ...], Mapping[str, object]]:
    """Return the tensors and the config of a ControlNet in a file, a folder or on the hub."""
    path = Path(text)
    is_here = path.suffix.lower() == _SUFFIX or path.is_dir()
    if not is_here and REPOSITORY.fullmatch(text.removeprefix(_HUB)) is None:
        names = tuple(_OF_FLUX) if family == FLUX else _KINDS
        near = did_you_mean(text, names)
        takes = f"one of {', '.join(names)}, a .safetensors file, a folder, or hf:ORG/NAME"
        raise UsageError(
            f"{CONTROLNET} {text[:80]!r}: no ControlNet for {family}",
            hint=f"{near} it takes {takes}" if near else f"it takes {takes}",
        )
    if not is_here:
        return _from_hub(text if text.startswith(_HUB) else f"{_HUB}{text}")
    try:
        state = path.stat()
    except OSError as problem:
        raise UsageError(f"{CONTROLNET} {path}: {problem.strerror or problem}") from None
    return _from_disk(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=16)
def _from_disk(
    path: Path, _size: int, _changed: int
) -> tuple[tuple[Tensor, ...], Mapping[str, object]]:
    from vramplan.sources.saved_model import LocalFiles, is_saved_folder, read_saved_folder

    if not path.is_dir():
        return read_safetensors(path).tensors, {}
    if not is_saved_folder(path):
        raise UsageError(f"{CONTROLNET} {path}: it has no config.json")
    model = read_saved_folder(LocalFiles(path))
    (part,) = model.parts[:1] or (None,)
    return (part.tensors if part else ()), dict(part.config if part else {})


@lru_cache(maxsize=16)  # a plan asks at every size
def _from_hub(text: str) -> tuple[tuple[Tensor, ...], Mapping[str, object]]:
    from vramplan.sources.hub_folder import read_saved_on_hub

    model = read_saved_on_hub(text)
    if model is None or len(model.parts) != 1:
        raise SourceError(f"{CONTROLNET} {text}: it holds no model with a config of its own")
    return model.parts[0].tensors, dict(model.parts[0].config)


def _family_of_tensors(tensors: Sequence[Tensor]) -> str | None:
    """Return the family that a ControlNet is for, by what its attention is given; None for none."""
    for one in tensors:
        if one.name.endswith(("attn2.to_k.weight", "context_embedder.weight")):
            return _BY_WIDTH.get(one.shape[-1], _OTHER)
    return None


# ----------------------------------------------------------------------------- IP-Adapters
def _ip_adapter(text: str, denoiser: str, family: str, modules: ModuleList) -> tuple[Network, int]:
    """Return an IP-Adapter, and the parameters of the encoder it is for; 0 where none is."""
    word = text.rpartition("/")[2].lower().removesuffix(_SUFFIX)
    path = Path(text)
    known = None if path.is_file() else _IP_ADAPTERS.get(word)
    if known is not None:
        _check_family(IP_ADAPTER, text, known.family, family)
        beside = tuple(_beside_attention(modules, family))
        parameters = known.projection + sum(size for tensors in beside for size in tensors)
        network = Network(
            name=IP_ADAPTER,
            beside=denoiser,
            parameters=parameters,
            modules=(*_pieces(known.projection), *beside),
            source=f"counted from the layers of its denoiser and {word}'s projection",
        )
        return network, known.encoder
    if path.suffix.lower() == ".bin":
        raise UsageError(f"{IP_ADAPTER} {text}: not read", hint=PICKLE_HINT)
    if path.suffix.lower() != _SUFFIX:
        names = [name for name, one in _IP_ADAPTERS.items() if one.family == family]
        near = did_you_mean(word, names)
        takes = f"it takes a .safetensors file, or one of {', '.join(names)}"
        raise UsageError(
            f"{IP_ADAPTER} {text[:80]!r}: no IP-Adapter for {family}",
            hint=f"{near} {takes}" if near else takes,
        )
    return _ip_adapter_in(path, denoiser, family)


def _beside_attention(modules: ModuleList, family: str) -> Iterator[tuple[int, ...]]:
    """Yield the matrices beside each layer of cross-attention, as wide as its own."""
    if family != FLUX:
        yield from (
            (one.rows * one.columns,) for one in modules.modules if _is_cross(one) for _ in "kv"
        )
        return
    (width,) = (one.columns for one in modules.modules if one.name == "context_embedder")
    for one in modules.modules:
        if _is_double(one):  # with biases
            yield from ((one.rows * width, one.rows) for _ in "kv")


def _ip_adapter_in(path: Path, denoiser: str, family: str) -> tuple[Network, int]:
    try:
        state = path.stat()
    except OSError as problem:
        raise UsageError(f"{IP_ADAPTER} {path}: {problem.strerror or problem}") from None
    tensors, _ = _from_disk(path, state.st_size, state.st_mtime_ns)
    shapes = {one.name: one.shape for one in tensors}
    keys = [shape for name, shape in shapes.items() if name.endswith("to_k_ip.weight")]
    if not keys or not any(name.startswith("image_proj.") for name in shapes):
        raise UsageError(f"{IP_ADAPTER} {path}: it has no IP-Adapter's tensors")
    _check_family(IP_ADAPTER, str(path), _BY_WIDTH.get(keys[0][-1], _OTHER), family)
    encoder = next(
        (
            sizes.get(shapes[name][-1], 0)
            for name, sizes in _BY_PROJECTION.items()
            if shapes.get(name)
        ),
        0,
    )
    network = Network(
        name=IP_ADAPTER,
        beside=denoiser,
        parameters=sum(one.elements for one in tensors),
        modules=tuple((one.elements,) for one in tensors),
        source="counted from the header of the adapter's file"
        + ("" if encoder else "; its image encoder is not known, and not counted"),
    )
    return network, encoder


def _encoder(parameters: int, lists: Mapping[str, ModuleList]) -> Network:
    """Return the encoder of images, which shares the text encoder's time on the device."""
    return Network(
        name=IMAGE_ENCODER,
        beside="text_encoder" if "text_encoder" in lists else next(iter(lists)),
        parameters=parameters,
        modules=(*_pieces(parameters), (_POSITIONS,)),
        source="counted from its class's config, the encoder that the adapter is for",
    )


# ----------------------------------------------------------------------------- while it runs
def results_band(
    networks: Sequence[Network], settings: Settings, component: str, element_bytes: int
) -> Band:
    """Return what is live beside a component's own while it runs."""
    if component not in (*_DENOISERS, DECODER):
        return Band.exactly(0)
    size = result_bytes(networks, settings, element_bytes)
    low, expected, high = (size * share // 10 for share in _RULE)
    if component in _DENOISERS:  # in one layer: the adapter's result, and the sum of both
        high += 2 * attended_bytes(networks, settings, element_bytes)
    return Band(low_bytes=low, expected_bytes=expected, high_bytes=high)


def attended_bytes(networks: Sequence[Network], settings: Settings, element_bytes: int) -> int:
    """Return what one layer of attention with an IP-Adapter makes, where images are largest."""
    adapted = [one for one in networks if one.name.startswith(IP_ADAPTER)]
    image = settings.get("image")
    if not adapted or not isinstance(image, tuple):
        return 0
    side, width = (16, _FLUX_WIDTH) if adapted[0].beside == "transformer" else (8, _UNET_WIDTH)
    tokens = (image[0] // side) * (image[1] // side)
    return tokens * width * _copies(settings, adapted[0].beside) * element_bytes


def _copies(settings: Settings, denoiser: str) -> int:
    """Return how many images are denoised at once: twice a batch, where a UNet is guided."""
    batch, guidance = settings.get("batch", 1), settings.get("guidance", 1)
    count = batch if isinstance(batch, int) else 1
    is_guided = isinstance(guidance, int | float) and guidance > 1
    return 2 * count if is_guided and denoiser == UNET else count


def result_bytes(networks: Sequence[Network], settings: Settings, element_bytes: int) -> int:
    """Return what ControlNets leave for the denoiser, and their images: live until a run ends.

    Of several ControlNets the results are added up, into the first one's.
    """
    nets = [one for one in networks if one.is_controlnet]
    image = settings.get("image")
    if not nets or not isinstance(image, tuple):
        return 0
    width, height = image
    if nets[0].beside == UNET:
        results = max(_maps(one.config, width // 8, height // 8) for one in nets)
        pixels = 3 * width * height * len(nets)
    else:
        tokens = (width // 16) * (height // 16)
        results = max(map(_blocks, nets)) * tokens * _FLUX_WIDTH
        pixels = 64 * tokens * len(nets)  # as latents, packed
    copies = _copies(settings, nets[0].beside)
    return (results + pixels) * copies * element_bytes


def _blocks(network: Network) -> int:
    """Return the blocks of a FLUX ControlNet, each of which has a result."""
    return sum(_whole(network.config, key) for key in ("num_layers", "num_single_layers"))


def _maps(config: Mapping[str, object], width: int, height: int) -> int:
    """Return the elements of a ControlNet's results: one for each skip of a UNet, and its middle's.

    Source: diffusers, models/controlnets/controlnet.py, `controlnet_down_blocks`.
    """
    channels = config.get("block_out_channels")
    if not isinstance(channels, list | tuple) or not all(type(one) is int for one in channels):
        channels = (320, 640, 1280, 1280)
    layers = _whole(config, "layers_per_block") or 2
    total = channels[0] * width * height
    for place, count in enumerate(channels):
        total += layers * count * width * height
        if place + 1 < len(channels):
            width, height = -(-width // 2), -(-height // 2)
            total += count * width * height
    return int(total + channels[-1] * width * height)


def _whole(config: Mapping[str, object], key: str) -> int:
    value = config.get(key)
    return value if isinstance(value, int) and 0 <= value < 1 << 10 else 0

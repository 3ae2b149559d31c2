"""ControlNets and IP-Adapters as settings: their weights, where they are, what they work with."""

from __future__ import annotations

import json

import pytest

from tests.saved_models import write
from vramplan.ask.targets import make_jobs
from vramplan.catalog import load_catalog
from vramplan.engines.door import engine_of
from vramplan.engines.torch import networks
from vramplan.engines.torch.module_list import shipped_modules
from vramplan.errors import SourceError, UsageError
from vramplan.model import LineKind, Origin

CATALOG = load_catalog()
SD15, SDXL, FLUX = "sd15", "sdxl", "flux1-dev"


def estimate(name, card="rtx-4090", **settings):
    (job,) = make_jobs([name], CATALOG, settings)
    return engine_of(job.pipeline).estimate(job, CATALOG.card(card).candidates[0])


def weights(found):
    return {one.name: one.weights_bytes for one in found.components}


# ------------------------------------------------------------------------------- parameters
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning")
def test_controlnets_have_their_classes_parameters():
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    xl = next(
        dict(spec.config)
        for spec in CATALOG.pipelines["sdxl-controlnet"].components()
        if spec.name == "controlnet"
    )
    configs = {
        networks.SD15: {"cross_attention_dim": 768},
        networks.SD21: {
            "cross_attention_dim": 1024,
            "attention_head_dim": [5, 10, 20, 20],
            "use_linear_projection": True,
        },
        networks.SDXL: xl,
    }
    with torch.device("meta"):
        for family, config in configs.items():
            real = diffusers.ControlNetModel(**config)
            known = networks._OF_UNETS[family]
            assert sum(one.numel() for one in real.parameters()) == known.parameters
            for key, value in known.config.items():
                assert real.config[key] == value or list(real.config[key]) == list(value)
        for name, known in networks._OF_FLUX.items():
            words = {"num_mode": 10} if name == "union" else {}
            real = diffusers.FluxControlNetModel(guidance_embeds=True, **known.config, **words)
            assert sum(one.numel() for one in real.parameters()) == known.parameters


@pytest.mark.slow
def test_projections_and_encoders_have_their_classes_parameters():
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("diffusers")
    from diffusers.models import embeddings

    def plain(image, text):
        return embeddings.ImageProjection(image, text, num_image_text_embeds=4)

    def plus(text, hidden, heads):
        return embeddings.IPAdapterPlusImageProjection(
            embed_dims=1280, output_dims=text, hidden_dims=hidden, heads=heads, num_queries=16
        )

    def encoder(hidden, inner, layers, patch, out):
        return transformers.CLIPVisionModelWithProjection(
            transformers.CLIPVisionConfig(
                hidden_size=hidden,
                intermediate_size=inner,
                num_hidden_layers=layers,
                num_attention_heads=16,
                patch_size=patch,
                projection_dim=out,
            )
        )

    known = {name: one.projection for name, one in networks._IP_ADAPTERS.items()}
    with torch.device("meta"):
        real = {
            "ip-adapter_sd15": plain(1024, 768),
            "ip-adapter_sdxl": plain(1280, 2048),
            "ip-adapter_sdxl_vit-h": plain(1024, 2048),
            "flux-ip-adapter": plain(768, 4096),
            "ip-adapter-plus_sd15": plus(768, 768, 12),
            "ip-adapter-plus_sdxl_vit-h": plus(2048, 1280, 20),
            "ip-adapter-full-face_sd15": embeddings.IPAdapterFullImageProjection(1280, 768),
        }
        for name, module in real.items():
            assert known[name] == sum(one.numel() for one in module.parameters())
        assert set(known.values()) == {known[name] for name in real}
        encoders = {
            networks._VIT_L: encoder(1024, 4096, 24, 14, 768),
            networks._VIT_H: encoder(1280, 5120, 32, 14, 1024),
            networks._VIT_G: encoder(1664, 8192, 48, 14, 1280),
        }
    for count, module in encoders.items():
        assert sum(one.numel() for one in module.parameters()) == count
        assert sum(one.numel() * 8 for one in module.buffers()) == int(networks._POSITIONS[:-1])


#: the sizes of h94/IP-Adapter's files in half precision, with headers of some KiB
PUBLISHED = [
    (SD15, "ip-adapter_sd15", 44_642_768),
    (SD15, "ip-adapter-plus_sd15", 98_183_288),
    (SDXL, "ip-adapter_sdxl", 702_585_376),
    (SDXL, "ip-adapter_sdxl_vit-h", 698_391_064),
    (SDXL, "ip-adapter-plus_sdxl_vit-h", 847_517_512),
]


@pytest.mark.parametrize(("name", "adapter", "size"), PUBLISHED)
def test_an_ip_adapter_is_as_large_as_its_file(name, adapter, size):
    found = networks.networks_of({"ip_adapter": adapter}, shipped_modules(name))
    (network,) = (one for one in found if one.name == "ip_adapter")
    assert 0 < size - network.bytes_at(2) < 64 << 10


# ------------------------------------------------------------------------------- of a budget
def test_a_controlnet_adds_its_weights_and_its_results():
    plain, held = estimate(SD15), estimate(SD15, controlnet="canny")
    more = {key: size for key, size in weights(held).items() if key not in weights(plain)}
    assert more == {"controlnet": 2 * 361_279_120}
    by_name = {(line.name, line.component): line for line in held.lines}
    assert by_name["weights", "controlnet"].origin is Origin.EXACT
    results = next(line for line in held.lines if line.name == "network results")
    # 13 maps for the UNet and the image, of a guided pair: counted by hand for 512x512
    maps = 320 * (3 * 4096 + 1024) + 640 * (2 * 1024 + 256) + 1280 * (2 * 256 + 64 + 2 * 64 + 64)
    assert results.band.low_bytes == 2 * 2 * (maps + 3 * 512 * 512)
    assert results.origin is Origin.ASSUMED
    for found in (plain, held):
        total = sum(line.band.expected_bytes for line in found.lines)
        assert total == found.peak.device.expected_bytes


@pytest.mark.parametrize(
    ("card", "settings"),
    [
        ("rtx-4090", {}),
        ("rtx-2080-ti", {}),
        ("rtx-4090", {"batch": 2}),
        ("a100-80gb", {"batch": 4}),
        ("rtx-4090", {"image": (768, 768)}),
        ("rtx-3060-12gb", {"image": (1024, 1024), "batch": 2}),
        ("rtx-4090", {"offload": "model"}),
        ("a100-80gb", {"offload": "model", "batch": 4}),
    ],
)
def test_the_band_holds_the_entry_that_has_a_tape(card, settings):
    """sd15 with a ControlNet beside it, and sd15-controlnet, whose run was recorded."""
    band = estimate(SD15, card, controlnet="canny", safety_checker="off", **settings).need.band
    real = estimate("sd15-controlnet", card, **settings).need.band.expected_bytes
    assert band.low_bytes <= real <= band.high_bytes
    assert abs(band.expected_bytes - real) < 0.08 * real


def test_offload_leaves_a_controlnet_beside_its_denoiser():
    found = estimate(SD15, offload="model", controlnet="canny")
    there = {line.component for line in found.lines if line.kind is LineKind.WEIGHTS}
    assert there == {"unet", "controlnet", "safety_checker"}


def test_adapters_share_an_encoder_and_controlnets_are_numbered():
    adapters = "ip-adapter_sd15;ip-adapter-plus_sd15"
    found = weights(estimate(SD15, ip_adapter=adapters, controlnet="canny;depth"))
    assert found["controlnet"] == found["controlnet_2"]
    assert found["ip_adapter"] < found["ip_adapter_2"]
    assert found["image_encoder"] == 2 * networks._VIT_H + 2056
    with pytest.raises(UsageError, match="different image encoders"):
        estimate(SDXL, ip_adapter="ip-adapter_sdxl;ip-adapter_sdxl_vit-h")


def test_networks_are_not_quantised_with_their_denoiser():
    found = estimate(FLUX, quantization="transformer:bnb-4bit", controlnet="union-pro-2.0")
    rows = {one.name: one for one in found.components}
    assert rows["controlnet"].weights_bytes == 2 * 2_140_876_800
    assert (rows["controlnet"].dtype, rows["transformer"].dtype) == ("bf16", "bnb-4bit")


def test_without_a_tape_they_are_counted_too():
    """At a size that FLUX's tape does not hold, by what is known without one."""
    settings = {"image": (1024, 1024), "batch": 3, "guidance": 1.0}
    plain = estimate("sd15-inpaint", **settings)
    held = estimate("sd15-inpaint", controlnet="inpaint", **settings)
    more = held.bytes_of(LineKind.WEIGHTS) - plain.bytes_of(LineKind.WEIGHTS)
    assert more == 2 * 361_279_120


# ------------------------------------------------------------------------------- files
def controlnet_tensors(width=768):
    return [
        ("controlnet_cond_embedding.conv_in.weight", "F16", (16, 3, 3, 3)),
        ("down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight", "F16", (320, width)),
        ("controlnet_mid_block.weight", "F16", (1280, 1280, 1, 1)),
    ]


def test_a_controlnet_in_a_file_and_in_a_folder(tmp_path):
    tensors = controlnet_tensors()
    count = 16 * 27 + 320 * 768 + 1280 * 1280
    path = write(tmp_path / "net.safetensors", tensors)
    assert weights(estimate(SD15, controlnet=str(path)))["controlnet"] == 2 * count
    folder = tmp_path / "folder"
    write(folder / "diffusion_pytorch_model.safetensors", tensors)
    config = {"_class_name": "ControlNetModel", "block_out_channels": [64, 64]}
    (folder / "config.json").write_text(json.dumps(config))
    found = estimate(SD15, controlnet=str(folder))
    assert weights(found)["controlnet"] == 2 * count
    results = next(line for line in found.lines if line.name == "network results")
    maps = 64 * (3 * 4096 + 1024 + 2 * 1024 + 1024)
    assert results.band.low_bytes == 2 * 2 * (maps + 3 * 512 * 512)


def test_an_ip_adapter_in_a_file_tells_its_encoder(tmp_path):
    tensors = [
        ("image_proj.proj.weight", "F16", (3072, 1024)),
        ("ip_adapter.1.to_k_ip.weight", "F16", (320, 768)),
        ("ip_adapter.1.to_v_ip.weight", "F16", (320, 768)),
    ]
    path = write(tmp_path / "adapter.safetensors", tensors)
    found = weights(estimate(SD15, ip_adapter=str(path)))
    assert found["ip_adapter"] == 2 * (3072 * 1024 + 2 * 320 * 768)
    assert found["image_encoder"] == 2 * networks._VIT_H + 2056
    faces = write(tmp_path / "face.safetensors", [("image_proj.x", "F16", (1, 512)), *tensors[1:]])
    found = estimate(SD15, ip_adapter=str(faces))
    assert "image_encoder" not in weights(found)
    assert any("its image encoder is not known" in line.source for line in found.lines)


@pytest.mark.parametrize(
    ("name", "key", "text", "said"),
    [
        (SD15, "controlnet", "cany", "no ControlNet for Stable Diffusion 1.5"),
        (FLUX, "controlnet", "openpose", "no ControlNet for FLUX.1"),
        (SD15, "controlnet", "InstantX/FLUX.1-dev-Controlnet-Canny", "it is for FLUX.1"),
        (SD15, "controlnet", "gone.safetensors", "No such file"),
        (SD15, "ip_adapter", "ip-adapter_sdxl", "it is for SDXL"),
        (SD15, "ip_adapter", "ip-adapter-plus", "no IP-Adapter for Stable Diffusion 1.5"),
        (SDXL, "ip_adapter", "ip-adapter_sdxl.bin", "not read"),
        ("llama-3.2-1b", "controlnet", "canny", "does not plan ControlNets here"),
        ("z-image", "ip_adapter", "x", "does not plan IP-Adapters here"),
        ("sd15-controlnet", "controlnet", "canny", "does not plan ControlNets here"),
    ],
)
def test_what_is_no_network_is_said_in_a_line(name, key, text, said):
    with pytest.raises(UsageError, match=said) as problem:
        estimate(name, **{key: text})
    assert "\n" not in str(problem.value)


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        (controlnet_tensors(2048), "it is for SDXL"),
        (controlnet_tensors(999), "it is for another family"),
        ([("unet.weight", "F16", (4, 4))], "no ControlNet's"),
    ],
)
def test_files_that_are_no_controlnet_for_this(tmp_path, tensors, said):
    path = write(tmp_path / "net.safetensors", tensors)
    with pytest.raises(UsageError, match=said):
        estimate(SD15, controlnet=str(path))
    with pytest.raises(UsageError, match="no IP-Adapter's tensors"):
        estimate(SD15, ip_adapter=str(path))


def test_a_file_that_lies_is_refused(tmp_path):
    path = tmp_path / "net.safetensors"
    path.write_bytes(b"\xff" * 64)
    for key in ("controlnet", "ip_adapter"):
        with pytest.raises(SourceError):
            estimate(SD15, **{key: str(path)})


def test_the_same_word_is_its_repository():
    lists = shipped_modules(SD15)
    one, other = (
        networks.networks_of({"controlnet": text}, lists)[0].parameters
        for text in ("depth", "hf:lllyasviel/control_v11f1p_sd15_depth")
    )
    assert one == other

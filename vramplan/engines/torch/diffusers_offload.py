"""How diffusers moves the components of a pipeline: the names it gives them, and their order."""

from __future__ import annotations

#: what no offload moves, where a class is not known or says what Stable Diffusion 1.x does. Source:
#: StableDiffusionPipeline._exclude_from_cpu_offload
STAYS_ON_DEVICE = frozenset({"safety_checker"})

_NOTHING: frozenset[str] = frozenset()
_PRIOR, _PRIORS_PRIOR = frozenset({"prior"}), frozenset({"prior_prior"})
_RENDERER, _VQVAE = frozenset({"shap_e_renderer"}), frozenset({"vqvae"})
_WATERMARKER, _NORMALIZER = frozenset({"watermarker"}), frozenset({"image_normalizer"})
#: of other classes, whatever the offload, and with sequential offload alone: model offload moves
#: what its sequence names. Source: diffusers 0.42.1, `_exclude_from_cpu_offload` and
#: `model_cpu_offload_seq` of each; those that have a safety checker and move it are here too
_KEPT: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "AmusedImg2ImgPipeline": (_NOTHING, _VQVAE),
    "AmusedInpaintPipeline": (_NOTHING, _VQVAE),
    "Cosmos2TextToImagePipeline": (_NOTHING, _NOTHING),
    "Cosmos2VideoToWorldPipeline": (_NOTHING, _NOTHING),
    "CosmosTextToWorldPipeline": (_NOTHING, _NOTHING),
    "CosmosVideoToWorldPipeline": (_NOTHING, _NOTHING),
    "CycleDiffusionPipeline": (_NOTHING, _NOTHING),
    "IFImg2ImgPipeline": (_WATERMARKER, _NOTHING),
    "IFImg2ImgSuperResolutionPipeline": (_WATERMARKER, _NOTHING),
    "IFInpaintingPipeline": (_WATERMARKER, _NOTHING),
    "IFInpaintingSuperResolutionPipeline": (_WATERMARKER, _NOTHING),
    "IFPipeline": (_WATERMARKER, _NOTHING),
    "IFSuperResolutionPipeline": (_WATERMARKER, _NOTHING),
    "KandinskyCombinedPipeline": (_NOTHING, _PRIORS_PRIOR),
    "KandinskyImg2ImgCombinedPipeline": (_NOTHING, _PRIORS_PRIOR),
    "KandinskyInpaintCombinedPipeline": (_NOTHING, _PRIORS_PRIOR),
    "KandinskyPriorPipeline": (_NOTHING, _PRIOR),
    "KandinskyV22CombinedPipeline": (_PRIORS_PRIOR, _NOTHING),
    "KandinskyV22Img2ImgCombinedPipeline": (_PRIORS_PRIOR, _NOTHING),
    "KandinskyV22InpaintCombinedPipeline": (_PRIORS_PRIOR, _NOTHING),
    "KandinskyV22PriorEmb2EmbPipeline": (_NOTHING, _PRIOR),
    "KandinskyV22PriorPipeline": (_NOTHING, _PRIOR),
    "PaintByExamplePipeline": (frozenset({"image_encoder"}), _NOTHING),
    "SemanticStableDiffusionPipeline": (_NOTHING, _NOTHING),
    "ShapEImg2ImgPipeline": (_RENDERER, _NOTHING),
    "ShapEPipeline": (_RENDERER, _NOTHING),
    "StableDiffusionAdapterPipeline": (_NOTHING, _NOTHING),
    "StableDiffusionPipelineSafe": (_NOTHING, _NOTHING),
    "StableUnCLIPImg2ImgPipeline": (_NORMALIZER, _NOTHING),
    "StableUnCLIPPipeline": (_NORMALIZER | _PRIOR, _NOTHING),
    "TextToVideoZeroPipeline": (_NOTHING, _NOTHING),
    "UnCLIPPipeline": (_PRIOR, _NOTHING),
}


def stays_on_device(class_path: str | None, offload: str) -> frozenset[str]:
    """Return the parts that offload leaves on the device, by a pipeline's class, None if unknown.

    Group offload moves those too (diffusers, `enable_group_offload`).
    """
    if offload == "group":
        return frozenset()
    name = (class_path or "").rpartition(".")[2]
    always, sequentially = _KEPT.get(name, (STAYS_ON_DEVICE, _NOTHING))
    return always | sequentially if offload == "sequential" else always


#: what pipelines call the part that denoises, and the one of convolutions among them
UNET = "unet"
DENOISERS = ("transformer", "transformer_2", UNET, "prior")

#: and the part that makes images of what was denoised
DECODER = "vae"

#: how pipelines hand the GPU on, of which each has some. Source: `model_cpu_offload_seq` of Stable
#: Diffusion to 3.5, SDXL, SVD, FLUX, Wan, LTX-2, Qwen-Image and Z-Image
CHAIN = (
    *("text_encoder", "text_encoder_2", "text_encoder_3", "image_encoder", "connectors"),
    *("unet", "transformer", "transformer_2", "vae", "audio_vae", "vocoder"),
)

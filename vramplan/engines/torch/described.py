"""A catalogue's entry without a tape: what its files would hold, from the classes it describes.

It is answered as a saved model is: recorded here where the libraries are installed, else counted.
Its parameters are those that the entry says (a test builds every class and holds them to it).
"""

from __future__ import annotations

from collections.abc import Mapping

from vramplan.catalog.pipelines import Entry
from vramplan.codec import Json
from vramplan.dtypes import ELEMENT_BYTES
from vramplan.engines.torch.counted_model import SAVED_DTYPES, CountedModel, Decoder, count
from vramplan.engines.torch.pipeline import TorchPipeline
from vramplan.model import ComponentSpec
from vramplan.quick_dataclass import replace
from vramplan.sources.safetensors import Tensor
from vramplan.sources.saved_model import Part, SavedModel

#: how the classes are called that decode, in diffusers
_AUTOENCODERS = ("Autoencoder", "VQModel")
#: where a config says the channels of a decoder's last convolution, the decoder's own before those
#: that encoder and decoder have in common; the first two are those of video
_OF_VIDEO = ("decoder_base_dim", "base_dim")
_CHANNELS = (*_OF_VIDEO, "decoder_block_out_channels", "block_out_channels")
_FILE_TYPES = {ours: theirs for theirs, ours in SAVED_DTYPES.items() if theirs != "F64"}


def describe(pipeline: TorchPipeline, entry: Entry) -> TorchPipeline:
    """Return an entry's pipeline with what is counted of it, where it says its parameters.

    Without them it is returned as it is, and has no answer but a tape's.
    """
    specs = pipeline.components
    if not specs or "dtype" not in pipeline.defaults or not all(s.parameters for s in specs):
        return pipeline
    model = _as_saved(pipeline, entry)
    counted = count(model)
    decoder = next((one for s in pipeline.components if (one := _decoder(s, pipeline))), None)
    return replace(pipeline, saved=model, counted=_with_kept(counted, pipeline, decoder))


def _as_saved(pipeline: TorchPipeline, entry: Entry) -> SavedModel:
    """Return the model as if its files had been read: one tensor a component, of all it has."""
    file_type = _FILE_TYPES[str(pipeline.defaults["dtype"])]
    parts = tuple(_part(spec, file_type) for spec in pipeline.components)
    lone = pipeline.components[0]
    class_path = entry.text("class") or lone.class_path
    is_pipeline = class_path != lone.class_path
    # as model_index.json has it: a class for what is made of one, the others' own values
    index = {
        key: _library_and_name(told) if isinstance(told, str) else told
        for key, told in _json(pipeline.parts).items()
    }
    schedulers: dict[str, Mapping[str, Json]] = {}
    if pipeline.scheduler is not None:
        index["scheduler"] = _library_and_name(pipeline.scheduler.class_path)
        schedulers["scheduler"] = _json(pipeline.scheduler.config)
    return SavedModel(
        place=pipeline.source,
        kind="pipeline" if is_pipeline else "model",
        class_name=class_path.partition(".")[2],
        runtime=class_path.partition(".")[0],
        parts=parts,
        config=index if is_pipeline else _json(lone.config),
        schedulers=schedulers,
    )


def _part(spec: ComponentSpec, file_type: str) -> Part:
    elements = spec.parameters or 0
    size = elements * ELEMENT_BYTES[SAVED_DTYPES[file_type]]
    all_of_it = Tensor(name="parameters", dtype=file_type, shape=(elements,), size_bytes=size)
    return Part(
        name=spec.name,
        class_path=spec.class_path,
        config=_json(spec.config),
        tensors=(all_of_it,),
        dtype=spec.dtype,
    )


def _with_kept(
    counted: CountedModel, pipeline: TorchPipeline, decoder: Decoder | None
) -> CountedModel:
    """Return what is counted with what a T5 keeps in fp32, by its config, and the decoder."""
    kept = {spec.name: _kept_elements(spec) for spec in pipeline.components}
    parts = tuple(replace(part, kept_elements=kept[part.name]) for part in counted.parts)
    return replace(
        counted,
        parts=parts,
        decoder=decoder,
        counted_from="its class and config, held to what its authors publish",
    )


def _kept_elements(spec: ComponentSpec) -> int:
    """Return the elements that stay in fp32 in fp16: the last matrix of each layer's two or three.

    Source: transformers 5.23.0, `T5PreTrainedModel._keep_in_fp32_modules`.
    """
    if not spec.class_path.endswith(("T5EncoderModel", "T5Model")):
        return 0
    numbers = [spec.config.get(key) for key in ("d_model", "d_ff", "num_layers")]
    product = 1
    for number in numbers:
        product *= number if isinstance(number, int) else 0
    return product


def _decoder(spec: ComponentSpec, pipeline: TorchPipeline) -> Decoder | None:
    """Return what a component decodes images with; None for one that is no autoencoder of them."""
    class_name = spec.class_path.rpartition(".")[2]
    if not class_name.startswith(_AUTOENCODERS) or "image" not in pipeline.defaults:
        return None
    for key in _CHANNELS:
        said = spec.config.get(key)
        first = said[0] if isinstance(said, list) and said else said
        if isinstance(first, int) and first > 0:
            return Decoder(
                part=spec.name,
                channels=first,
                is_video="frames" in pipeline.defaults or key in _OF_VIDEO,
                is_upcast=spec.config.get("force_upcast") is True,
                tape=spec.tape,
                dtype=spec.dtype,
            )
    return None


def _library_and_name(class_path: str) -> list[Json]:
    library, _, name = class_path.partition(".")
    return [library, name]


def _json(config: Mapping[str, object]) -> dict[str, Json]:
    return dict(config)  # type: ignore[arg-type]  # read from YAML or JSON, which have no other values

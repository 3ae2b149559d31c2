"""The model of a pipeline: of a file's header, or of what the catalogue says of a file."""

from __future__ import annotations

from vramplan.engines.ggml.entry_section import once_each, open_section
from vramplan.engines.ggml.gguf_tensors import model_from_gguf
from vramplan.engines.ggml.pipeline import GgmlPipeline, ModelFile
from vramplan.engines.ggml.weights import GgmlModel
from vramplan.quick_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vramplan.sources.gguf_header import GgufFile


def read_model(pipeline: GgmlPipeline) -> GgmlModel:
    """Return the language model of a file's header, or of what the catalogue says of a file.

    Raises CatalogError for a key of an entry that is missing, unknown or has no usable value,
    SourceError for a header without a language model.
    """
    return once_each(pipeline, _read_model)


def _read_model(pipeline: GgmlPipeline) -> GgmlModel:
    return model_from_gguf(header_of(pipeline))


def header_of(pipeline: GgmlPipeline) -> GgufFile:
    """Return the header of a pipeline's file, be it at hand or described by the catalogue."""
    if isinstance(pipeline.model, ModelFile):
        return pipeline.model.header
    from vramplan.engines.ggml.described_file import described_header

    return described_header(open_section(pipeline), pipeline.path or pipeline.name)

"""What a ggml engine runs: a model file's header, or what the catalogue says of a file."""

from __future__ import annotations

from collections.abc import Mapping

from vramplan.model import Pipeline
from vramplan.quick_dataclass import dataclass
from vramplan.quick_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vramplan.sources.gguf_header import GgufFile


#: the key of an entry that names where a log of its file is posted
LOG = "log"
#: the keys of an entry that name the architecture in its file, and say that its projector is there
WRITTEN_AS, INSIDE = "written_as", "inside"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFile:
    """A model's header, and that of the projector that belongs to it.

    Of a file that Ollama shows to llama.cpp as another (`ollama_files`) both are what is shown:
    `written_as` is the architecture that it names itself, and `encoder_bytes` what the encoders in
    it take there.
    """

    header: GgufFile
    projector: GgufFile | None = None
    written_as: str = ""
    encoder_bytes: int = 0

    @property
    def has_encoder_inside(self) -> bool:
        """Return whether model and projector are one file."""
        return self.encoder_bytes > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """What the catalogue says of a model file that is not at hand: its `ggml` section."""

    section: Mapping[str, object]

    @property
    def is_seen(self) -> bool:
        """Return whether the file itself was seen: in a log of its types or buffers, by `log`."""
        return LOG in self.section

    @property
    def projector(self) -> object | None:
        """What is said of a projector; None for a model without one."""
        return self.section.get("projector")

    @property
    def written_as(self) -> str:
        """Return the architecture that the file names, where that is not llama.cpp's name."""
        return str(self.section.get(WRITTEN_AS, ""))

    @property
    def has_encoder_inside(self) -> bool:
        """Return whether model and projector are one file."""
        projector = self.projector
        return isinstance(projector, Mapping) and projector.get(INSIDE) is True


@dataclass(frozen=True, slots=True, kw_only=True)
class GgmlPipeline(Pipeline):
    """A model file in llama.cpp, Ollama or LM Studio.

    `overhead_bytes` of a card are set aside before Ollama chooses its default context.
    """

    model: ModelFile | Described
    overhead_bytes: int = 0

    @property
    def is_ollama(self) -> bool:
        """Return whether Ollama starts the engine, with its own rules on top."""
        return self.runtime == "ollama"

    @property
    def is_lm_studio(self) -> bool:
        """Return whether LM Studio starts the engine, with switches of its own."""
        return self.runtime == "lmstudio"

    @property
    def has_projector(self) -> bool:
        """Return whether there is a vision encoder beside the language model."""
        return self.model.projector is not None


def of_ggml(pipeline: Pipeline) -> GgmlPipeline:
    """Return `pipeline` as what it is; raises TypeError for another engine's."""
    if not isinstance(pipeline, GgmlPipeline):
        raise TypeError(f"{pipeline.name}: a {type(pipeline).__name__} is not ggml's")
    return pipeline

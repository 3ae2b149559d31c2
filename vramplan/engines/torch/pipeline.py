"""What torch runs: the classes of a pipeline's components, and where its tape is looked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vramplan.model import ComponentSpec, Pipeline
from vramplan.quick_dataclass import dataclass, field
from vramplan.quick_typing import TYPE_CHECKING

if TYPE_CHECKING:  # the catalogue's pipelines have tapes
    from vramplan.engines.torch.counted_model import CountedModel
    from vramplan.engines.torch.held_cache import CacheLayer
    from vramplan.sources.saved_model import SavedModel

#: where the lists of layers are that ship, in the catalogue (`module_list`)
MODULES = "modules"


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchPipeline(Pipeline):
    """Components of diffusers, transformers or torch.nn, and the name of their tape.

    `folders` are catalogue folders, asked in turn for ``tapes/TAPE.json``.
    """

    components: tuple[ComponentSpec, ...] = ()
    scheduler: ComponentSpec | None = None
    #: the class whose ``__call__`` is the run, and what it is built from beside components: where
    #: its tape is made by the recorder that knows no class
    class_path: str | None = None
    parts: Mapping[str, object] = field(default_factory=dict)
    tape: str | None = None
    loading: str = "to"  # to: tensor by tensor | device_map: one block first
    folders: tuple[Path, ...] = ()
    is_recorded_here: bool = False  # its tape is a recording of this process, with a key for a name
    #: the tape that an entry has for the settings that somebody recorded it at; at others it is as
    #: a saved model
    tape_within: str | None = None
    beyond_tape: str = ""  # why that tape does not hold at the settings that are asked for
    carried_tape: str | None = None  # the one of its tapes that has the code for them all the same
    is_carried_on: bool = False  # its tape is replayed beyond where it was proved to hold
    #: of a saved model that has no tape: what is counted of it, and what it may be recorded from
    counted: CountedModel | None = None
    #: the entry whose list of layers ships (`module_list`), where one does
    module_list: str | None = None
    saved: SavedModel | None = None
    has_own_defaults: bool = False  # those of a saved model's files, not its entry's
    #: of a language model whose cache may be another than the growing one: its layers
    cache_layers: tuple[CacheLayer, ...] = ()

    @property
    def run_class(self) -> str | None:
        """The class whose ``__call__`` is the run, where the entry or its files say it."""
        return self.class_path if self.saved is None else self.saved.class_name


def of_torch(pipeline: Pipeline) -> TorchPipeline:
    """Return `pipeline` as what it is; raises TypeError for another engine's."""
    if not isinstance(pipeline, TorchPipeline):
        raise TypeError(f"{pipeline.name}: a {type(pipeline).__name__} is not torch's")
    return pipeline

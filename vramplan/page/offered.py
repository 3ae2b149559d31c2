"""What the page may open: the catalogue, and the models that whoever started it has named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from vramplan.ask.targets import find_target, open_catalog, open_pipelines
from vramplan.catalog import Catalog
from vramplan.catalog.pipelines import Entry, find_pipeline
from vramplan.engines.door import Remark
from vramplan.errors import UsageError, did_you_mean
from vramplan.model import Pipeline
from vramplan.sources.hub_address import read_address, repository_named

_OLLAMA = "ollama:"


class Models:
    """The models that can be chosen, by the names that the page has for them.

    A name that comes from a browser is looked for among these alone: it opens no file, folder or
    address, whatever it looks like.
    """

    def __init__(
        self, catalog: Catalog, named: Mapping[str, Pipeline], texts: Mapping[str, str]
    ) -> None:
        """Take the models that were named, and the TARGET of each."""
        self.catalog = catalog
        self.named = named
        self._texts = texts

    def find(self, name: str) -> Pipeline:
        """Return the pipeline of a name, or of a repository or page on the hub that it stands for.

        Raises UsageError for one that is not on the page.
        """
        if name in self.named:
            return self.named[name]
        try:
            entry = _of_repository(name, self.catalog)
            entry = entry or find_pipeline(_plain(name), self.catalog.pipelines)
        except UsageError:
            known = (*self.named, *self.catalog.pipelines)
            hint = did_you_mean(name[:80], known)
            raise UsageError(
                f"this page has no model {name[:80]!r}",
                hint=hint or "it opens the catalogue, and what `vramplan serve MODEL` was told",
            ) from None
        return self.open(entry)

    def open(self, entry: Entry) -> Pipeline:
        """Return the pipeline of an entry of the catalogue."""
        (pipeline,) = open_pipelines([entry], self.catalog)
        return pipeline

    def command_name(self, pipeline: Pipeline) -> str:
        """Return the TARGET that a command takes for one of the models."""
        return self._texts.get(pipeline.name, pipeline.name)

    @property
    def listed(self) -> tuple[Pipeline, ...]:
        """All of them, those that were named first."""
        return (*self.named.values(), *self.catalog.pipelines.values())


def _plain(name: str) -> str:
    """Return the name that a page of Ollama's library stands for, any other name as it is."""
    address = read_address(name, {}) or name
    return address.removeprefix(_OLLAMA)


def _of_repository(name: str, catalog: Catalog) -> Entry | None:
    """Return the entry of ``ORG/NAME`` or of its page; what is written there is not asked for."""
    repository = repository_named(read_address(name, {}) or name)
    return None if repository is None else catalog.repository(repository)


def open_models(
    targets: Sequence[str], remark: Remark, *, catalog: Sequence[str | Path] = ()
) -> Models:
    """Return the catalogue's models and those of TARGETs, which are opened now.

    Raises UsageError and SourceError for a TARGET that nobody knows or that cannot be used.
    """
    known = open_catalog(catalog)
    found = [find_target(text, known, remark=remark) for text in targets]
    named: dict[str, Pipeline] = {}
    said: dict[str, str] = {}
    for pipeline, text in zip(open_pipelines(found, known), targets, strict=True):
        if pipeline.name in named:
            hint = "serve one of them, or rename its file"
            raise UsageError(f"two models are called {pipeline.name!r}", hint=hint)
        named[pipeline.name] = pipeline
        said[pipeline.name] = text
    return Models(known, named, said)

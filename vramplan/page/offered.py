"""What the page may open: the catalogue, and the models that whoever started it has named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vramplan.ask.targets import find_target, open_catalog, open_pipelines
from vramplan.catalog import Catalog
from vramplan.catalog.pipelines import Entry
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

    def __init__(self, catalog: Catalog) -> None:
        """Offer the catalogue's."""
        self.catalog = catalog
        self.named: dict[str, Pipeline] = {}
        self._texts: dict[str, str] = {}

    def find(self, name: str) -> Pipeline:
        """Return the pipeline of a name, or of a repository or page on the hub that it stands for.

        Raises UsageError for one that is not on the page.
        """
        if name in self.named:
            return self.named[name]
        try:
            entry = _of_repository(name, self.catalog)
            entry = entry or self.catalog.pipeline(_plain(name))
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

    def add(self, target: str, remark: Remark) -> Pipeline:
        """Offer what a TARGET stands for, in the place of another of its name.

        Raises UsageError and SourceError for a TARGET that nobody knows or that cannot be used.
        """
        (pipeline,) = open_pipelines(
            [find_target(target, self.catalog, remark=remark)], self.catalog
        )
        self.named[pipeline.name] = pipeline
        self._texts[pipeline.name] = target
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
    models = Models(open_catalog(catalog))
    for text in targets:
        before = len(models.named)
        pipeline = models.add(text, remark)
        if len(models.named) == before:
            hint = "serve one of them, or rename its file"
            raise UsageError(f"two models are called {pipeline.name!r}", hint=hint)
    return models

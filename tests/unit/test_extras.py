"""What installs an extra: a command that works where the user is."""

from __future__ import annotations

import importlib.metadata
import shlex
from pathlib import Path

import pytest

from vramplan import extras
from vramplan.extras import install_command


@pytest.fixture
def checkout(tmp_path) -> Path:
    folder = tmp_path / "a checkout"
    folder.mkdir()
    (folder / "pyproject.toml").touch()
    return folder


@pytest.fixture
def installed(monkeypatch):
    """Let the installation say that it needs these."""
    extras._requirements.cache_clear()

    def install(*lines: str) -> None:
        monkeypatch.setattr(importlib.metadata, "requires", lambda _name: list(lines))

    yield install
    extras._requirements.cache_clear()


def test_in_a_checkout_it_is_the_folder_here(checkout, monkeypatch) -> None:
    monkeypatch.chdir(checkout)
    assert install_command("gpu", checkout=checkout) == "pip install -e '.[gpu]'"


def test_elsewhere_it_is_the_checkouts_path_as_a_shell_takes_it(checkout) -> None:
    words = shlex.split(install_command("engine", checkout=checkout))
    assert words == ["pip", "install", "-e", f"{checkout}[engine]"]


def test_of_an_installation_it_is_what_the_extra_needs(installed, tmp_path) -> None:
    installed(
        "jinja2>=3.1",
        "torch>=2.6; extra == 'gpu'",
        'diffusers >=0.35 ; extra == "gpu"',
        "xllamacpp>=2026.10; python_version >= '3.11' and extra == 'engine'",
        "vramplan[engine,gpu]; extra == 'dev'",
    )
    assert install_command("gpu", checkout=tmp_path) == "pip install 'torch>=2.6' 'diffusers>=0.35'"
    assert install_command("engine", checkout=tmp_path) == "pip install 'xllamacpp>=2026.10'"


def test_this_installation_names_every_extra(tmp_path) -> None:
    extras._requirements.cache_clear()
    for extra, library in (("gpu", "torch"), ("engine", "xllamacpp")):
        command = install_command(extra, checkout=tmp_path)
        assert library in command
        assert "vramplan" not in command


def test_a_folder_of_modules_alone_names_no_index(installed, tmp_path) -> None:
    installed()
    said = install_command("gpu", checkout=tmp_path)
    assert said == "pip install 'vramplan[gpu]' from where vramplan came from"

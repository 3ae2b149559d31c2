"""``vramplan profile --pretend``: what is refused, where no CUDA build of torch is needed."""

from __future__ import annotations

import importlib.util

import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="torch is not installed"
)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--as-card", "8gb"), "--pretend is the card itself: leave --as-card out"),
        (("--gpu", "0"), "--pretend needs no GPU: leave --gpu out"),
        (("--dry-run",), "--dry-run measures nothing: leave --pretend out"),
    ],
)
def test_what_does_not_go_together_gets_a_line(words: tuple[str, ...], said: str, run) -> None:
    result = run("profile", "sd15", "--pretend", "12gb", *words)
    assert result.code == 2
    assert result.error == said


def test_engines_of_their_own_are_refused(run) -> None:
    result = run("profile", "llava:7b", "--pretend", "12gb")
    assert (result.code, result.error) == (2, "--pretend is for torch pipelines")
    assert "--engine-check" in result.hint


def test_old_cards_are_refused(run) -> None:
    result = run("profile", "sd15", "--pretend", "gtx-1080")
    assert result.code == 2
    assert "has no kernels for compute capability 6.1" in result.error


def test_torch_without_cuda_is_nothing_to_measure_with(run) -> None:
    import torch

    if torch.version.cuda:
        pytest.skip("this torch is a CUDA build")
    result = run("profile", "sd15", "--pretend", "12gb")
    assert result.code == 3
    assert f"torch {torch.__version__} is a build without CUDA" in result.error

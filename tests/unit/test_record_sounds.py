"""What a recording gives what is new to it: a sound to an autoencoder, a kind to a ControlNet."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")
import torch

from vramplan.engines.torch.record.saved import whole_pipeline
from vramplan.engines.torch.record.saved.models import run_once
from vramplan.engines.torch.record.saved.wrapped import (
    Functions,
    WrappedDevice,
    cuda_asked_for,
)
from vramplan.engines.torch.record.stream import Alloc, Stream
from vramplan.errors import RecordingError


def run_alone(config, mode="both", image=None):
    """Return what an autoencoder of sounds is given, and the tensors that its run makes."""
    given = []

    class Autoencoder(torch.nn.Module):
        dtype = torch.float16

        def encode(self, sound):
            given.append(tuple(sound.shape))
            return SimpleNamespace(latent=sound[:, :1, ::2048] * 2)

        def decode(self, latents):
            given.append(tuple(latents.shape))
            return SimpleNamespace(sample=latents.repeat(1, 2, 2048))

    model = Autoencoder()
    model.config = SimpleNamespace(**config)
    request = SimpleNamespace(
        class_path="diffusers.AutoencoderOobleck",
        parts=[SimpleNamespace(name="vae")],
        image=image,
        frames=None,
        batch=2,
        mode=mode,
    )
    stream = Stream("main", {})
    device = WrappedDevice(stream, set())
    with cuda_asked_for("flash"), device, Functions("flash"), torch.no_grad():
        run_once(request, model, device)
    return given, [one.size_bytes for one in stream.events if isinstance(one, Alloc)]


STEREO = {"audio_channels": 2}
SOUND, LATENTS = (2, 2, 1 << 21), (2, 1, 1024)


def test_an_autoencoder_of_sounds_hears_what_stable_audio_open_makes() -> None:
    given, made = run_alone(STEREO)
    assert given == [SOUND, LATENTS]
    assert made[0] == 2 * 2 * 2 * (1 << 21)  # the sound itself, in 16 bits


def test_what_is_decoded_is_not_encoded_before() -> None:
    given, made = run_alone(STEREO, "decode")
    assert given == [SOUND, LATENTS]  # what the latents' shape is told by is not on the device
    assert made[0] == 2 * 2 * 1024
    assert run_alone(STEREO, "encode")[0] == [SOUND]


@pytest.mark.parametrize("channels", [None, 0, -2, True, 2.0, 1 << 40])
def test_what_has_no_channels_of_a_sound_is_refused(channels: object) -> None:
    with pytest.raises(RecordingError, match="how it is called is not known"):
        run_alone({"audio_channels": channels})


@pytest.mark.parametrize("is_union", [True, False])
def test_a_controlnet_of_several_kinds_is_told_one(is_union: bool) -> None:
    class FluxControlNetPipeline:
        controlnet = SimpleNamespace(union=is_union)

        def __call__(self, prompt=None, control_image=None, control_mode=None) -> None: ...

    request = SimpleNamespace(
        batch=1, image=(64, 64), picture=None, frames=None, steps=3, guidance=None
    )
    given = whole_pipeline.arguments(request, FluxControlNetPipeline())
    assert ("control_mode" in given) is is_union
    assert given["control_image"].size == (64, 64)
    assert given.get("control_mode", 0) == 0

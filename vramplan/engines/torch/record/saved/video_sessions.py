"""A video that is looked at frame by frame, in a session that keeps what was seen.

What segments an object through a video is given the session that its processor makes: the frames,
where the object is in the first of them, and what was remembered of it since. A session's frames
and memories stay on the device until it ends, so all of a video's frames are gone through.
"""

from __future__ import annotations

import inspect
import sys
from typing import Any

import torch

from vramplan.engines.torch.record.saved.asked_model import AskedModel
from vramplan.engines.torch.record.saved.wrapped import WrappedDevice
from vramplan.errors import RecordingError

Value = Any

#: what the argument is called, and the loop over the frames behind the first
SESSION, FRAMES = "inference_session", "frame"
#: how configs call of how many frames masks, and objects, are remembered
_REMEMBERED = ("num_maskmem", "max_object_pointers_in_encoder")
#: frames where no number is asked for: those that are remembered, the one that is looked at, and
#: one more, from which on every frame is as the one before it
_USUAL, _MORE, _MOST_FRAMES = 7, 2, 1 << 10
_SIDE = 1024
#: which object it is, and what is said of a point: that the object is there
_OBJECT, _IS_THERE = 1, 1


def takes_session(asked: AskedModel) -> bool:
    """Return whether a model is given a session."""
    return SESSION in asked.names


def run_session(asked: AskedModel, device: WrappedDevice) -> int:
    """Go through a video, an object of which is pointed at; return how many frames it had.

    Raises RecordingError for a session that is not told by an object's points.
    """
    model, part = asked.model, asked.request.parts[0].name
    usual = max(asked.said(key, otherwise=_USUAL) for key in _REMEMBERED) + _MORE
    count = asked.request.frames or usual
    if not 0 < count <= _MOST_FRAMES:
        raise RecordingError(f"a video of {count:,} frames: at most {_MOST_FRAMES:,} are recorded")
    device.begin_phase("encode_image", part)
    session = _session(asked, count)
    for number in range(count):
        if number:
            device.iterate(FRAMES)
            device.begin_phase("encode_image", part)
        out = model(**{SESSION: session, "frame_idx": number})
        del out
    return count


def _session(asked: AskedModel, count: int) -> Value:
    """Return a session as its processor makes one: video, state and work are on the device."""
    cls = _class_of(asked)
    channels = asked.said("num_channels", "in_channels", part="vision", otherwise=3)
    side = asked.said("image_size", otherwise=_SIDE)
    frame = torch.ones((), dtype=torch.float32).expand(count, channels, side, side)
    session = cls(
        video=frame,
        video_height=side,
        video_width=side,
        inference_device=asked.model.device,
        inference_state_device=asked.model.device,
        video_storage_device=asked.model.device,
        dtype=asked.model.dtype,
    )
    if not hasattr(session, "add_point_inputs"):
        raise RecordingError(f"{asked.request.class_path}: what its session is told is not known")
    point = {
        "point_coords": torch.full((1, 1, 1, 2), side / 2),
        "point_labels": torch.full((1, 1, 1), _IS_THERE, dtype=torch.int32),
    }
    session.add_point_inputs(session.obj_id_to_idx(_OBJECT), 0, point)
    session.obj_with_new_inputs = [_OBJECT]
    return session


def _class_of(asked: AskedModel) -> Value:
    """Return the class that a model says its session is of, where that is the library's own."""
    told = asked.names[SESSION].annotation
    if isinstance(told, str):
        told = getattr(sys.modules[type(asked.model).__module__], told, None)
    is_its_own = inspect.isclass(told) and told.__module__.startswith("transformers.")
    if not is_its_own or "video" not in inspect.signature(told).parameters:
        raise RecordingError(f"{asked.request.class_path} does not say what its session is")
    return told

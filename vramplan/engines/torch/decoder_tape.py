"""What decoding takes in a pipeline without a tape, by the tape of its autoencoder alone.

Many pipelines share an autoencoder to the letter: FLUX.1's is that of Z-Image, Lumina 2 and
HiDream. What the whole run needs beside the weights is then known for its last phase, often the
one with the peak.
"""

from __future__ import annotations

from vramplan.engines.torch.cublas_workspace import cublas_band
from vramplan.engines.torch.pipeline import TorchPipeline
from vramplan.engines.torch.replayed import holds_at
from vramplan.engines.torch.run_limits import least_limits, limits_band
from vramplan.engines.torch.tape_files import look_for_tape, open_tape
from vramplan.model import Band, Settings
from vramplan.quick_dataclass import replace


def decoded_by_tape(
    pipeline: TorchPipeline, settings: Settings, compute_capability: str
) -> Band | None:
    """Return the bytes that decoding takes beside the weights and cuBLAS's workspace.

    None where there is no tape of the decoder alone that holds at these settings.
    """
    counted = pipeline.counted
    decoder = counted.decoder if counted is not None else None
    if counted is None or decoder is None or decoder.tape is None:
        return None
    dtype = decoder.dtype_in(str(settings.get("dtype")))
    asked = {key: settings[key] for key in ("image", "frames", "batch") if key in settings}
    at: Settings = {"mode": "decode", **asked, "dtype": dtype}
    for name in (f"{decoder.tape}.{dtype}", decoder.tape):
        alone = replace(
            pipeline,
            name=name,
            tape=name,
            defaults=at,
            loading="to",
            counted=None,
            saved=None,
            tape_within=None,
        )
        path = look_for_tape(alone)
        if path is None or not holds_at(alone, at, compute_capability, open_tape(path)):
            continue
        found = least_limits(alone, at, compute_capability)
        band = limits_band(
            found.low_bytes, found.expected_bytes, found.high_bytes, compute_capability
        )
        (weights,) = (part for part in counted.parts if part.name == decoder.part)
        held = weights.bytes_in(dtype) + cublas_band(compute_capability)[0].expected_bytes
        return Band(
            low_bytes=max(0, band.low_bytes - held),
            expected_bytes=max(0, band.expected_bytes - held),
            high_bytes=max(0, band.high_bytes - held),
        )
    return None

#!/usr/bin/env bash
# faster-whisper: features are made of the whole recording at once: sixteen times its samples, 11 GB for three hours.
#
# Guess: Whisper hears 30 seconds at a time, so an hour of sound costs its samples, and a window's features.
# Seen:  transcribe() makes the spectrum of all of it before the first window: frames that overlap two and a half
#        times, their complex spectra in two widths, and the magnitudes. The peak is 64 bytes a sample, 3.7 GB an
#        hour, in host memory. Its BatchedInferencePipeline cuts the sound first, and makes the features of each part
#        by themselves.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q faster-whisper==1.2.1 numpy==2.4.6
cat > "$folder/see.py" <<'PYTHON'
import inspect
import tracemalloc
from importlib.metadata import version

import numpy
from faster_whisper import BatchedInferencePipeline, WhisperModel
from faster_whisper.feature_extractor import FeatureExtractor

RATE = 16_000
print(*(f"{name} {version(name)}" for name in ("faster-whisper", "numpy")))
assert "self.feature_extractor(audio, chunk_length=chunk_length)" in inspect.getsource(WhisperModel.transcribe)
assert "self.model.feature_extractor(chunk)" in inspect.getsource(BatchedInferencePipeline.transcribe)
for seconds in (30, 120, 480):
    sound = numpy.zeros(RATE * seconds, numpy.float32)
    extract = FeatureExtractor()
    tracemalloc.start()
    features = extract(sound)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    print(f"{seconds} s: features {features.shape}, {features.nbytes / sound.nbytes:.2f} times the samples' bytes;",
          f"{peak / sound.nbytes:.1f} times at the peak, {peak / sound.size:.0f} bytes a sample")
    assert features.shape == (80, seconds * 100 + 1) and 15 < peak / sound.nbytes < 18
print(f"three hours: {64 * RATE * 3 * 3600 / 1e9:.1f} GB")
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }

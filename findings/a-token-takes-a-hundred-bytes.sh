#!/usr/bin/env bash
# tokenizers: a token that was encoded takes a hundred bytes, for an id of four, and transformers keeps them all.
#
# Guess: an encoding is its ids (4 bytes a token) and offsets into the text (16), and goes when the ids are taken out.
# Seen:  seven lists are made for each text whether they are read or not: ids, kinds, offsets, two masks, word
#        numbers, and each token's text as a string of its own: 98 bytes a token of three letters, so a gigabyte for
#        ten million. What a transformers tokenizer returns holds them as long as it lives (encodings), beside its own
#        lists of numbers.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q tokenizers==0.23.3 transformers==5.23.0
cat > "$folder/see.py" <<'PYTHON'
import pathlib
import subprocess
import sys
from importlib.metadata import version

TEXTS, TOKENS = 1000, 1000


def memory():
    line = next(line for line in pathlib.Path("/proc/self/status").open() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def measure(way):
    """Print the bytes a token that one way to encode leaves; a process for each, as freed memory is used again."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"[UNK]": 0, "one": 1, "two": 2}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    whole = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]")
    encode = {"ids alone": lambda texts: [words.encode(one).ids for one in texts], "transformers": whole}.get(
        way, words.encode_batch
    )
    text = "one two " * (TOKENS // 2)
    encode([text] * 4)
    before = memory()
    encoded = encode([text] * TEXTS)
    print((memory() - before) / (TEXTS * TOKENS))
    assert way != "transformers" or len(encoded.encodings) == TEXTS


if len(sys.argv) > 1:
    measure(sys.argv[1])
    raise SystemExit
print(*(f"{name} {version(name)}" for name in ("tokenizers", "transformers")))
for way, low, high in (("ids alone", 7, 15), ("encode_batch", 88, 115), ("transformers", 100, 140)):
    found = float(subprocess.run([sys.executable, __file__, way], check=True, capture_output=True, text=True).stdout)
    print(f"{way}: {found:.0f} bytes a token")
    assert low < found < high
PYTHON
"$folder/venv/bin/python" "$folder/see.py" 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }

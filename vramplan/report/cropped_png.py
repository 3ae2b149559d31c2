"""A picture of a page in a window that was too tall for it, without the blank below."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
#: channels of each colour type. Source: PNG specification, table 11.1
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
#: a page whose last rows are not alike has been cut; with so many, in pixels, it has not
_MARGIN = 48
_BLOCK = 1 << 20
_MOST_PIXELS = 1 << 27


def crop_png(picture: bytes) -> bytes | None:
    """Return `picture` without the rows at its end that are alike, but for a margin of them.

    Returns None where it has no such margin: the page went on below it. A row is filtered by the
    one before it, so that the first rows of a picture are a picture. Raises ValueError for what is
    no PNG of 8 bits that is written row by row.
    """
    header, kept, data = _chunks(picture)
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    if depth != 8 or colour not in _CHANNELS or interlaced or width * height > _MOST_PIXELS:
        raise ValueError("not a picture that can be cropped")
    size = 1 + width * _CHANNELS[colour]
    alike, last, found = 0, b"", 0
    for row in _rows(data, size):
        alike = alike + 1 if row == last else 0
        last = row
        found += 1
    if found != height:
        raise ValueError("a picture with rows missing")
    if alike < _MARGIN:
        return None
    rows = height - alike + _MARGIN
    packer = zlib.compressobj(6)
    packed = [packer.compress(row) for _, row in zip(range(rows), _rows(data, size), strict=False)]
    body = b"".join([*packed, packer.flush()])
    head = struct.pack(">II", width, rows) + header[8:]
    parts = [_chunk(b"IHDR", head), *kept, _chunk(b"IDAT", body), _chunk(b"IEND", b"")]
    return _SIGNATURE + b"".join(parts)


def _chunks(picture: bytes) -> tuple[bytes, list[bytes], bytes]:
    """Return the header, the chunks before the data as they are, and the data, packed."""
    if not picture.startswith(_SIGNATURE):
        raise ValueError("no PNG")
    at, header, kept, data = len(_SIGNATURE), b"", [], []
    while at + 12 <= len(picture):
        (length,) = struct.unpack_from(">I", picture, at)
        kind, body = picture[at + 4 : at + 8], picture[at + 8 : at + 8 + length]
        if kind == b"IHDR":
            header = body
        elif kind == b"IDAT":
            data.append(body)
        elif kind != b"IEND" and not data:
            kept.append(_chunk(kind, body))
        at += 12 + length
    if len(header) != 13:
        raise ValueError("no PNG")
    return header, kept, b"".join(data)


def _rows(data: bytes, size: int) -> Iterator[bytes]:
    """Yield the rows of packed data, each with the byte of its filter before it."""
    unpacker, rest = zlib.decompressobj(), b""
    packed = data
    while packed or rest:
        block = unpacker.decompress(packed, _BLOCK)
        packed = unpacker.unconsumed_tail
        rest += block
        whole = len(rest) // size * size
        for at in range(0, whole, size):
            yield rest[at : at + size]
        rest = rest[whole:]
        if not block and not packed:
            break


def _chunk(kind: bytes, body: bytes) -> bytes:
    check = zlib.crc32(kind + body)
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", check)

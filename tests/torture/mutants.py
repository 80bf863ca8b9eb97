"""Damaged JPEG, PNG and TIFF files without end, each known by its number alone."""

import functools
import random
import struct
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image, PngImagePlugin

from tests.factories import encoded, png_chunk, tile

SIZE = (72, 56)
#: What a field of 1, 2 or 4 bytes holds when a parser is to be misled.
EXTREMES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF)
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

Mutation = Callable[[random.Random, bytes], bytes]


@functools.cache
def seeds() -> Mapping[str, bytes]:
    """Return sound files of every sort that is taken, by name."""
    rgb = tile(*SIZE, seed=3)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description " * 8
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "words " * 40)
    text.add_text("Packed", "words " * 200, zip=True)
    text.add_itxt("Author", "name " * 20, zip=True)
    deep = Image.fromarray((np.asarray(rgb.convert("L")).astype(np.uint16) * 257).astype(np.uint16))
    frames = [tile(*SIZE, seed=number) for number in (4, 5)]
    files = {
        "jpeg": encoded(rgb, "JPEG", quality=90),
        "jpeg progressive": encoded(rgb, "JPEG", quality=70, progressive=True),
        "jpeg grey": encoded(rgb.convert("L"), "JPEG"),
        "jpeg cmyk": encoded(rgb.convert("CMYK"), "JPEG"),
        "jpeg with exif": encoded(rgb, "JPEG", exif=exif, comment=b"a comment", icc_profile=b"profile" * 30),
        "jpeg with restarts": encoded(rgb, "JPEG", restart_marker_blocks=2, subsampling=0),
        "png": encoded(rgb, "PNG"),
        "png rgba": encoded(rgb.convert("RGBA"), "PNG"),
        "png palette": encoded(rgb.quantize(16), "PNG", transparency=b"\0\x80" * 4),
        "png grey and alpha": encoded(rgb.convert("LA"), "PNG"),
        "png one bit": encoded(rgb.convert("1"), "PNG"),
        "png 16 bit": encoded(deep, "PNG"),
        "png with text": encoded(rgb, "PNG", pnginfo=text, exif=exif, icc_profile=b"profile" * 30),
        "png animated": encoded(rgb, "PNG", save_all=True, append_images=frames),
        "tiff": encoded(rgb, "TIFF"),
        "tiff cmyk": encoded(rgb.convert("CMYK"), "TIFF"),
        "tiff 16 bit": encoded(deep, "TIFF"),
        "tiff float": encoded(rgb.convert("L").convert("F"), "TIFF"),
        "tiff pages": encoded(rgb, "TIFF", save_all=True, append_images=frames),
        "tiff big": encoded(rgb, "TIFF", big_tiff=True),
        "tiff palette": encoded(rgb.quantize(16), "TIFF"),
        "tiff group4": encoded(rgb.convert("1"), "TIFF", compression="group4"),
    }
    for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        files[f"tiff {name}"] = encoded(rgb, "TIFF", compression=name)
    return files


def mutant(seed: int, number: int) -> bytes:
    """Return the damaged file of this number; the same for the same seed."""
    dice = random.Random(f"{seed}-{number}")
    body = dice.choice(list(seeds().values()))
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        # Damage that knows the format goes deeper: past the checksums, into one field.
        body = dice.choice((_by_structure, _by_structure, *_BLIND))(dice, body)
    return body


def _flip_bytes(dice: random.Random, body: bytes) -> bytes:
    changed, reach = bytearray(body), dice.choice((64, 700, len(body)))
    for _ in range(dice.randrange(1, 9)):
        if changed:
            changed[dice.randrange(min(len(changed), reach))] = dice.randrange(256)
    return bytes(changed)


def _flip_a_bit(dice: random.Random, body: bytes) -> bytes:
    changed = bytearray(body)
    if changed:
        changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
    return bytes(changed)


def _truncate(dice: random.Random, body: bytes) -> bytes:
    return body[: dice.randrange(len(body) + 1)]


def _cut_out(dice: random.Random, body: bytes) -> bytes:
    start, end = _slice(dice, body)
    return body[:start] + body[end:]


def _repeat(dice: random.Random, body: bytes) -> bytes:
    start, end = _slice(dice, body)
    return body[:end] + body[start:end] * dice.randrange(1, 5) + body[end:]


def _insert(dice: random.Random, body: bytes) -> bytes:
    at = dice.randrange(len(body) + 1)
    return body[:at] + dice.randbytes(dice.randrange(1, 40)) + body[at:]


def _blank(dice: random.Random, body: bytes) -> bytes:
    start, end = _slice(dice, body)
    return body[:start] + dice.choice((b"\0", b"\xff")) * (end - start) + body[end:]


def _put_an_extreme(dice: random.Random, body: bytes) -> bytes:
    width = dice.choice((1, 2, 4))
    at = dice.randrange(max(1, min(len(body), dice.choice((128, 1000, len(body) + 1))) - width))
    value = dice.choice(EXTREMES) & (256**width - 1)
    return body[:at] + value.to_bytes(width, dice.choice(("big", "little"))) + body[at + width :]


def _splice(dice: random.Random, body: bytes) -> bytes:
    other = dice.choice(list(seeds().values()))
    return body[: dice.randrange(len(body) + 1)] + other[dice.randrange(len(other)) :]


def _slice(dice: random.Random, body: bytes) -> tuple[int, int]:
    start = dice.randrange(len(body) + 1)
    return start, min(len(body), start + dice.randrange(1, 200))


_BLIND: tuple[Mutation, ...] = (
    *(_flip_bytes, _flip_a_bit, _truncate, _cut_out, _repeat, _insert, _blank, _put_an_extreme, _splice),
)


def _by_structure(dice: random.Random, body: bytes) -> bytes:
    """Damage one part of the file and leave the rest, its checksum included, in order."""
    try:
        if body.startswith(_PNG_SIGNATURE):
            return _damage_png(dice, body)
        if body.startswith(b"\xff\xd8"):
            return _damage_jpeg(dice, body)
        if body.startswith(b"II"):
            return _damage_tiff(dice, body)
    except (struct.error, IndexError, ValueError):
        pass  # what came before has left too little of a structure
    return _flip_bytes(dice, body)


def _damage_png(dice: random.Random, body: bytes) -> bytes:
    chunks, at = [], len(_PNG_SIGNATURE)
    while at + 8 <= len(body):
        (length,) = struct.unpack_from(">I", body, at)
        chunks.append((body[at + 4 : at + 8], body[at + 8 : at + 8 + length]))
        at += 12 + length
    which = dice.randrange(len(chunks))
    kind, content = chunks[which]
    deed = dice.randrange(5)
    if deed == 0:
        chunks[which] = (kind, _flip_bytes(dice, content))
    elif deed == 1:
        chunks[which] = (kind, _put_an_extreme(dice, content))
    elif deed == 2:
        chunks.insert(dice.randrange(len(chunks)), (kind, content))
    elif deed == 3:
        del chunks[which]
    else:
        chunks[which] = (
            dice.choice((b"tRNS", b"PLTE", b"acTL", b"fcTL", b"iCCP", b"eXIf", b"IDAT")),
            content,
        )
    return _PNG_SIGNATURE + b"".join(png_chunk(*chunk) for chunk in chunks)


def _damage_jpeg(dice: random.Random, body: bytes) -> bytes:
    segments, at = [], 2
    while at + 4 <= len(body) and body[at] == 0xFF and body[at + 1] != 0xDA:
        (length,) = struct.unpack_from(">H", body, at + 2)
        segments.append((body[at + 1], body[at + 4 : at + 2 + length]))
        at += 2 + length
    which = dice.randrange(len(segments))
    marker, content = segments[which]
    deed = dice.randrange(5)
    if deed == 0:
        segments[which] = (marker, _flip_bytes(dice, content))
    elif deed == 1:
        segments[which] = (marker, _put_an_extreme(dice, content))
    elif deed == 2:
        segments.insert(dice.randrange(len(segments)), (marker, content))
    elif deed == 3:
        del segments[which]
    else:
        segments[which] = (dice.choice((0xC0, 0xC1, 0xC2, 0xC3, 0xC4, 0xC9, 0xDB, 0xDD, 0xE1, 0xEE)), content)
    written = [
        bytes((0xFF, marker)) + struct.pack(">H", len(content) + 2) + content for marker, content in segments
    ]
    return body[:2] + b"".join(written) + body[at:]


def _damage_tiff(dice: random.Random, body: bytes) -> bytes:
    """Change the tag, the type, the count or the value of one entry of the first directory."""
    (start,) = struct.unpack_from("<I", body, 4)
    (count,) = struct.unpack_from("<H", body, start)
    entry = start + 2 + 12 * dice.randrange(count)
    at, width = dice.choice(((0, 2), (2, 2), (4, 4), (8, 4), (8, 2)))
    value = dice.choice((*EXTREMES, dice.randrange(20), dice.randrange(len(body)))) & (256**width - 1)
    at += entry
    return body[:at] + value.to_bytes(width, "little") + body[at + width :]

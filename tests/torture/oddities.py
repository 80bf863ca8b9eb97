"""Files that somebody would send to break a decoder, each made by hand, with what must become of it."""

import struct
import zipfile
import zlib
from collections.abc import Mapping

from PIL import Image, PngImagePlugin

from tests import factories
from tests.factories import encoded, png_chunk, png_file, tile

#: Never answered; answered; or either, as long as it is said properly.
REFUSED, ANSWERED, EITHER = "refused", "answered", "either"
SIZE = (64, 48)

_IFD_TYPES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 12: 8}


def tiff_file(entries: Mapping[int, tuple[int, int, int]], pixels: bytes, order: str, next_ifd: int) -> bytes:
    """Return a TIFF of one directory: tag -> (type, count, value or offset); pixels follow the directory."""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    rows = [
        struct.pack(f"{order}HHI", tag, kind, count)
        + (
            struct.pack(f"{order}HH", value, 0)
            if _IFD_TYPES.get(kind) == 2 and count == 1
            else struct.pack(f"{order}I", value)
        )
        for tag, (kind, count, value) in sorted(entries.items())
    ]
    directory = struct.pack(f"{order}H", len(rows)) + b"".join(rows) + struct.pack(f"{order}I", next_ifd)
    return head + directory + pixels


def grey_tiff(
    width: int, height: int, order: str = "<", next_ifd: int = 0, **changed: tuple[int, int, int]
) -> bytes:
    """Return an uncompressed grey TIFF; keywords such as `t273` replace an entry."""
    entries = {
        256: (4, 1, width),
        257: (4, 1, height),
        258: (3, 1, 8),
        259: (3, 1, 1),
        262: (3, 1, 1),
        273: (4, 1, 8 + 2 + 9 * 12 + 4),
        277: (3, 1, 1),
        278: (4, 1, height),
        279: (4, 1, width * height),
        **{int(name[1:]): entry for name, entry in changed.items()},
    }
    return tiff_file(entries, b"\x80" * min(width * height, 10_000), order, next_ifd)


def _rgb_png_of_16_bits() -> bytes:
    rows = b"".join(b"\0" + b"\x40\x00\x80\x00\xc0\x00" * SIZE[0] for _ in range(SIZE[1]))
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", *SIZE, 16, 2, 0, 0, 0))
    return _png(header, png_chunk(b"IDAT", zlib.compress(rows)))


def _png(*chunks: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + png_chunk(b"IEND", b"")


def _png_with(*extra: bytes) -> bytes:
    """Return a sound grey PNG with these chunks before its pixels."""
    pixels = zlib.compress((b"\0" + b"\x80" * SIZE[0]) * SIZE[1])
    return png_file(*SIZE, pixels, *extra)


def _palette_png(entries: int, index: int) -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", *SIZE, 8, 3, 0, 0, 0))
    palette = png_chunk(b"PLTE", b"\xc0\x40\x80" * entries) if entries else b""
    return _png(
        header, palette, png_chunk(b"IDAT", zlib.compress((b"\0" + bytes((index,)) * SIZE[0]) * SIZE[1]))
    )


def _with_exif(block: bytes) -> bytes:
    return encoded(tile(*SIZE), "JPEG", exif=b"Exif\0\0" + block)


def _jpeg_with(*segments: bytes) -> bytes:
    image = factories.jpeg_bytes(*SIZE)
    return image[:2] + b"".join(segments) + image[2:]


def _segment(marker: int, content: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(content) + 2) + content


def _many_scans(count: int) -> bytes:
    """Return a progressive JPEG whose last scan comes again and again: each is a pass over the picture."""
    image = encoded(tile(512, 512), "JPEG", progressive=True)
    last = image.rindex(b"\xff\xda")
    return image[:last] + image[last:-2] * count + b"\xff\xd9"


def _animated(image_format: str, frames: int) -> bytes:
    pictures = [tile(*SIZE, seed=number) for number in range(frames)]
    return encoded(pictures[0], image_format, save_all=True, append_images=pictures[1:])


def _text(**words: str) -> bytes:
    info = PngImagePlugin.PngInfo()
    for key, value in words.items():
        info.add_text(key, value)
    return encoded(tile(*SIZE), "PNG", pnginfo=info)


def oddities() -> dict[str, tuple[bytes, str]]:
    """Return them all by name: the file, and what must become of it."""
    jpeg, png, tiff = factories.jpeg_bytes(*SIZE), factories.png_bytes(*SIZE), factories.tiff_bytes(*SIZE)
    return {
        **_fragments(jpeg, png, tiff),
        **_vast(),
        **_disguised(jpeg, png),
        **_rare(),
        **_looping(),
        **_stuffed(),
    }


def _fragments(jpeg: bytes, png: bytes, tiff: bytes) -> dict[str, tuple[bytes, str]]:
    whole = {"jpeg": jpeg, "png": png, "tiff": tiff}
    return {
        "zero bytes": (b"", REFUSED),
        "one byte": (b"\xff", REFUSED),
        "only zeros": (b"\0" * 5000, REFUSED),
        **{f"{name}: only its signature": (body[:8], REFUSED) for name, body in whole.items()},
        **{f"{name}: its first half": (body[: len(body) // 2], REFUSED) for name, body in whole.items()},
        **{f"{name}: all but its last byte": (body[:-1], REFUSED) for name, body in whole.items()},
        **{f"{name}: twice over": (body * 2, ANSWERED) for name, body in whole.items()},
        "jpeg: two end markers in a row": (b"\xff\xd8\xff\xd9\xff\xd9", REFUSED),
        "png: no pixels": (_png(png_chunk(b"IHDR", struct.pack(">IIBBBBB", *SIZE, 8, 0, 0, 0, 0))), REFUSED),
        "png: a wrong checksum in its header": (png[:29] + b"\0\0\0\0" + png[33:], REFUSED),
        "png: too few pixels": (png_file(*SIZE, zlib.compress(b"\0" * 100)), REFUSED),
        "png: pixels that are no stream": (png_file(*SIZE, b"no deflate stream"), REFUSED),
    }


def _vast() -> dict[str, tuple[bytes, str]]:
    return {
        "png: 65,500 x 65,500 in its header": (factories.png_with_huge_header(), REFUSED),
        "jpeg: 65,500 x 65,500 in its header": (factories.jpeg_with_huge_header(), REFUSED),
        "tiff: 65,500 x 65,500 in its header": (grey_tiff(65_500, 65_500), REFUSED),
        "png: 2^31 wide": (png_file(2**31 - 1, 1, zlib.compress(b"\0")), REFUSED),
        "png: 2^31 wide and high": (png_file(2**31 - 1, 2**31 - 1, zlib.compress(b"\0")), REFUSED),
        "png: 0 wide": (png_file(0, 48, zlib.compress(b"\0")), REFUSED),
        "tiff: 0 high": (grey_tiff(64, 0), REFUSED),
        "tiff: a strip of 4 GB": (grey_tiff(64, 48, t279=(4, 1, 2**32 - 1)), REFUSED),
        "png: a line, 1,000,000 x 1": (png_file(1_000_000, 1, zlib.compress(b"\0" * 1_000_001)), REFUSED),
        "png: 1 x 1": (png_file(1, 1, zlib.compress(b"\0\0")), REFUSED),
        "png: bomb over the limit": (factories.png_bomb(), REFUSED),
        "png: bomb just under the limit": (factories.png_bomb(4000, 4000), ANSWERED),
        "png: text bomb": (factories.png_with_text_bomb(), REFUSED),
        "png: profile bomb": (
            _png_with(png_chunk(b"iCCP", b"name\0\0" + zlib.compress(b"\0" * 60_000_000, 9))),
            EITHER,
        ),
        "png: international text bomb": (
            _png_with(png_chunk(b"iTXt", b"key\0\1\0\0\0" + zlib.compress(b"\0" * 60_000_000, 9))),
            EITHER,
        ),
        "tiff: deflate bomb": (
            encoded(Image.new("L", (8000, 8000)), "TIFF", compression="tiff_adobe_deflate"),
            REFUSED,
        ),
        "jpeg: bomb over the limit": (encoded(Image.new("L", (8000, 8000)), "JPEG"), REFUSED),
        "jpeg: 400 scans of one picture": (_many_scans(400), EITHER),
        "jpeg: 4,000 scans of a large picture": (factories.jpeg_of_scans(4000, 4096), REFUSED),
        "tiff: tiles far larger than their picture": (
            factories.tiff_of_tiles(4096, 64, 16, 1_000_000),
            REFUSED,
        ),
    }


def _disguised(jpeg: bytes, png: bytes) -> dict[str, tuple[bytes, str]]:
    others = {
        name: encoded(tile(*SIZE), name) for name in ("GIF", "BMP", "WEBP", "PPM", "ICO", "JPEG2000", "PDF")
    }
    archive = factories.zip_bytes({"index.html": b"<script>alert(1)</script>"}, zipfile.ZIP_STORED)
    return {
        **{f"a {name} file": (body, REFUSED) for name, body in others.items()},
        "an animated GIF": (_animated("GIF", 3), REFUSED),
        "an HTML page": (factories.html_page(), REFUSED),
        "an SVG drawing": (b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'/>", REFUSED),
        "a zip archive": (archive, REFUSED),
        "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 48\n", REFUSED),
        "a program": (b"\x7fELF" + b"\0" * 200, REFUSED),
        "a JPEG behind the signature of a PNG": (b"\x89PNG\r\n\x1a\n" + jpeg, REFUSED),
        "a PNG behind the start of a JPEG": (b"\xff\xd8\xff" + png, REFUSED),
        "a byte before a JPEG": (b"\0" + jpeg, REFUSED),
        "a GIF that is a JPEG further on": (b"GIF89a" + jpeg, REFUSED),
        "JPEG and zip archive at once": (jpeg + archive, ANSWERED),
        "PNG and zip archive at once": (png + archive, ANSWERED),
        "JPEG with a web page in a comment": (_jpeg_with(_segment(0xFE, factories.html_page())), ANSWERED),
        "PNG with a web page as its text": (_text(Comment=factories.html_page().decode()), ANSWERED),
    }


def _rare() -> dict[str, tuple[bytes, str]]:
    rgb = tile(*SIZE)
    cmyk = bytearray(encoded(rgb.convert("CMYK"), "JPEG"))
    return {
        "jpeg: CMYK": (bytes(cmyk), ANSWERED),
        "jpeg: grey": (encoded(rgb.convert("L"), "JPEG"), ANSWERED),
        "jpeg: progressive": (encoded(rgb, "JPEG", progressive=True), ANSWERED),
        "jpeg: an arithmetic coding that is none": (
            factories.jpeg_bytes(*SIZE).replace(b"\xff\xc0", b"\xff\xc9", 1),
            EITHER,
        ),
        "jpeg: lossless, which is not decoded": (
            factories.jpeg_bytes(*SIZE).replace(b"\xff\xc0", b"\xff\xc3", 1),
            REFUSED,
        ),
        "png: 16 bits grey": (encoded(Image.new("I;16", SIZE, 30_000), "PNG"), ANSWERED),
        "png: 16 bits RGB": (_rgb_png_of_16_bits(), ANSWERED),
        "png: one bit": (encoded(rgb.convert("1"), "PNG"), ANSWERED),
        "png: palette": (_palette_png(256, 7), ANSWERED),
        "png: palette that is missing": (_palette_png(0, 7), EITHER),
        "png: colours beyond the palette": (_palette_png(4, 200), EITHER),
        "png: all transparent": (encoded(Image.new("RGBA", SIZE, (9, 9, 9, 0)), "PNG"), ANSWERED),
        "png: animated": (_animated("PNG", 4), ANSWERED),
        "png: animated, 2^32 - 1 frames promised": (
            _png_with(png_chunk(b"acTL", struct.pack(">II", 2**32 - 1, 0))),
            EITHER,
        ),
        "png: animated, no frame": (_png_with(png_chunk(b"acTL", struct.pack(">II", 0, 0))), EITHER),
        "png: gamma of zero": (_png_with(png_chunk(b"gAMA", b"\0\0\0\0")), ANSWERED),
        "png: chunk of a kind that nobody knows": (_png_with(png_chunk(b"zzZz", b"?" * 100)), ANSWERED),
        "tiff: big-endian": (grey_tiff(*SIZE, order=">"), ANSWERED),
        "tiff: three pages": (_animated("TIFF", 3), ANSWERED),
        "tiff: not a number": (encoded(Image.new("F", SIZE, float("nan")), "TIFF"), REFUSED),
        "tiff: infinite": (encoded(Image.new("F", SIZE, float("inf")), "TIFF"), REFUSED),
        **{
            f"tiff: compression {number}": (grey_tiff(*SIZE, t259=(3, 1, number)), EITHER)
            for number in (2, 3, 4, 5, 6, 7, 8, 34_712, 34_925, 50_000, 65_535)
        },
    }


def _looping() -> dict[str, tuple[bytes, str]]:
    # A directory of one entry at 8 whose next directory is at 8 as well.
    exif_loop = b"II*\0\x08\0\0\0" + struct.pack("<HHHIII", 1, 0x0112, 3, 1, 6, 8)
    sub_loop = b"II*\0\x08\0\0\0" + struct.pack("<HHHIII", 1, 0x8769, 4, 1, 8, 0)
    text_orientation = b"II*\0\x08\0\0\0" + struct.pack("<HHHI4sI", 1, 0x0112, 2, 4, b"up\0\0", 0)
    return {
        "jpeg: EXIF whose next directory is itself": (_with_exif(exif_loop), ANSWERED),
        "jpeg: EXIF that contains itself": (_with_exif(sub_loop), ANSWERED),
        "jpeg: EXIF turned to nowhere": (
            _with_exif(exif_loop.replace(b"\x06\0\0\0\x08", b"\x63\0\0\0\0")),
            ANSWERED,
        ),
        "jpeg: EXIF turned by a word": (_with_exif(text_orientation), ANSWERED),
        "png: EXIF whose next directory is itself": (_png_with(png_chunk(b"eXIf", exif_loop)), ANSWERED),
        "tiff: next directory is itself": (grey_tiff(*SIZE, next_ifd=8), ANSWERED),
        "tiff: directory of directories is itself": (grey_tiff(*SIZE, t330=(4, 1, 8)), EITHER),
        "tiff: pixels inside the directory": (grey_tiff(*SIZE, t273=(4, 1, 8)), EITHER),
        "tiff: strips that overlap, 65,535 of them": (
            grey_tiff(*SIZE, t273=(4, 65_535, 0), t279=(4, 65_535, 0)),
            EITHER,
        ),
    }


def _stuffed() -> dict[str, tuple[bytes, str]]:
    return {
        "png: a text of 4 MB": (_text(Comment="a" * 4_000_000), EITHER),
        "png: 5,000 texts": (_text(**{f"key{number}": "words" for number in range(5_000)}), EITHER),
        "png: 50,000 empty pixel chunks": (_png_with(png_chunk(b"IDAT", b"") * 50_000), EITHER),
        "png: a text whose name is NUL": (_png_with(png_chunk(b"tEXt", b"\0\0\0words")), EITHER),
        "png: a text that holds NUL": (_png_with(png_chunk(b"tEXt", b"key\0wo\0rds\0")), EITHER),
        "jpeg: 2,000 comments": (_jpeg_with(*[_segment(0xFE, b"words")] * 2_000), ANSWERED),
        "jpeg: 200 comments of 64 KB": (_jpeg_with(*[_segment(0xFE, b"\0" * 65_000)] * 200), ANSWERED),
        "jpeg: 1,000 quantisation tables": (
            _jpeg_with(*[_segment(0xDB, b"\0" + b"\1" * 64)] * 1_000),
            ANSWERED,
        ),
        "jpeg: a profile in 255 parts": (
            _jpeg_with(
                *[_segment(0xE2, b"ICC_PROFILE\0" + bytes((n, 255)) + b"x" * 9) for n in range(1, 256)]
            ),
            ANSWERED,
        ),
        "jpeg: the trailer of a megabyte": (factories.jpeg_bytes(*SIZE) + b"trailer" * 150_000, ANSWERED),
    }

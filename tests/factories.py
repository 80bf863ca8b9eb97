"""Images and model versions for tests, drawn and written here so that nothing binary is committed."""

import hashlib
import io
import random
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

from PIL import Image, ImageDraw

from shared.manifest import (
    ClassInfo,
    ColourStatistics,
    FileDigest,
    Gates,
    GoldenTile,
    InputSpec,
    Manifest,
)


def tile(width: int = 64, height: int = 48, seed: int = 0) -> Image.Image:
    """Return an RGB image that looks a little like H&E: pink ground with purple nuclei."""
    draw_at = random.Random(seed)
    image = Image.new("RGB", (width, height), (232, 170, 205))
    canvas = ImageDraw.Draw(image)
    for _ in range(max(4, width * height // 200)):
        x, y, r = draw_at.randrange(width), draw_at.randrange(height), draw_at.randrange(1, 5)
        canvas.ellipse((x - r, y - r, x + r, y + r), fill=(88, 52, draw_at.randrange(110, 160)))
    return image


def encoded(image: Image.Image, image_format: str, **options: object) -> bytes:
    """Return the image as a file of this format."""
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def zip_bytes(files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return an archive of these files."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as made:
        for name, body in files.items():
            made.writestr(name, body)
    return packed.getvalue()


def jpeg_bytes(width: int = 64, height: int = 48, seed: int = 0) -> bytes:
    """Return a JPEG tile."""
    return encoded(tile(width, height, seed), "JPEG", quality=90)


def png_bytes(width: int = 64, height: int = 48, seed: int = 0) -> bytes:
    """Return a PNG tile."""
    return encoded(tile(width, height, seed), "PNG")


def tiff_bytes(width: int = 64, height: int = 48, seed: int = 0) -> bytes:
    """Return an uncompressed TIFF tile."""
    return encoded(tile(width, height, seed), "TIFF")


def truncated(image: bytes, keep: float = 0.5) -> bytes:
    """Return the first part of a file."""
    return image[: int(len(image) * keep)]


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """Return one chunk of a PNG, with its length and checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_file(width: int, height: int, pixels: bytes, *extra: bytes) -> bytes:
    """Return a grey 8-bit PNG with any header over any packed pixels; `extra` chunks come before them."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"".join(
        [b"\x89PNG\r\n\x1a\n", header, *extra, png_chunk(b"IDAT", pixels), png_chunk(b"IEND", b"")]
    )


def png_with_huge_header() -> bytes:
    """Return a PNG of a few bytes whose header claims 65,500 x 65,500 pixels."""
    return png_file(65_500, 65_500, zlib.compress(b"\0"))


def png_bomb(width: int = 12_000, height: int = 12_000) -> bytes:
    """Return a sound PNG of some hundred kilobytes that unpacks to width times height zero bytes."""
    packer = zlib.compressobj(9)
    row = b"\0" * (width + 1)
    return png_file(width, height, b"".join([*(packer.compress(row) for _ in range(height)), packer.flush()]))


def png_with_text_bomb() -> bytes:
    """Return a PNG whose text chunk unpacks to far more than it may."""
    text = png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"\0" * 50_000_000, 9))
    return png_file(8, 8, zlib.compress(b"\0" * 72), text)


def jpeg_with_huge_header() -> bytes:
    """Return a JPEG tile whose frame header claims 65,500 x 65,500 pixels."""
    image = jpeg_bytes()
    at = image.index(b"\xff\xc0")
    return image[: at + 5] + struct.pack(">HH", 65_500, 65_500) + image[at + 9 :]


def jpeg_of_markers(count: int) -> bytes:
    """Return what begins as a JPEG and goes on with empty segments."""
    return b"\xff\xd8" + b"\xff\xe1\0\x02" * count + b"\xff\xd9"


def jpeg_of_scans(count: int, side: int) -> bytes:
    """Return a progressive JPEG whose last scan, of some thirty bytes, comes so many times more."""
    image = encoded(Image.new("L", (side, side), 200), "JPEG", progressive=True)
    last = image[image.rindex(b"\xff\xda") : -2]
    return image[:-2] + last * count + image[-2:]


def png_of_chunks(count: int, kind: bytes = b"teXt") -> bytes:
    """Return a sound grey PNG of 64 x 64 pixels with so many empty chunks before its own."""
    return png_file(64, 64, zlib.compress(b"\0" * 64 * 65), png_chunk(kind, b"") * count)


def tiff_of_strips(count: int) -> bytes:
    """Return a grey TIFF, a pixel wide, with a strip for each row."""
    shorts = [(256, 1), (257, count), (258, 8), (259, 1), (262, 1), (277, 1), (278, 1)]
    tags = [struct.pack("<HHLL", tag, 4, 1, value) for tag, value in shorts]
    behind = 8 + 2 + 12 * (len(shorts) + 2) + 4
    tags += [
        struct.pack("<HHLL", 273, 4, count, behind),
        struct.pack("<HHLL", 279, 4, count, behind + 4 * count),
    ]
    lists = struct.pack("<L", 8) * count + struct.pack("<L", 1) * count
    return b"II*\0" + struct.pack("<LH", 8, len(tags)) + b"".join(sorted(tags)) + bytes(4) + lists


def tiff_of_tiles(width: int, height: int, tile_width: int, tile_height: int, kind: int = 4) -> bytes:
    """Return a grey TIFF of one deflated tile, as often as its picture needs; `kind` is that of its sides."""
    packed = zlib.compress(bytes(tile_width * tile_height))
    count = -(-width // tile_width) * -(-height // tile_height)
    sizes = [(256, width), (257, height), (258, 8), (259, 8), (262, 1), (277, 1)]
    sizes += [(322, tile_width), (323, tile_height)]
    tags = [struct.pack("<HHLL", tag, kind if tag >= 322 else 4, 1, value) for tag, value in sizes]
    behind = 8 + 2 + 12 * (len(tags) + 2) + 4
    # Of one tile, place and size stand in the directory itself.
    lists = [(324, behind + 8 * count), (325, len(packed))]
    tags += [
        struct.pack("<HHLL", tag, 4, count, value if count == 1 else behind + 4 * count * (tag - 324))
        for tag, value in lists
    ]
    directory = b"II*\0" + struct.pack("<LH", 8, len(tags)) + b"".join(tags) + bytes(4)
    return directory + b"".join(struct.pack("<L", value) * count for _, value in lists) + packed


def html_page() -> bytes:
    """Return what a broken proxy sends instead of an image."""
    return b"<!doctype html><html><head><title>502</title></head><body>Bad Gateway</body></html>"


def write_model(folder: Path, version: str = "1.0.0", model: str = "lung-cnn") -> Path:
    """Write a version whose weights are no weights: the API never opens them."""
    folder.mkdir()
    files = {"weights.keras": f"weights of {version}".encode(), "golden-0.png": b"golden tile"}
    for name, body in files.items():
        (folder / name).write_bytes(body)
    names = ("lung_n", "lung_aca", "lung_scc")
    identity = tuple(tuple(float(row == column) for column in range(6)) for row in range(6))
    manifest = Manifest(
        name=model,
        version=version,
        created_at="2026-01-01T00:00:00Z",
        licence="Apache-2.0",
        intended_use="tests",
        weights="weights.keras",
        logits_layer="logits",
        features_layer="features",
        classes=tuple(ClassInfo(name=name, label=name, malignant=name != "lung_n") for name in names),
        input=InputSpec(width=224, height=224, resample="bilinear"),
        temperature=1.0,
        indeterminate_below=0.5,
        gates=Gates(
            background_level=220,
            background_reject=0.9,
            background_warn=0.5,
            sharpness_low=10,
            sharpness_high=1000,
            domain_distance=6,
            colour=(ColourStatistics(class_name="lung_n", mean=(0.0,) * 6, inverse_covariance=identity),),
        ),
        golden=(GoldenTile(file="golden-0.png", probabilities=(0.1, 0.8, 0.1)),),
        golden_tolerance=0.01,
        files=tuple(
            FileDigest(name=name, bytes=len(body), sha256=hashlib.sha256(body).hexdigest())
            for name, body in files.items()
        ),
        metrics={},
        training={},
    )
    (folder / "manifest.json").write_text(manifest.model_dump_json())
    return folder

"""Every kind of upload becomes upright RGB, or one of three errors."""

import io
import struct
import threading
import time
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from shared.errors import CallerError, ImageTooLarge, InvalidImage, UnsupportedImageFormat
from tests import factories as make
from worker.engine import decode as decode_module
from worker.engine.decode import Decoded, decode, decode_picture

LIMIT = 4_000_000
SIDE = 40
PINK = (220, 120, 180)


def encode(image: Image.Image, format_name: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format_name, **options)
    return file.getvalue()


def plain(mode: str, colour: object) -> Image.Image:
    return Image.new(mode, (SIDE, SIDE), colour)  # type: ignore[arg-type]  # a colour's type depends on mode


def decoded(data: bytes) -> NDArray[np.uint8]:
    return decode(data, LIMIT)


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_with_header(width: int, height: int, depth: int, colour_type: int, rows: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(name, body) for name, body in chunks)


@pytest.mark.parametrize("format_name", ["PNG", "TIFF"])
def test_a_lossless_image_comes_out_pixel_for_pixel(format_name: str) -> None:
    """RGB stays RGB, height before width, uint8."""
    pixels = np.random.default_rng(1).integers(0, 256, (33, 47, 3), dtype=np.uint8)
    received = decoded(encode(Image.fromarray(pixels), format_name))
    assert received.dtype == np.uint8
    np.testing.assert_array_equal(received, pixels)


def test_a_jpeg_comes_out_nearly_as_it_went_in() -> None:
    """JPEG is decoded to RGB, within its own losses."""
    received = decoded(encode(plain("RGB", PINK), "JPEG", quality=95))
    assert np.abs(received.astype(int) - PINK).max() <= 3


@pytest.mark.parametrize("format_name", ["GIF", "BMP", "WEBP", "PPM", "ICO", "JPEG2000"])
def test_another_image_format_is_unsupported(format_name: str) -> None:
    """A parser that is not allowed is not tried, even for a perfectly good file."""
    with pytest.raises(UnsupportedImageFormat, match=r"Expected a JPEG, PNG or TIFF"):
        decoded(encode(plain("RGB", PINK), format_name))


@pytest.mark.parametrize("data", [b"hello", b"<!doctype html><html></html>", b"%PDF-1.7", b"\x00" * 500])
def test_content_that_is_no_image_is_unsupported(data: bytes) -> None:
    """Text, HTML, a PDF and zeros are of another kind, not damaged images."""
    with pytest.raises(UnsupportedImageFormat):
        decoded(data)


def test_an_empty_upload_is_an_invalid_image() -> None:
    """Nothing at all is named as such."""
    with pytest.raises(InvalidImage, match="0 bytes"):
        decoded(b"")


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("kept", [0.02, 0.3, 0.6, 0.95])
def test_a_truncated_image_is_an_invalid_image(format_name: str, kept: float) -> None:
    """Half a picture is never classified, wherever it breaks off."""
    noise = Image.fromarray(np.random.default_rng(2).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    data = encode(noise, format_name)
    with pytest.raises(InvalidImage):
        decoded(data[: int(len(data) * kept)])


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "TIFF"])
def test_flipped_bytes_never_raise_anything_but_a_caller_error(format_name: str) -> None:
    """Whatever a damaged file does to Pillow, the caller gets a code or pixels."""
    random = np.random.default_rng(3)
    original = encode(Image.fromarray(random.integers(0, 256, (48, 48, 3), dtype=np.uint8)), format_name)
    for _ in range(150):
        data = bytearray(original)
        for position in random.integers(0, len(data), 4):
            data[position] = int(random.integers(0, 256))
        try:
            received = decoded(bytes(data))
        except CallerError:
            continue
        assert received.shape[2] == 3


@pytest.mark.parametrize(
    "data",
    [make.jpeg_of_scans(4000, 2000), make.tiff_of_tiles(1024, 64, 16, 100_000)],
    ids=["JPEG", "TIFF"],
)
def test_an_image_that_is_decoded_over_and_over_is_invalid(data: bytes) -> None:
    """A message that was accepted before the API refused such files does not hold the engine either."""
    began = time.process_time()
    with pytest.raises(InvalidImage):
        decoded(data)
    assert time.process_time() - began < 1


def test_tiles_are_decoded_as_before() -> None:
    """Four of them, of which three lie partly outside the picture."""
    assert not decoded(make.tiff_of_tiles(300, 200, 256, 128)).any()


def test_a_huge_header_is_too_large_before_any_pixel_is_decoded() -> None:
    """65,500 x 65,500 in a file of a few bytes costs nothing."""
    with pytest.raises(ImageTooLarge):
        decoded(png_with_header(65_500, 65_500, 8, 2, b""))


@pytest.mark.parametrize(("limit", "fits"), [(SIDE * SIDE, True), (SIDE * SIDE - 1, False)])
def test_the_pixel_limit_is_exact(limit: int, fits: bool) -> None:
    """As many pixels as allowed are fine, one more is not."""
    data = encode(plain("RGB", PINK), "PNG")
    if fits:
        assert decode(data, limit).shape == (SIDE, SIDE, 3)
    else:
        with pytest.raises(ImageTooLarge, match=f"at most {limit} pixels"):
            decode(data, limit)


def test_an_image_over_pillows_own_limit_is_too_large() -> None:
    """A bomb warning of Pillow is an error here, even where our own limit would allow the size."""
    with pytest.raises(ImageTooLarge):
        decode(png_with_header(10_000, 10_000, 8, 2, b""), 10**12)


@pytest.mark.parametrize(("width", "height", "fits"), [(50, 30, True), (31, 31, False), (200, 15, False)])
def test_an_image_must_show_something(width: int, height: int, fits: bool) -> None:
    """Under 1,024 pixels, or under 16 a side, there is no tissue to judge."""
    data = encode(Image.new("RGB", (width, height), PINK), "PNG")
    if fits:
        assert decoded(data).shape == (height, width, 3)
    else:
        with pytest.raises(InvalidImage, match=r"Expected at least 1024 pixels"):
            decoded(data)


def test_a_png_text_bomb_is_an_invalid_image() -> None:
    """Pillow raises a bare ValueError for it."""
    info = PngImagePlugin.PngInfo()
    for number in range(70):
        info.add_text(f"k{number}", "x" * 1_000_000, zip=True)
    with pytest.raises(InvalidImage):
        decoded(encode(plain("RGB", PINK), "PNG", pnginfo=info))


def test_an_error_says_nothing_of_the_files_content() -> None:
    """Pillow's own words can quote addresses and metadata; ours do not."""
    with pytest.raises(InvalidImage) as caught:
        decoded(encode(plain("RGB", PINK), "PNG")[:60])
    assert str(caught.value) == "Expected a complete image. Received one that is truncated or damaged."


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "TIFF"])
def test_the_exif_orientation_is_applied(orientation: int, format_name: str) -> None:
    """The red corner comes out at the upper left, however the camera was held."""
    upright = np.full((48, 64, 3), 200, np.uint8)
    upright[:24, :32] = (200, 0, 0)
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Image.Transpose that undoes each orientation
    stored = Image.fromarray(upright)
    if orientation in back:
        stored = stored.transpose(Image.Transpose(back[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    received = decoded(encode(stored, format_name, exif=exif))
    assert received.shape == (48, 64, 3)
    assert received[12, 16, 1] < 60
    assert received[36, 48, 1] > 150


@pytest.mark.parametrize(
    ("side", "least", "left"),
    [(768, None, 768), (768, 336, 384), (671, 336, 671), (672, 336, 336), (1344, 336, 336), (100, 336, 100)],
)
def test_a_jpeg_is_reduced_as_far_as_it_may_be(side: int, least: int | None, left: int) -> None:
    """By half, by half again, and to no less than what is asked for; its own size is still told."""
    found = decode_picture(encode(Image.new("RGB", (side, side), PINK), "JPEG"), LIMIT, least)
    assert (found.picture.size, found.width, found.height) == ((left, left), side, side)


def test_a_reduced_jpeg_shows_what_the_whole_one_does() -> None:
    """Averages of pixels, and not every second one, of which a resize makes something else."""
    field = np.random.default_rng(7).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    data = encode(Image.fromarray(field).resize((768, 768), Image.Resampling.BICUBIC), "JPEG", quality=90)
    whole, reduced = (decode_picture(data, LIMIT, least).picture for least in (None, 336))
    expected, received, picked = (
        np.asarray(picture.resize((224, 224)), np.int16)
        for picture in (whole, reduced, whole.resize((384, 384), Image.Resampling.NEAREST))
    )
    difference = np.abs(received - expected).mean()
    assert difference < 2
    assert difference < np.abs(picked - expected).mean() / 3


def test_a_reduced_jpeg_stands_upright() -> None:
    """Both its size and that of what was uploaded are turned with it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    found = decode_picture(encode(Image.new("RGB", (1600, 800)), "JPEG", exif=exif), LIMIT, 336)
    assert (found.picture.size, found.width, found.height) == ((400, 800), 800, 1600)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_a_reduced_jpeg_has_its_colours(mode: str) -> None:
    """Grey and inks too."""
    data = encode(Image.new("RGB", (768, 768), PINK).convert(mode), "JPEG")
    whole, reduced = (decode_picture(data, LIMIT, least).picture for least in (None, 336))
    assert reduced.size == (384, 384)
    np.testing.assert_array_equal(np.asarray(reduced), np.asarray(whole)[:384, :384])


@pytest.mark.parametrize("format_name", ["PNG", "TIFF"])
def test_nothing_but_a_jpeg_is_reduced(format_name: str) -> None:
    """Only its frequencies hold averages."""
    found = decode_picture(encode(Image.new("RGB", (768, 768), PINK), format_name), LIMIT, 336)
    assert found.picture.size == (768, 768)


def test_the_pixel_limit_counts_what_was_uploaded() -> None:
    """Not what a reduced JPEG has left."""
    with pytest.raises(ImageTooLarge, match="768 x 768"):
        decode_picture(encode(Image.new("RGB", (768, 768)), "JPEG"), 768 * 768 - 1, 336)


def test_damaged_exif_does_not_cost_the_image() -> None:
    """Metadata that cannot be read is dropped like all metadata."""
    data = encode(plain("RGB", PINK), "JPEG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff garbage")
    assert decoded(data).shape == (SIDE, SIDE, 3)


def half_transparent() -> Image.Image:
    image = plain("RGBA", (*PINK, 255))
    image.paste((0, 0, 0, 0), (0, 0, SIDE // 2, SIDE))
    return image


def grey_with_alpha() -> Image.Image:
    image = plain("LA", (90, 255))
    image.paste((0, 0), (0, 0, SIDE // 2, SIDE))
    return image


def palette(transparent: bool) -> bytes:
    image = plain("P", 1)
    image.putpalette([0, 0, 0, *PINK])
    image.paste(0, (0, 0, SIDE // 2, SIDE))
    return encode(image, "PNG", transparency=0) if transparent else encode(image, "PNG")


@pytest.mark.parametrize(
    ("data", "left", "right"),
    [
        pytest.param(encode(half_transparent(), "PNG"), (255, 255, 255), PINK, id="RGBA"),
        pytest.param(encode(half_transparent(), "TIFF"), (255, 255, 255), PINK, id="RGBA-TIFF"),
        pytest.param(encode(grey_with_alpha(), "PNG"), (255, 255, 255), (90, 90, 90), id="LA"),
        pytest.param(palette(transparent=False), (0, 0, 0), PINK, id="P"),
        pytest.param(palette(transparent=True), (255, 255, 255), PINK, id="P-transparent"),
    ],
)
def test_what_is_transparent_becomes_white(data: bytes, left: object, right: object) -> None:
    """An empty slide is white, so no tissue is white, whatever colour hid under the transparency."""
    received = decoded(data)
    assert tuple(received[5, 5]) == left
    assert tuple(received[5, -5]) == right


def test_half_an_alpha_is_half_white() -> None:
    """Alpha is composited and not cut off."""
    received = decoded(encode(plain("RGBA", (0, 0, 0, 128)), "PNG"))
    assert np.abs(received.astype(int) - 127).max() <= 1


def test_a_transparent_colour_of_an_rgb_png_becomes_white() -> None:
    """PNG can name one colour as transparent without an alpha channel."""
    received = decoded(encode(plain("RGB", PINK), "PNG", transparency=PINK))
    assert received.min() == 255


@pytest.mark.parametrize(
    ("mode", "value", "expected"), [("1", 1, 255), ("1", 0, 0), ("L", 77, 77)], ids=["white", "black", "grey"]
)
@pytest.mark.parametrize("format_name", ["PNG", "TIFF"])
def test_grey_and_black_and_white_become_rgb(mode: str, value: int, expected: int, format_name: str) -> None:
    """Three equal channels, at the full range."""
    received = decoded(encode(plain(mode, value), format_name))
    assert received.shape == (SIDE, SIDE, 3)
    assert (received == expected).all()


def deep_tiff(pixels: NDArray[np.generic]) -> bytes:
    return encode(Image.fromarray(pixels), "TIFF")


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        pytest.param(lambda: deep_tiff(np.full((SIDE, SIDE), 32_896, np.uint16)), 128, id="I;16"),
        pytest.param(lambda: deep_tiff(np.full((SIDE, SIDE), 32_896, np.int32)), 128, id="I"),
        pytest.param(lambda: deep_tiff(np.full((SIDE, SIDE), 0.5, np.float32)), 128, id="F-unit"),
        pytest.param(lambda: deep_tiff(np.full((SIDE, SIDE), 128.0, np.float32)), 128, id="F-8-bit"),
        pytest.param(lambda: deep_tiff(np.full((SIDE, SIDE), 32_896.0, np.float32)), 128, id="F-16-bit"),
        pytest.param(
            lambda: png_with_header(SIDE, SIDE, 16, 0, (b"\0" + b"\x80\x80" * SIDE) * SIDE), 128, id="PNG-16"
        ),
        pytest.param(
            lambda: png_with_header(SIDE, SIDE, 16, 2, (b"\0" + b"\x80\x80" * SIDE * 3) * SIDE),
            128,
            id="PNG-48-bit-RGB",
        ),
    ],
)
def test_deep_grey_levels_are_scaled_and_not_clipped(build: Callable[[], bytes], expected: int) -> None:
    """Half of the full scale is middle grey, in 16 and 32 bits and in floating point."""
    assert (decoded(build()) == expected).all()


@pytest.mark.parametrize(("low", "high"), [(-1e6, 1e6), (-1, 1), (0, 1e6)])
def test_grey_levels_of_no_customary_scale_are_stretched(low: float, high: float) -> None:
    """Negative and very large values keep their order: the darkest is black, the brightest is white."""
    ramp = np.linspace(low, high, SIDE * SIDE, dtype=np.float32).reshape(SIDE, SIDE)
    received = decoded(deep_tiff(ramp))
    assert received[0, 0, 0] == 0
    assert received[-1, -1, 0] == 255
    assert (np.diff(received[:, 0, 0].astype(int)) >= 0).all()


def test_grey_levels_that_are_not_finite_are_an_invalid_image() -> None:
    """NaN is no colour."""
    with pytest.raises(InvalidImage, match="finite"):
        decoded(deep_tiff(np.full((SIDE, SIDE), np.nan, np.float32)))


def without_adobe_marker(data: bytes) -> bytes:
    start = data.index(b"\xff\xee")
    length = struct.unpack(">H", data[start + 2 : start + 4])[0]
    return data[:start] + data[start + 2 + length :]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(encode(plain("CMYK", (0, 200, 0, 0)), "TIFF"), (255, 55, 255), id="TIFF"),
        pytest.param(
            encode(plain("CMYK", (0, 200, 0, 0)), "JPEG", quality=100), (255, 55, 255), id="Adobe JPEG"
        ),
        pytest.param(
            # Pillow stores the inverse; a reader that meets no Adobe marker must take the inks as they stand.
            without_adobe_marker(encode(plain("CMYK", (255, 55, 255, 255)), "JPEG", quality=100)),
            (255, 55, 255),
            id="plain JPEG",
        ),
    ],
)
def test_inks_become_the_colour_that_they_print(data: bytes, expected: tuple[int, int, int]) -> None:
    """CMYK is right in TIFF, in Adobe's inverted JPEG, and in JPEG that is not inverted."""
    assert np.abs(decoded(data).astype(int) - expected).max() <= 3


def test_a_ycck_jpeg_becomes_the_colour_that_it_prints() -> None:
    """The Adobe marker's transform 2 says that the inks are stored as luma and chroma."""
    data = bytearray(encode(plain("CMYK", (255, 255, 255, 0)), "JPEG", quality=100))
    data[data.index(b"Adobe") + 11] = 2
    # Stored 0, 0, 0, 255: as luma and chroma that is the green (0, 135, 0), inverted by Adobe's custom.
    assert np.abs(decoded(bytes(data)).astype(int) - (255, 120, 255)).max() <= 4


@pytest.mark.parametrize("format_name", ["PNG", "TIFF"])
def test_of_several_pictures_the_first_is_used(format_name: str) -> None:
    """An animated PNG and a TIFF of several pages are judged by their first picture."""
    data = encode(plain("RGB", PINK), format_name, save_all=True, append_images=[plain("RGB", (0, 0, 0))])
    assert tuple(decoded(data)[0, 0]) == PINK


def test_pixel_limits_hold_for_every_format() -> None:
    """A large TIFF and a large JPEG are refused by their header too."""
    for format_name in ("JPEG", "TIFF"):
        with pytest.raises(ImageTooLarge):
            decode(encode(Image.new("RGB", (300, 300)), format_name), 300 * 299)


@pytest.mark.parametrize(
    "data",
    [
        make.jpeg_of_markers(200_000),
        make.png_of_chunks(100_000),
        make.png_of_chunks(150_000, b"IDAT"),
        make.tiff_of_strips(70_000),
    ],
    ids=["segments", "chunks", "empty pixels", "strips"],
)
def test_a_file_of_next_to_nothing_but_steps_is_given_up(data: bytes) -> None:
    """Before it has cost seconds: the engine reads a file once for 64 bytes of it at the most."""
    with pytest.raises(InvalidImage):
        decoded(data)


def test_pixels_in_small_chunks_are_an_image() -> None:
    """As a program writes them that sends each row as it is made."""
    pixels = zlib.compress(bytes(65 * 64), 0)
    pieces = [pixels[start : start + 200] for start in range(0, len(pixels), 200)]
    header = make.png_chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 64, 8, 0, 0, 0, 0))
    chunks = [header, *(make.png_chunk(b"IDAT", piece) for piece in pieces), make.png_chunk(b"IEND", b"")]
    assert decoded(b"\x89PNG\r\n\x1a\n" + b"".join(chunks)).shape == (64, 64, 3)


@pytest.mark.parametrize(("kind", "shows"), [("PNG", True), ("JPEG", False), ("TIFF", False)])
def test_damage_between_the_ends_shows_by_a_checksum_alone(kind: str, shows: bool) -> None:
    """PNG has one; the others come out as pictures of something, as the reference says."""
    data = bytearray(make.encoded(make.tile(200, 200), kind))
    middle = len(data) // 2
    data[middle : middle + 10] = bytes(10)
    if shows:
        with pytest.raises(InvalidImage):
            decoded(bytes(data))
    else:
        assert decoded(bytes(data)).shape == (200, 200, 3)


def test_threads_that_decode_leave_each_other_their_filters(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bomb stays one although another thread is done, and the process has its own filters at the end."""
    before, decoding = list(warnings.filters), threading.Barrier(2)
    really_decode, other_is_done = decode_module._decode, threading.Event()

    def bomb(data: bytes, max_pixels: int, least_side: int | None) -> Decoded:
        decoding.wait(20)
        if data == b"bomb":
            assert other_is_done.wait(20)
            warnings.warn("many pixels", Image.DecompressionBombWarning, stacklevel=1)
        return really_decode(data, max_pixels, least_side)

    monkeypatch.setattr(decode_module, "_decode", bomb)
    with ThreadPoolExecutor(2) as pool:
        other = pool.submit(decode_picture, make.png_bytes(), LIMIT)
        threatened = pool.submit(decode_picture, b"bomb", LIMIT)
        assert other.result(20)
        other_is_done.set()
        with pytest.raises(ImageTooLarge):
            threatened.result(20)
    assert list(warnings.filters) == before

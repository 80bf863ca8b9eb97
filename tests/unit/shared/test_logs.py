"""What goes into the log, of all that libraries have to say."""

import struct
import subprocess
import sys

from PIL import Image

from tests import factories as make

_READ = """
import io, logging, sys
from api.images import read_header
from shared.logs import configure_logs
configure_logs(sys.argv[1], as_json=True)
read_header(io.BytesIO(sys.stdin.buffer.read()), 1_000_000)
logging.getLogger("tests").debug("the last line")
"""


def test_nothing_that_stands_in_an_image_is_logged() -> None:
    """Its EXIF may name a patient, and Pillow tells each tag to whoever debugs."""
    exif = Image.Exif()
    exif[0x010E] = "Erika Mustermann"
    for kind in ("JPEG", "TIFF"):
        image = make.encoded(make.tile(), kind, exif=exif)
        done = subprocess.run(
            [sys.executable, "-c", _READ, "DEBUG"], input=image, capture_output=True, check=True
        )
        assert b"the last line" in done.stderr
        assert b"Mustermann" not in done.stderr


def test_an_odd_header_does_not_fill_the_log() -> None:
    """Pillow warns of every tag that lies outside its file, and Python would keep each text."""
    tags = b"".join(struct.pack("<HHLL", 1000 + number, 7, 2**31, 8) for number in range(4000))
    image = make.tiff_bytes()
    (place,) = struct.unpack_from("<L", image, 4)
    (count,) = struct.unpack_from("<H", image, place)
    own = image[place + 2 : place + 2 + 12 * count]
    odd = image[:4] + struct.pack("<L", len(image)) + image[8:]
    odd += struct.pack("<H", count + 4000) + own + tags + bytes(4)
    program = f"import api.wsgi\n{_READ}"
    done = subprocess.run([sys.executable, "-c", program, "INFO"], input=odd, capture_output=True, check=True)
    assert done.stderr == b""

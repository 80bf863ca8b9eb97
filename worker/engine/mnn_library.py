"""Keep MNN's libraries from making the stack executable: `python worker/engine/mnn_library.py`.

Its wheels for x86 ask for that, by an oversight of their assembler code (alibaba/MNN, issue 3390). From
version 2.41 on glibc refuses such a library. Before, it obeys, for the whole process, and an engine decodes
what strangers send. So the installation clears the flag in the files, and an engine loads none that has it.

Uses the standard library alone: an image is built with this file and nothing else of ours.
"""

import argparse
import struct
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO, Final

#: What MNN installs beside its package: what runs a network, and what converts one.
LIBRARIES: Final = ("_mnncengine", "_tools")
# ELF-64, little endian (System V ABI, chapters 4 and 5).
_MAGIC: Final = b"\x7fELF\x02\x01"
_PT_GNU_STACK: Final = 0x6474E551
_PF_X: Final = 1


def asks_for_executable_stack(library: Path) -> bool:
    """Tell whether loading this file would make the stack executable; False for one that is no ELF-64.

    One that says nothing of the stack, or is cut short, counts as one that would.
    """
    with library.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            return False
        found = _stack_flags(file)
    return found is None or bool(found[1] & _PF_X)


def clear(library: Path) -> bool:
    """Take the wish for an executable stack out of a file; tell whether it was there."""
    with library.open("r+b") as file:
        found = _stack_flags(file)
        if found is None or not found[1] & _PF_X:
            return False
        position, flags = found
        file.seek(position)
        file.write(struct.pack("<I", flags & ~_PF_X))
    return True


def installed() -> list[Path]:
    """Return where MNN's libraries are; none where it is not installed."""
    specs = [find_spec(name) for name in LIBRARIES]
    return [Path(spec.origin) for spec in specs if spec is not None and spec.origin is not None]


def _stack_flags(file: BinaryIO) -> tuple[int, int] | None:
    """Return where the flags of the stack are in the file, and what they are."""
    file.seek(0)
    head = file.read(64)
    if len(head) < 64 or not head.startswith(_MAGIC):
        return None
    (table,) = struct.unpack_from("<Q", head, 32)
    size, count = struct.unpack_from("<HH", head, 54)
    for entry in range(table, table + size * count, size):
        file.seek(entry)
        start = file.read(8)
        if len(start) == 8 and start.startswith(struct.pack("<I", _PT_GNU_STACK)):
            return entry + 4, struct.unpack_from("<I", start, 4)[0]
    return None


if __name__ == "__main__":
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    for path in installed():
        if clear(path):
            print(f"{path.name} no longer asks for an executable stack")

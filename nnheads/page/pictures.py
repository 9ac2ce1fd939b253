"""Pictures of runs, as data within a page: only what is a PNG, and only as many as the page has
room for.

Files may be a stranger's. Their parts are walked and summed, and nothing is unpacked as an image
library would, so that a small file cannot fill the memory, and what is kept is what was written.
"""

from __future__ import annotations

import base64
import struct
import zlib
from pathlib import Path

from nnheads.errors import BadInput
from nnheads.runs.find import Finished

BUDGET = 1_500_000  # bytes that all pictures together add to a page
MOST_DOTS = (
    40_000_000  # of a picture: a small file can unpack to more than a browser has memory for
)
SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHUNKS = {
    b"IHDR",
    b"PLTE",
    b"tRNS",
    b"gAMA",
    b"sRGB",
    b"cHRM",
    b"pHYs",
    b"IDAT",
    b"IEND",
}  # what it takes to draw one


def add_pictures(runs: list[tuple[Finished, set[str], dict]]) -> None:
    """Give each run its `pictures`; and `unseen`, those that had to stay out, by name and with the
    reason.

    Args:
        runs: a run, the pictures that the page draws itself (names without ending), and where its
            own go. Each run's first picture comes before any other's second.

    Raises:
        BadInput: a file that is no PNG, or a broken one.
    """
    queue = []
    for run, drawn, target in runs:
        names = [
            name
            for name in run.files
            if name.endswith(".png") and name.removesuffix(".png") not in drawn
        ]
        queue += [(place, run, name, target) for place, name in enumerate(names)]
    room = BUDGET
    for _, run, name, target in sorted(queue, key=lambda one: one[0]):
        found = picture(run.folder / name, room)
        if isinstance(found, str):
            target["unseen"].append(f"{name}: {found}")
        else:
            target["pictures"].append({"name": name, **found})
            room -= len(found["data"])


def picture(path: Path, room: int) -> dict | str:
    """Return a picture as the page takes it: `data` (base64), `width`, `height`; or why there is
    none.
    """
    full = f"the page has room for {BUDGET / 1e6} MB of pictures"
    try:
        large = path.stat().st_size > BUDGET
        whole = b"" if large or not path.is_file() else path.read_bytes()
    except OSError as error:
        raise BadInput(
            f"{path} is named in run.json and cannot be read ({error.strerror}); run it again"
        ) from None
    if large:
        return full
    content, width, height = stripped(whole, path)
    if width * height > MOST_DOTS:
        return f"{width} x {height} dots are more than a page can show"
    data = base64.b64encode(content).decode()
    return {"data": data, "width": width, "height": height} if len(data) <= room else full


def stripped(content: bytes, path: Path) -> tuple[bytes, int, int]:
    """Return a PNG without its comments and whatever follows it; its width and height.

    Raises BadInput for anything else.
    """
    if not content.startswith(SIGNATURE):
        raise BadInput(f"{path} is no PNG picture; move it away, or make it again")
    kept, at = [SIGNATURE], len(SIGNATURE)
    width = height = 0
    while True:
        chunk = _chunk(content, at)
        first = at == len(SIGNATURE)
        if first and len(chunk) == 25:
            width, height = struct.unpack(">II", chunk[8:16])
        if not chunk or (chunk[4:8] == b"IHDR") != first or 0 in (width, height):
            raise BadInput(f"{path} is a broken PNG picture; make it again")
        if chunk[4:8] in CHUNKS:
            kept.append(chunk)
        if chunk[4:8] == b"IEND":
            return b"".join(kept), width, height
        at += len(chunk)


def _chunk(content: bytes, at: int) -> bytes:
    """Return a part of a PNG: length, name, content and the sum that shows it to be whole; nothing
    if it is not.
    """
    end = at + 12 + int.from_bytes(content[at : at + 4], "big")
    chunk = content[at:end]
    whole = at + 12 <= end <= len(content)
    return chunk if whole and zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big") else b""

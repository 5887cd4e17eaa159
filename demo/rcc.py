"""Qt's binary resource files (.rcc), read without Qt: a tree of names and the bytes behind them.

The layout, all numbers big-endian: a header of the magic "qres", the format version and three offsets (tree, data,
names); a tree of fixed-size nodes (name offset u32, flags u16, then for a folder: number of children u32, first child
u32; for a file: locale u32, data offset u32); names as u16 length, u32 hash, UTF-16; data as u32 length, bytes. Format
versions 2 and later end each node with a time stamp of 8 bytes. Source: Qt's rcc compiler and QResource.
"""

import struct
import zlib
from collections.abc import Iterator

MAGIC = b"qres"
IS_ZLIB, IS_FOLDER, IS_ZSTD = 1, 2, 4


class BadResource(ValueError):
    """The bytes are not a .rcc file that this module reads; the message says what was found."""


def files(resource: bytes) -> Iterator[tuple[str, bytes]]:
    """Each file of the resource as (path, content), folders before what follows them, paths without a leading slash.

    Raises BadResource for another magic, an offset outside of the bytes, or a file packed by zstd (none of the packages
    used here has one, so the dependency is spared).
    """
    if resource[:4] != MAGIC:
        raise BadResource(f"expected the magic {MAGIC!r}, found {resource[:4]!r}: not a Qt binary resource.")
    try:
        version, tree, data, names = struct.unpack_from(">4I", resource, 4)
        node_bytes = 22 if version >= 2 else 14
        yield from _walk(resource, (tree, data, names), node_bytes, 0, "")
    except (struct.error, zlib.error) as error:
        raise BadResource(f"the resource of {len(resource)} bytes is damaged ({error}); fetch its package again.") from error


def _walk(resource: bytes, offsets: tuple[int, int, int], node_bytes: int, node: int, parent: str) -> Iterator[tuple[str, bytes]]:
    tree, data, names = offsets
    at = tree + node * node_bytes
    name_at, flags = struct.unpack_from(">IH", resource, at)
    # The root, node 0, has no name of its own.
    path = f"{parent}/{_name(resource, names + name_at)}".lstrip("/") if node else ""
    if flags & IS_FOLDER:
        number, first = struct.unpack_from(">2I", resource, at + 6)
        for child in range(first, first + number):
            if child <= node:
                raise BadResource(f"node {node} ({path!r}) names node {child} as its child: a loop.")
            yield from _walk(resource, offsets, node_bytes, child, path)
    else:
        (data_at,) = struct.unpack_from(">I", resource, at + 10)
        yield path, _content(resource, data + data_at, flags, path)


def _name(resource: bytes, at: int) -> str:
    (length,) = struct.unpack_from(">H", resource, at)
    return resource[at + 6 : at + 6 + 2 * length].decode("utf-16-be")


def _content(resource: bytes, at: int, flags: int, path: str) -> bytes:
    (size_bytes,) = struct.unpack_from(">I", resource, at)
    content = resource[at + 4 : at + 4 + size_bytes]
    if len(content) < size_bytes:
        raise BadResource(f"{path!r} should have {size_bytes} bytes, the resource ends after {len(content)}.")
    if flags & IS_ZSTD:
        raise BadResource(f"{path!r} is packed by zstd, which is not read here; unpack it with Qt's own rcc --reverse.")
    # qCompress puts the unpacked size, 4 bytes, before the zlib stream.
    return zlib.decompress(content[4:]) if flags & IS_ZLIB else content

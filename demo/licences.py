"""Which licence a Debian package's copyright file gives to one of its files."""

import re
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

Stanzas = list[tuple[str, str]]
"""(pattern, licence) in the order of the copyright file; a later one outweighs an earlier one."""


def stanzas(copyright_text: str) -> Stanzas:
    """The `Files:` stanzas of a copyright file in Debian's machine-readable form; none for a free-form text.

    >>> stanzas("Files: a/*\\n b.png\\nLicense: CC0-1.0\\n text of it")
    [('a/*', 'CC0-1.0'), ('b.png', 'CC0-1.0')]
    """
    found: Stanzas = []
    for paragraph in re.split(r"\n\s*\n", copyright_text):
        fields = dict(re.findall(r"^(Files|License):[ \t]*(.*(?:\n[ \t]+.*)*)", paragraph, re.MULTILINE))
        if "Files" in fields and "License" in fields:
            licence = fields["License"].splitlines()[0].strip()
            found += [(pattern, licence) for pattern in fields["Files"].split()]
    return found


def licence_of(path: str, known: Stanzas, otherwise: str) -> str:
    """The licence of the last stanza whose pattern fits the end of `path`, else `otherwise`.

    Suffixes are left out, since packages convert: GCompris lists fish1.jpg and ships fish1.webp. The last fitting
    stanza counts, as in Debian's rule. Where none fits, the file's name alone decides, since packages also move what
    they install.

    >>> licence_of("x/src/fish1.webp", [("*", "GPL-2"), ("src/fish1.jpg", "CC0-1.0")], otherwise="?")
    'CC0-1.0'
    >>> licence_of("usr/share/sea.jpg", [("16.04/sea.jpg", "CC-BY-4.0")], otherwise="?")
    'CC-BY-4.0'
    """
    stem = "/" + str(PurePosixPath(path).with_suffix(""))
    for pattern, licence in reversed(known):
        if fnmatchcase(stem, "*/" + _without_suffix(pattern)):
            return licence
    for pattern, licence in reversed(known):
        if PurePosixPath(_without_suffix(pattern)).name == PurePosixPath(stem).name:
            return licence
    return otherwise


def _without_suffix(pattern: str) -> str:
    return re.sub(r"\.[A-Za-z]{3,4}$", "", pattern)

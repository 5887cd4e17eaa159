"""The fenced blocks of a page that carry a marker `<!-- example: NAME, appended to FILE -->`."""

import re
from pathlib import Path

PROJECT = Path(__file__).parents[2]
EXAMPLE = re.compile(r"<!-- example: (\w+), appended to (\S+) -->\n```python\n(.*?)```", re.DOTALL)


def examples(page: str) -> dict[str, tuple[str, str]]:
    """Name to (file, code) of every example of a page."""
    return {name: (file, code) for name, file, code in EXAMPLE.findall((PROJECT / page).read_text())}

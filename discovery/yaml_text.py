"""YAML that people write: read strictly, with the line of each key, so that a mistake is told where it stands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from discovery.errors import SpecError


def read_yaml(text: str, origin: str) -> tuple[Any, Any]:
    """(the tree of nodes, the values) of one document. Raises SpecError for what is no YAML, is nested too deeply, or has a key twice in one mapping."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        _refuse_double_keys(node, origin)
        return node, yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f":{mark.line + 1}" if mark else ""
        raise SpecError(f"{origin}{place}: not valid YAML: {getattr(error, 'problem', None) or str(error).splitlines()[0]}.") from error
    except RecursionError:
        raise SpecError(f"{origin}: lists and mappings are nested too deeply to be read. Look for brackets that are never closed.") from None
    except ValueError as error:  # a date that does not exist, a number of thousands of digits
        raise SpecError(f"{origin}: not valid YAML: {str(error).split(';')[0]}. Put text that looks like a date or a number in quotes.") from error


def line_of(node: Any, path: Sequence[Any]) -> int:
    """Line, from 1, of the key or item at a path; of the nearest parent when it is not in the text."""
    line = node.start_mark.line + 1
    for part in path:
        if isinstance(node, yaml.MappingNode):
            hit = next(((key, value) for key, value in node.value if key.value == str(part)), None)
            if hit is None:
                return int(line)
            line, node = hit[0].start_mark.line + 1, hit[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
    return int(line)


def _refuse_double_keys(root: Any, origin: str) -> None:
    left, seen = [root], set()
    while left:
        node = left.pop()
        if id(node) in seen:  # an anchor may be named many times, by itself too
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            first: dict[tuple[str, str], int] = {}
            for key, value in node.value:
                left.append(value)
                if not isinstance(key, yaml.ScalarNode):
                    continue
                name, line = (key.tag, key.value), key.start_mark.line + 1
                if name in first:
                    raise SpecError(f"{origin}:{line}: the key {key.value} is given twice, in line {first[name]} and in line {line}. Keep one of them.")
                first[name] = line
        elif isinstance(node, yaml.SequenceNode):
            left += node.value

"""What the readers of an export must know: pictures that they cannot open, classes that they number otherwise, names that become one on some disks."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

from discovery.adapters.exports.format import Format
from discovery.core.export_plan import EXTENSIONS, Example, ExportPlan, folder_name, same_names

NAMED = 5  # folders that a note names


def note_of(plan: ExportPlan, form: Format) -> str:
    """All notes as one text; empty when there is nothing to say."""
    return " ".join([*plan.notes, *_unread(plan, form), *(_folders(plan, form) if form.classes_are_folders else ())])


def _unread(plan: ExportPlan, form: Format) -> Iterator[str]:
    if plan.options.form == "original" and form.unread is not None:
        kinds = Counter(_kind(one) for one in plan.examples)
        found = [f"{what}: {kinds[kind]} {kind}" for kind, what in form.unread.items() if kinds[kind]]
        if found:
            yield f"{'; '.join(found)}. --as jpeg or --as png writes them anew."


def _kind(example: Example) -> str:
    return example.format if example.format in EXTENSIONS else "RAW"


def _folders(plan: ExportPlan, form: Format) -> Iterator[str]:
    kinds: dict[str, dict[str, set[str]]] = {split: defaultdict(set) for split in plan.splits}
    for example in plan.examples:
        kinds[example.split][folder_name(example.label)].add(_kind(example))
    unread = set(form.unread or ()) if plan.options.form == "original" else set()
    empty = [f"{folder_name(split)}/{folder}" for split, folders in kinds.items() for folder, found in sorted(folders.items()) if found <= unread]
    if empty:
        yield f"torchvision's ImageFolder ends with an error at folders of which it reads no picture: {_some(empty)}. --as jpeg or --as png avoids it."
    classes = [folder_name(label) for label in plan.classes]
    differing = {split: wrong for split, folders in kinds.items() if folders and (wrong := _misnumbered(sorted(folders), classes))}
    if differing:
        yield (
            f"torchvision, timm and Keras number the folders of a split as they sort, which is not the number of the class: {'; '.join(f'{split}: {wrong}' for split, wrong in differing.items())}. "
            "classes.json has the folders in the order of the classes; docs/howto/export.md has the two lines that use it."
        )
    for group in same_names({folder: folder for folders in kinds.values() for folder in sorted(folders)}):
        yield f"The folders {' and '.join(group)} become one on disks that ignore case (macOS, Windows)."


def _misnumbered(folders: list[str], classes: list[str]) -> str:
    """The first of sorted folders whose place is not the number of its class; empty when there is none, and all classes are there."""
    for place, folder in enumerate(folders):
        if folder not in classes:
            return f"{folder} is class {place}"
        if classes.index(folder) != place:
            return f"{folder} is {place}, not {classes.index(folder)}"
    return "" if len(folders) == len(classes) else f"only {len(folders)} of {len(classes)} classes"


def _some(names: list[str]) -> str:
    return f"{', '.join(names[:NAMED])}{f' and {len(names) - NAMED} more' if len(names) > NAMED else ''}"

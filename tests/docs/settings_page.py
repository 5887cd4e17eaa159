"""docs/settings.md, generated from discovery/config.py: `python -m tests.docs.settings_page` writes it."""

import inspect
from pathlib import Path

from discovery.config import ENV_PREFIX, Config, Section

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"
HEAD = """# Settings

Generated from `discovery/config.py` by `python -m tests.docs.settings_page`; a test compares.

Read in this order, later wins: defaults, `discovery.toml` (or the file that `DISCOVERY_CONFIG` names), variables
`DISCOVERY_<SECTION>__<KEY>`, options of the command line. An unknown key is refused with the nearest known one.

```toml
root = "s3://bucket/store"

[dask]
scheduler = "tcp://dask-scheduler:8786"
```

*Identity* settings decide results: when one changes, the stages that use it make new records under other keys, and the old ones stay.
*Speed* settings change only where and how fast work is done: the results keep their names, and stay the same; vectors made with other `[encoder]`
speed settings or on another device agree within 1e-3 of cosine, and those made in one way on one machine to the last bit.

| setting | default | kind | meaning |
|---|---|---|---|
| `root` | `.discovery` | place | where everything is kept: a folder or an fsspec URI; variable `DISCOVERY_ROOT`, option `--root` |
"""


def sections() -> dict[str, Section]:
    """Name to defaults of every section."""
    return {name: getattr(Config(), name) for name in Config.model_fields if isinstance(getattr(Config(), name), Section)}


def page() -> str:
    """The text of docs/settings.md."""
    lines = [HEAD]
    for name, section in sections().items():
        lines.append(f"\n## [{name}]\n\n{inspect.cleandoc(type(section).__doc__ or '')}\n\n| setting | default | {KIND} | meaning |\n|---|---|---|---|\n")
        for key, about in type(section).model_fields.items():
            default = getattr(section, key)
            shown = "empty" if not default and default is not False and default != 0 else f"`{str(default).lower() if isinstance(default, bool) else default}`"
            kind = kind_of(name, section, key)
            limits = ", ".join(text for item in about.metadata for text in _limits(item))
            meaning = "; ".join(part for part in (about.description or "", limits) if part)
            lines.append(f"| `{key}` | {shown} | {kind} | {meaning} |\n")
        lines.append(f"\nVariables: `{ENV_PREFIX}{name.upper()}__{next(iter(type(section).model_fields)).upper()}` and so on.\n")
    return "".join(lines)


KIND = "kind"
PLACES = ("s3", "catalog", "mlflow")  # where things are; no stage's key holds them


def kind_of(name: str, section: Section, key: str) -> str:
    """What changes when the setting does."""
    if name in PLACES:
        return "place"
    return "speed" if key in section.speed_only else "identity"


def _limits(item: object) -> list[str]:
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    return [f"{sign} {getattr(item, name):,}" for name, sign in signs.items() if getattr(item, name, None) is not None]


if __name__ == "__main__":
    PAGE.write_text(page())

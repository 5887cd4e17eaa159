"""Every setting is documented, and the page is the one the settings make."""

import re

import pytest

from tests.docs.settings_page import PAGE, page, sections

ALL = [(name, key) for name, section in sections().items() for key in type(section).model_fields]


def test_the_page_is_what_the_settings_say():
    assert PAGE.read_text() == page(), "run `python -m tests.docs.settings_page`"


@pytest.mark.parametrize(("section", "key"), ALL)
def test_every_setting_says_what_it_means(section, key):
    part = re.split(r"^## \[", page(), flags=re.MULTILINE)
    (own,) = [text for text in part if text.startswith(f"{section}]")]
    row = re.search(rf"^\| `{key}` \|.*\| (.*) \|$", own, re.MULTILINE)
    assert row is not None and len(row[1]) > 10, f"give config.{section}.{key} a description"

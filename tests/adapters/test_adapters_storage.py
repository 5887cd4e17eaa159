"""Paths and errors of the store; what it promises on a folder and on S3 is in tests/contracts."""

import errno
from pathlib import Path

import pytest

from discovery.adapters.files import translate
from discovery.adapters.storage import Store, artifact_folder, asset_path, thumbnail_path
from discovery.errors import AccessDenied, InvalidInput, SourceNotFound, StorageFull


@pytest.mark.parametrize("path_of", [asset_path, lambda text: thumbnail_path(text, 64), lambda text: artifact_folder("measure", text)])
@pytest.mark.parametrize("text", ["../../etc/passwd", "A" * 64, "a" * 63, "", "a" * 63 + "/"])
def test_no_path_is_made_of_what_is_not_an_id(path_of, text):
    with pytest.raises(InvalidInput, match="not an id"):
        path_of(text)


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.ENOSPC, StorageFull), (errno.EDQUOT, StorageFull), (errno.EFBIG, StorageFull), (errno.EACCES, AccessDenied), (errno.ENOENT, SourceNotFound)],
)
def test_errors_of_the_operating_system_become_ours(number, kind):
    error = translate(OSError(number, "text"), "Writing x")
    assert type(error) is kind and str(error).startswith("Writing x: ")


def test_a_root_that_is_a_file_is_refused(tmp_path):
    Path(tmp_path, "file").write_text("")
    with pytest.raises(Exception, match="Opening root"):
        Store(str(tmp_path / "file"))

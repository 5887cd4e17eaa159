"""The first step of a deployment: the bucket is made once, a server that still starts is waited for, and one that never answers is said."""

import pytest

from discovery import make_bucket
from discovery.errors import StorageError


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISCOVERY_ROOT", "s3://team/store")
    monkeypatch.setattr(make_bucket.time, "sleep", lambda seconds: None)


def test_the_bucket_is_made_and_then_there(remote, moto_endpoint, monkeypatch, capsys):
    monkeypatch.setenv("DISCOVERY_S3__ENDPOINT_URL", moto_endpoint)
    assert [make_bucket.main(), make_bucket.main()] == [0, 0]
    assert capsys.readouterr().out.splitlines() == ["bucket team was made", "bucket team is there"]


def test_a_server_that_still_starts_is_waited_for(remote, monkeypatch):
    answers = iter([StorageError("not yet"), StorageError("not yet"), "bucket team was made"])

    def attempt(root: str, s3: object) -> str:
        answer = next(answers)
        if isinstance(answer, StorageError):
            raise answer
        return answer

    monkeypatch.setattr(make_bucket, "make_bucket", attempt)
    assert make_bucket.main() == 0 and list(answers) == []


def test_a_server_that_never_answers_is_said(remote, monkeypatch, capsys):
    monkeypatch.setenv("DISCOVERY_S3__ENDPOINT_URL", "http://127.0.0.1:9")  # discard: nobody listens
    monkeypatch.setattr(make_bucket, "WAIT_S", -1.0)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    assert make_bucket.main() == 1
    assert "does not answer" in capsys.readouterr().err

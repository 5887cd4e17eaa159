"""Who may look when the pages are served without Airflow: callers who know one token."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Callable

from fastapi import HTTPException, Request

from discovery.errors import ConfigError

MIN_TOKEN_LENGTH = 16
CHALLENGE = {"WWW-Authenticate": 'Basic realm="discovery", charset="UTF-8"'}


def require_token(token: str) -> Callable[[Request], None]:
    """A FastAPI dependency: 401 unless the token comes as a bearer token, or as the password of any user name.

    Browsers ask for the latter by themselves and send it with every picture. Raises ConfigError for a token one could guess.
    """
    if len(token) < MIN_TOKEN_LENGTH:
        raise ConfigError(
            f"The token has {len(token)} characters; at least {MIN_TOKEN_LENGTH} are needed. `openssl rand -hex 16` makes one."
        )

    def check(request: Request) -> None:
        given = _given(request.headers.get("authorization", ""))
        if not hmac.compare_digest(given.encode(), token.encode()):
            raise HTTPException(401, "The token is missing or wrong.", CHALLENGE)

    return check


def token_holder(request: Request) -> str:
    """A FastAPI dependency for callers whom `require_token` let in: the user name that came with the token, `token` without one."""
    return _parts(request.headers.get("authorization", ""))[0] or "token"


def _given(header: str) -> str:
    """The token in an Authorization header; empty when there is none."""
    return _parts(header)[1]


def _parts(header: str) -> tuple[str, str]:
    """User name and token."""
    scheme, _, value = header.partition(" ")
    if scheme.lower() == "bearer":
        return "", value.strip()
    if scheme.lower() == "basic":
        try:
            name, _, token = base64.b64decode(value.strip(), validate=True).decode().partition(":")
            return name, token
        except (binascii.Error, ValueError):
            return "", ""
    return "", ""

"""Every error the platform raises, on one tree; each message names the thing, what was expected, found, and the next step.

    DiscoveryError                      exit code 1: a run failed
    ├── UsageError                      exit code 2: bad usage or configuration
    │   ├── ConfigError                 discovery.toml, environment or an option
    │   │   ├── SpecError               a collection spec
    │   │   ├── SourceNotFound          a folder, file, glob or bucket that is not there, or is empty of objects
    │   │   ├── AccessDenied            credentials missing, wrong, or without the right
    │   │   ├── EncoderNotFound         no such encoder, or its weights do not load
    │   │   └── UnknownRecord           an id, name or prefix that the catalog does not know
    │   └── InvalidInput                values a function cannot work with (NaN, wrong width, bad picture)
    ├── SourceChanged                   an object became another between its listing and its reading
    ├── EmptyReference                  nothing to compare with
    ├── EncoderMismatch                 vectors of one encoder used with an index of another
    ├── StorageError                    reading or writing the root failed
    │   ├── StorageFull                 no space left
    │   └── CorruptArtifact             bytes do not match the hash they were recorded under
    │       └── MembersLost             members of a version whose bytes are gone or changed
    ├── SchedulerUnreachable            the Dask scheduler does not answer
    ├── CatalogError                    the SQL database refused or is of another schema
    └── TrackingError                   MLflow does not answer or refused

Each takes one message, so that each survives pickling (Dask hides what does not: DESIGN section 4).
"""

from __future__ import annotations


class DiscoveryError(Exception):
    """Base of all; `exit_code` is what the command line ends with."""

    exit_code = 1


class UsageError(DiscoveryError):
    """The caller asked for something that cannot be; nothing was done."""

    exit_code = 2


class ConfigError(UsageError):
    """A setting is unknown, has the wrong type, or contradicts another."""


class SpecError(ConfigError):
    """A collection spec that cannot be used; the message gives the line."""


class SourceNotFound(ConfigError):
    """A source that does not exist or lists no object."""


class AccessDenied(ConfigError):
    """The storage refused the credentials."""


class EncoderNotFound(ConfigError):
    """No encoder of that name, or its weights could not be loaded."""


class UnknownRecord(ConfigError):
    """An id, a prefix of one, or a version name that the catalog does not hold."""


class InvalidInput(UsageError):
    """Values that a function cannot work with."""


class SourceChanged(DiscoveryError):
    """An object is not the one that was listed any more; the next listing tells of the new one."""


class EmptyReference(DiscoveryError):
    """There is nothing to compare with."""


class EncoderMismatch(DiscoveryError):
    """Vectors of different encoders were about to be compared."""


class StorageError(DiscoveryError):
    """The root could not be read or written."""


class StorageFull(StorageError):
    """No space was left; nothing half-written is visible."""


class CorruptArtifact(StorageError):
    """Bytes differ from the hash under which they were recorded."""


class MembersLost(CorruptArtifact):
    """Members of a dataset version cannot be read any more; what was asked for would lack them."""


class SchedulerUnreachable(DiscoveryError):
    """The Dask scheduler did not answer, or lost its workers."""


class CatalogError(DiscoveryError):
    """The catalog database refused, or has a schema that this version does not know."""


class TrackingError(DiscoveryError):
    """MLflow did not answer, or refused."""


def nearest(word: str, known: list[str]) -> str:
    """A sentence that offers the nearest known word, or lists all when none is near.

    >>> nearest("bugdet", ["budget", "name"])
    'Did you mean "budget"?'
    >>> nearest("x", ["budget", "name"])
    'Known: budget, name.'
    """
    import difflib

    close = difflib.get_close_matches(word, known, n=1)
    return f'Did you mean "{close[0]}"?' if close else f"Known: {', '.join(known)}."

"""The errors a user can meet, one flat family; the API turns each into its HTTP status.

Each carries one sentence that says what was wrong and, where it is not obvious, what to do.
"""

from __future__ import annotations


class NetdError(Exception):
    """Base of all; `status` is the HTTP status the Docker Engine API uses for this kind of failure."""

    status = 500


class InvalidParameter(NetdError):
    """The request itself is wrong: a malformed value, a forbidden combination."""

    status = 400


class Forbidden(NetdError):
    """The request is understood and will never be carried out in this state (a network in use, a predefined one)."""

    status = 403


class NotFound(NetdError):
    """The object named does not exist."""

    status = 404


class NotModified(NetdError):
    """The object is already in the state asked for (start of a running container)."""

    status = 304


class Conflict(NetdError):
    """The request clashes with the present state (a name in use, a container not running)."""

    status = 409


class NotImplementedHere(NetdError):
    """A part of the Docker Engine API that netd does not offer."""

    status = 501


class Unavailable(NetdError):
    """Something netd needs (the cluster store, the resolver) cannot be reached now; try again later."""

    status = 503

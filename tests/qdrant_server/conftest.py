"""The stand-in, for the tests beside it."""

from qdrant_server.fixtures import connect, localhost, protocol, qdrant_server

__all__ = ["connect", "localhost", "protocol", "qdrant_server"]

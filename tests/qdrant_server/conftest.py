"""The stand-in, for the tests beside it."""

from qdrant_server.fixtures import connect, protocol

__all__ = ["connect", "protocol"]

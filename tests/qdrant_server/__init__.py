"""A stand-in for a Qdrant server: its REST endpoints and gRPC services, over the embedded engine.

It is no Qdrant server. The engine is Qdrant's own, so a search finds what a server would find; what stands around it
here is written after Qdrant's documentation and source (1.20): which requests are refused and how, what needs an
index, what strict mode forbids. There is no cluster, no replica and no disk that outlives the test.

    operations   what a server does, once for both protocols
    strict       what strict mode, as Qdrant Cloud sets it, refuses
    rest, rpc    the two protocols: they decode and encode
    stand_in     the server: ports, keys, faults that tests order, and what it was asked
    fixtures     ``qdrant_server`` and ``client``, for any test directory to import

Bodies are read by qdrant-client's own models, which forbid fields that Qdrant does not know.
"""

"""A client of OneBar's HTTP API, for programs that look queries up and send events.

`onebar.Client` blocks, `onebar.AsyncClient` doesn't; what both do is in `calls`, which does no I/O.
"""

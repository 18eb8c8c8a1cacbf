#!/usr/bin/env python3
"""Whether what runs in this container is well: status 0, or 1 and a line that says why not.

    onebar-health            /healthz of a worker where ONEBAR_METRICS_PORT is set, else of the API
    onebar-health /readyz    another path

It reads the variables that the process reads, and needs nothing but Python, so it costs little.
Where the API wants a client's certificate, that it accepts connections has to do.
"""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import sys
from collections.abc import Mapping

TIMEOUT_S = 4.0
# What a server listens to; nothing is bound here.
ANY = {"", "0.0.0.0", "::"}  # nosec B104


def ask(path: str, variables: Mapping[str, str]) -> tuple[bool, str]:
    """Whether GET `path` gives 200, and what was said. Raises `OSError`, `HTTPException`."""
    worker = variables.get("ONEBAR_METRICS_PORT", "0")
    certificate = ""
    if worker != "0":
        host, port = variables.get("ONEBAR_METRICS_HOST", ""), worker
    else:
        host = variables.get("ONEBAR_API_HOST", "")
        port = variables.get("ONEBAR_API_PORT", "8080")
        certificate = variables.get("ONEBAR_API_TLS_CERTIFICATE", "")
    host = "127.0.0.1" if host in ANY else host
    if certificate and variables.get("ONEBAR_API_TLS_CLIENT_CA"):
        socket.create_connection((host, int(port)), TIMEOUT_S).close()
        return True, "accepts connections"
    if certificate:
        # What answers must have the certificate that it was given; that names another host.
        trust = ssl.create_default_context(cafile=certificate)
        trust.check_hostname = False
        trust.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        server: http.client.HTTPConnection = http.client.HTTPSConnection(
            host, int(port), timeout=TIMEOUT_S, context=trust
        )
    else:
        server = http.client.HTTPConnection(host, int(port), timeout=TIMEOUT_S)
    try:
        server.request("GET", path)
        answer = server.getresponse()
        return answer.status == 200, answer.read(2000).decode(errors="replace").strip()
    finally:
        server.close()


def main() -> int:
    path = sys.argv[1] if len(sys.argv) > 1 else "/healthz"
    try:
        well, said = ask(path, os.environ)
    except (OSError, http.client.HTTPException) as error:
        well, said = False, f"{type(error).__name__}: {error}"
    print(said)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())

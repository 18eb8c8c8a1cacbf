"""The images: what is in them, as whom they run, and how they say that they are well.

Building them needs a network and a builder of images; here their recipe is read.
"""

from __future__ import annotations

import http.server
import re
import shutil
import ssl
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
DEPLOY = ROOT / "deploy"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def stages(dockerfile: str) -> dict[str, str]:
    """The text of each stage by its name."""
    parts = re.split(r"^FROM \S+ AS (\S+)\n", dockerfile, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_the_images_have_every_package_and_run_as_nobody() -> None:
    made = stages((DEPLOY / "Dockerfile").read_text())
    packages = PROJECT["tool"]["setuptools"]["packages"]
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for package in {name.split(".")[0] for name in packages}:
        assert f"!{package}" in ignored
    assert list(made)[-1] == "serve", "what is built where no target is named"
    targets = ("serve", "train")
    for target in targets:
        assert re.findall(r"^USER (\S+)", made[target], re.MULTILINE) == ["10001"]
        assert f"COPY --from={target}-dependencies /opt/onebar" in made[target]
    assert "HEALTHCHECK" in made["serve"]
    for path in re.findall(r"^COPY (?:--chmod=\d+ )?([\w./]+) /", made["base"], re.MULTILINE):
        assert (ROOT / path).is_file()
        assert f"!{path}" in ignored


def test_extras_of_the_images_exist_and_serving_has_no_torch() -> None:
    made = stages((DEPLOY / "Dockerfile").read_text())
    assert re.findall(r"--extra (\w+)", made["serve-dependencies"]) == ["otel"]
    extras = re.findall(r"--extra (\w+)", made["train-dependencies"])
    assert {"train", "embed"} <= set(extras) <= set(PROJECT["project"]["optional-dependencies"])


@contextmanager
def answering(statuses: dict[str, int], tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """A server on loopback that answers so; its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(statuses[self.path])
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield str(server.server_port)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def health(*words: str, **environment: str) -> int:
    command = [sys.executable, "-I", "-S", str(DEPLOY / "health.py"), *words]
    return subprocess.run(command, env=environment, capture_output=True).returncode


def test_the_health_check_asks_what_runs() -> None:
    with answering({"/healthz": 200, "/readyz": 503}) as port:
        assert health(ONEBAR_METRICS_PORT=port, ONEBAR_METRICS_HOST="0.0.0.0") == 0
        api = {"ONEBAR_API_PORT": port, "ONEBAR_METRICS_PORT": "0"}
        assert health(**api) == 0
        assert health("/readyz", **api) == 1
    assert health(**api) == 1, "nobody listens any more"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes the certificate")
def test_the_health_check_speaks_tls_to_the_apis_own_certificate(tmp_path: Path) -> None:
    def make(name: str) -> tuple[str, str]:
        certificate, key = str(tmp_path / f"{name}.pem"), str(tmp_path / f"{name}.key")
        words = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-days", "1"]
        command = ["openssl", "req", "-x509", *words, "-subj", f"/CN={name}.example"]
        subprocess.run([*command, "-out", certificate, "-keyout", key], check=True)
        return certificate, key

    (certificate, key), (other, _) = make("api"), make("other")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    with answering({"/healthz": 200}, tls) as port:
        assert health(ONEBAR_API_PORT=port, ONEBAR_API_TLS_CERTIFICATE=certificate) == 0
        assert health(ONEBAR_API_PORT=port, ONEBAR_API_TLS_CERTIFICATE=other) == 1

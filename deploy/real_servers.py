#!/usr/bin/env python3
"""Apache Kafka and Redis on loopback, without Docker: for tests and for trying things out.

    python deploy/real_servers.py run -- pytest tests/integration
    python deploy/real_servers.py run --brokers 3 --redis-cluster -- onebar demo --check
    python deploy/real_servers.py run --sentinel # a replica, and Sentinels that name the primary
    python deploy/real_servers.py run --secure   # TLS and logins

With `--secure` Kafka wants a login (SCRAM) over TLS with a client certificate, and Redis an ACL
user over TLS; certificates and passwords are made anew, the variables that name them set as well.

Starts KRaft brokers (jars by Maven, `deploy/kafka/pom.xml`) and `redis-server` on free ports, sets
`ONEBAR_KAFKA_BOOTSTRAP` and `ONEBAR_REDIS_URL`, runs the command, stops both and ends with the
command's exit status. Data and logs live under `.cache/real-servers/`; the data is removed at the
end, the logs stay. Where the two variables are set already, nothing is started.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import ctypes
import hashlib
import os
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parent.parent
POM = ROOT / "deploy" / "kafka" / "pom.xml"
LOG_CONFIG = ROOT / "deploy" / "kafka" / "log4j2.properties"
CACHE = ROOT / ".cache"
JARS = CACHE / "kafka" / "libs"
START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 15.0
MISSING_STATUS = 69
"""Exit status where a server's program is not installed (EX_UNAVAILABLE)."""


class MissingServerError(RuntimeError):
    """A program that a server needs is not installed."""


class ServerStartError(RuntimeError):
    """A server ended, or did not answer in time; the text ends with the tail of its log."""


def missing_programs() -> list[str]:
    """What is to be installed before the real servers can start; empty when all is there."""
    wanted = [("java", "a Java 17 runtime (Debian: default-jre-headless)")]
    if not _jars_current():
        wanted.append(("mvn", "Maven, to fetch Kafka's jars (Debian: maven)"))
    wanted += [("redis-server", "Redis (Debian: redis-server)")]
    wanted += [("openssl", "OpenSSL (Debian: openssl)")]
    return [f"{name}: {what}" for name, what in wanted if shutil.which(name) is None]


def free_port() -> int:
    """A TCP port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """A child process with a log file. It dies with this process, even on SIGKILL (Linux)."""

    def __init__(self, name: str, command: Sequence[str], log: Path) -> None:
        self.name = name
        self.log = log
        self._command = command
        log.unlink(missing_ok=True)
        self.start()

    def start(self) -> None:
        """Start it; again, where it has ended, on what it has on its disk."""
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C reaches the command first, the servers last
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.process.kill()
        self.process.wait()

    def wait_until(self, ready: Callable[[], bool]) -> None:
        """Return once `ready()` holds. Raises `ServerStartError` with the log's tail."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while not ready():
            if self.process.poll() is not None:
                raise ServerStartError(
                    f"{self.name} ended with status {self.process.returncode}:\n{self._tail()}"
                )
            if time.monotonic() > deadline:
                raise ServerStartError(
                    f"{self.name} did not answer within {START_TIMEOUT_S:.0f} s:\n{self._tail()}"
                )
            time.sleep(0.1)

    def stop(self) -> None:
        """SIGTERM, then SIGKILL where that is not obeyed."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-25:])


def _die_with_parent() -> None:
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


# Certificates


@dataclass(frozen=True)
class Security:
    """Certificates of an authority of our own, and who logs in with what; all in `home`."""

    home: Path
    user: str
    password: str

    @property
    def authority(self) -> Path:
        return self.home / "ca.pem"

    def certificate(self, name: str) -> Path:
        """That of `server` or `client`."""
        return self.home / f"{name}.pem"

    def key(self, name: str) -> Path:
        return self.home / f"{name}-key.pem"

    def context(self) -> ssl.SSLContext:
        """How a client speaks TLS to these servers."""
        context = ssl.create_default_context(cafile=self.authority)
        context.load_cert_chain(self.certificate("client"), self.key("client"))
        return context

    def kafka_options(self) -> dict[str, object]:
        """How a client of aiokafka connects."""
        return {
            "security_protocol": "SASL_SSL",
            "ssl_context": self.context(),
            "sasl_mechanism": "SCRAM-SHA-512",
            "sasl_plain_username": self.user,
            "sasl_plain_password": self.password,
        }

    def variables(self) -> dict[str, str]:
        """The settings that connect to servers of these."""
        (self.home / "password").write_text(self.password + "\n")
        password = str(self.home / "password")
        authority, certificate = str(self.authority), str(self.certificate("client"))
        return {
            "ONEBAR_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "ONEBAR_KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
            "ONEBAR_KAFKA_SASL_USERNAME": self.user,
            "ONEBAR_KAFKA_SASL_PASSWORD_FILE": password,
            "ONEBAR_KAFKA_TLS_CA": authority,
            "ONEBAR_KAFKA_TLS_CERTIFICATE": certificate,
            "ONEBAR_KAFKA_TLS_KEY": str(self.key("client")),
            "ONEBAR_REDIS_USERNAME": self.user,
            "ONEBAR_REDIS_PASSWORD_FILE": password,
            "ONEBAR_REDIS_TLS_CA": authority,
            "ONEBAR_REDIS_TLS_CERTIFICATE": certificate,
            "ONEBAR_REDIS_TLS_KEY": str(self.key("client")),
        }


STRANGER = "stranger"
"""Who may log in to Kafka (PLAIN, with the same password), and do nothing there."""


def make_security(home: Path) -> Security:
    """An authority, a server's certificate for 127.0.0.1 and localhost, a client's, a password."""
    home.mkdir(parents=True, exist_ok=True)

    def openssl(*arguments: str) -> None:
        command = ["openssl", *arguments]
        done = subprocess.run(command, cwd=home, capture_output=True, text=True)
        if done.returncode != 0:
            raise ServerStartError(f"{' '.join(command)} failed:\n{done.stderr}")

    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc")
    subject = ("-days", "2", "-subj")
    openssl(
        *("req", "-x509", *new_key, "-keyout", "ca-key.pem", "-out", "ca.pem"),
        *(*subject, "/CN=OneBar test authority", "-addext", "basicConstraints=critical,CA:TRUE"),
    )
    for name in ("server", "client"):
        openssl(
            *("req", "-x509", *new_key, "-keyout", f"{name}-key.pem", "-out", f"{name}.pem"),
            *(*subject, f"/CN={name}", "-CA", "ca.pem", "-CAkey", "ca-key.pem"),
            *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
            *("-addext", "basicConstraints=critical,CA:FALSE"),
        )
    return Security(home, user="onebar", password=secrets.token_urlsafe(16))


# Kafka


def _jars_current() -> bool:
    stamp = JARS / ".pom"
    return stamp.is_file() and stamp.read_text() == _pom_digest()


def _pom_digest() -> str:
    return hashlib.sha256(POM.read_bytes()).hexdigest()


def ensure_jars() -> None:
    """Kafka's jars in `.cache/kafka/libs`, as the pom names them; by Maven where they are not."""
    if _jars_current():
        return
    shutil.rmtree(JARS, ignore_errors=True)
    JARS.mkdir(parents=True)
    command = ["mvn", "-B", "-q", "-f", str(POM), "dependency:copy-dependencies"]
    # Standard output belongs to the command that is run on the servers.
    command.append(f"-DoutputDirectory={JARS}")
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=sys.stderr)
    (JARS / ".pom").write_text(_pom_digest())


Behind = tuple[int, int]
"""Two ports of a server that is also reached by a line of somebody's: its own, and the line's."""


def broker_config(
    node: int,
    ports: Sequence[tuple[int, int]],
    data: Path,
    security: Security | None = None,
    behind: Behind | None = None,
) -> dict[str, str]:
    """A small KRaft node, broker and controller in one. `ports` are (client, controller) a node.
    Who comes `behind` a line is told the lines of all nodes, and stays behind them."""
    protocol = "PLAINTEXT" if security is None else "SASL_SSL"
    client, controller = ports[node]
    replicas = str(min(3, len(ports)))
    listens, told, mapped = "", "", ""
    if behind is not None:
        listens = f",LINE://127.0.0.1:{behind[0]}"
        told, mapped = f",LINE://127.0.0.1:{behind[1]}", f",LINE:{protocol}"
    return {
        "process.roles": "broker,controller",
        "node.id": str(node),
        "controller.quorum.voters": ",".join(
            f"{i}@127.0.0.1:{port}" for i, (_, port) in enumerate(ports)
        ),
        "controller.listener.names": "CONTROLLER",
        "listeners": f"{protocol}://127.0.0.1:{client},"
        f"CONTROLLER://127.0.0.1:{controller}{listens}",
        "advertised.listeners": f"{protocol}://127.0.0.1:{client}{told}",
        "listener.security.protocol.map": f"{protocol}:{protocol},CONTROLLER:PLAINTEXT{mapped}",
        "inter.broker.listener.name": protocol,
        "log.dirs": str(data),
        # As in production: nothing springs into being because someone asked for it.
        "auto.create.topics.enable": "false",
        "offsets.topic.replication.factor": replicas,
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "4",
        # Tests kill and restart workers: let groups form at once and notice a death soon.
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",
        # Hundreds of small topics in a small heap.
        "log.index.size.max.bytes": "262144",
        "log.cleaner.dedupe.buffer.size": "16777216",
        "num.network.threads": "2",
        "num.io.threads": "4",
        "background.threads": "2",
        "delete.topic.enable": "true",
        **({} if security is None else _secure_config(security)),
    }


def _secure_config(security: Security) -> dict[str, str]:
    """TLS with certificates on both sides, and every login that a client of ours may use."""
    keystore = security.home / "keystore.pem"
    keystore.write_text(
        security.key("server").read_text() + security.certificate("server").read_text()
    )
    modules = "org.apache.kafka.common.security"
    login = f'username="{security.user}" password="{security.password}"'
    logins = {
        "scram-sha-512": f"{modules}.scram.ScramLoginModule required {login};",
        "scram-sha-256": f"{modules}.scram.ScramLoginModule required;",
        "plain": f"{modules}.plain.PlainLoginModule required "
        f'user_{security.user}="{security.password}" user_{STRANGER}="{security.password}";',
        "oauthbearer": f"{modules}.oauthbearer.OAuthBearerLoginModule required "
        f'unsecuredLoginStringClaim_sub="{security.user}";',
    }
    return {
        "sasl.enabled.mechanisms": ",".join(name.upper() for name in logins),
        "sasl.mechanism.inter.broker.protocol": "SCRAM-SHA-512",
        **{
            f"listener.name.sasl_ssl.{name}.sasl.jaas.config": value
            for name, value in logins.items()
        },
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        # Between the nodes, whose listener is on loopback, nobody logs in.
        "super.users": f"User:{security.user};User:ANONYMOUS",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(keystore),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(security.authority),
        "listener.name.sasl_ssl.ssl.client.auth": "required",
    }


def _java(*arguments: str) -> list[str]:
    flags = ["-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError"]
    logs = f"-Dlog4j2.configurationFile={LOG_CONFIG}"
    return ["java", *flags, logs, "-cp", f"{JARS}/*", *arguments]


def start_brokers(
    count: int,
    work: Path,
    logs: Path,
    started: list[Server],
    security: Security | None = None,
    behind: Sequence[Behind] = (),
) -> str:
    """Start `count` KRaft nodes, wait until all of them serve; their bootstrap string. `behind`
    are the second listener of each, and the line that leads to it."""
    ensure_jars()
    cluster_id = base64.urlsafe_b64encode(os.urandom(16)).decode().rstrip("=")
    # A leading dash would read as an option of the storage tool.
    cluster_id = "A" + cluster_id[1:]
    ports = [(free_port(), free_port()) for _ in range(count)]
    servers = []
    options = {} if security is None else security.kafka_options()
    for node in range(count):
        config = work / f"kafka-{node}.properties"
        line = behind[node] if behind else None
        values = broker_config(node, ports, work / f"kafka-{node}", security, line)
        config.write_text("".join(f"{name}={value}\n" for name, value in values.items()))
        format_it = ["kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(config)]
        if security is not None:
            for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512"):
                user = f"{mechanism}=[name={security.user},password={security.password}]"
                format_it += ["--add-scram", user]
        formatted = subprocess.run(
            _java(*format_it),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if formatted.returncode != 0:
            raise ServerStartError(
                f"formatting Kafka's storage failed:\n{formatted.stdout}{formatted.stderr}"
            )
        server = Server(
            f"Kafka {node}", _java("kafka.Kafka", str(config)), logs / f"kafka-{node}.log"
        )
        started.append(server)
        servers.append(server)
    bootstrap = ",".join(f"127.0.0.1:{client}" for client, _ in ports)
    for server, (client, _) in zip(servers, ports, strict=True):
        address = f"127.0.0.1:{client}"
        server.wait_until(
            lambda address=address: _brokers_seen(address, options) == count  # type: ignore[misc]
        )
    return bootstrap


def _brokers_seen(bootstrap: str, options: dict[str, object]) -> int:
    """How many brokers the one at this address knows to be serving; 0 while it does not answer."""
    host, port = bootstrap.split(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return 0
    return asyncio.run(_describe(bootstrap, options))


async def _describe(bootstrap: str, options: dict[str, object]) -> int:
    from aiokafka.admin import AIOKafkaAdminClient
    from aiokafka.errors import KafkaError

    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=5000, **options)
    try:
        await admin.start()
        return len((await admin.describe_cluster())["brokers"])
    except (KafkaError, OSError):
        return 0
    finally:
        await admin.close()


# Redis


def start_redis(
    work: Path,
    logs: Path,
    started: list[Server],
    *,
    nodes: int = 1,
    behind: Sequence[Behind] = (),
    kept: bool = False,
) -> str:
    """One `redis-server`, or a cluster of `nodes` (half of them replicas); its URL. With `kept`
    each writes its append-only file, and starts again from it."""
    ports = [port for port, _ in behind] or [free_port() for _ in range(nodes)]
    for number, port in enumerate(ports):
        options = ["--appendonly", "yes" if kept else "no"]
        if nodes > 1:
            options += ["--cluster-enabled", "yes", "--cluster-port", str(free_port())]
            options += ["--cluster-node-timeout", "2000", "--repl-diskless-sync-delay", "0"]
            if behind:
                options += ["--cluster-announce-ip", "127.0.0.1"]
                options += ["--cluster-announce-port", str(behind[number][1])]
        start_redis_node(work, logs, started, number, port, options)
    if nodes == 1:
        return f"redis://127.0.0.1:{behind[0][1] if behind else ports[0]}/0"
    addresses = [f"127.0.0.1:{port}" for port in ports]  # what is announced they tell themselves
    create = ["redis-cli", "--cluster", "create", *addresses]
    try:
        made = subprocess.run(
            [*create, "--cluster-replicas", "1", "--cluster-yes"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=START_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as error:  # a node that does not join is waited for for ever
        raise ServerStartError(f"the Redis Cluster was not made:\n{error.stdout!r}") from None
    if made.returncode != 0:
        raise ServerStartError(f"the Redis Cluster was not made:\n{made.stdout}{made.stderr}")
    for server, port in zip(started[-nodes:], ports, strict=True):
        server.wait_until(
            lambda port=port: "cluster_state:ok" in _ask_redis(port, "CLUSTER INFO")  # type: ignore[misc]
        )
    return f"redis+cluster://127.0.0.1:{behind[0][1] if behind else ports[0]}"


def start_redis_node(
    work: Path,
    logs: Path,
    started: list[Server],
    number: int,
    port: int,
    options: Sequence[str],
) -> Server:
    """One `redis-server` with these options, when it answers. It dumps nothing."""
    home = work / f"redis-{number}"
    home.mkdir()
    command = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--dir", str(home)]
    command += ["--save", "", "--daemonize", "no", *options]
    server = Server(f"Redis {number}", command, logs / f"redis-{number}.log")
    started.append(server)
    server.wait_until(lambda: _ask_redis(port, "PING") == "+PONG")
    return server


SENTINELS = 3
DOWN_AFTER_MS = 1000


def start_watched_redis(
    work: Path,
    logs: Path,
    started: list[Server],
    *,
    behind: Sequence[Behind] = (),
    down_after_ms: int = DOWN_AFTER_MS,
) -> str:
    """A primary and a replica, each with its append-only file, and three Sentinels that name
    another primary so long after it was lost; the URL that asks them."""
    behind = behind or [(port, port) for port in (free_port(), free_port())]
    ports = [port for port, _ in behind]
    primary = str(behind[0][1])
    for number, (port, announced) in enumerate(behind):
        options = ["--appendonly", "yes", "--repl-diskless-sync-delay", "0"]
        options += ["--replica-announce-ip", "127.0.0.1"]
        options += ["--replica-announce-port", str(announced)]
        server = start_redis_node(work, logs, started, number, port, options)
    _ask_redis(ports[1], f"REPLICAOF 127.0.0.1 {primary}")
    server.wait_until(lambda: "state=online" in _ask_redis(ports[0], "INFO replication"))
    sentinels = []
    for number in range(SENTINELS):
        port = free_port()
        home = work / f"sentinel-{number}"
        home.mkdir()
        (home / "sentinel.conf").write_text(
            f"port {port}\nbind 127.0.0.1\ndir {home}\n"
            f"sentinel monitor mymaster 127.0.0.1 {primary} 2\n"
            f"sentinel down-after-milliseconds mymaster {down_after_ms}\n"
            "sentinel failover-timeout mymaster 5000\n"
        )
        command = ["redis-server", str(home / "sentinel.conf"), "--sentinel"]
        server = Server(f"Sentinel {number}", command, logs / f"sentinel-{number}.log")
        started.append(server)
        sentinels.append(port)
    for port in sentinels:
        server.wait_until(
            lambda port=port: (
                f"slaves=1,sentinels={SENTINELS}"  # type: ignore[misc]
                in _ask_redis(port, "INFO sentinel")
            )
        )
    where = ",".join(f"127.0.0.1:{port}" for port in sentinels)
    return f"redis+sentinel://{where}/mymaster/0"


def start_secure_redis(work: Path, logs: Path, started: list[Server], security: Security) -> str:
    """One `redis-server` that speaks TLS only, to clients with a certificate, and knows one user,
    who may do everything with the keys of `onebar`; its URL."""
    port = free_port()
    home = work / "redis-secure"
    home.mkdir()
    (home / "users.acl").write_text(
        f"user default off\nuser {security.user} on >{security.password} ~* &* +@all\n"
    )
    options = {
        "bind": "127.0.0.1",
        "port": "0",
        "tls-port": str(port),
        "dir": str(home),
        "save": "",
        "appendonly": "no",
        "aclfile": str(home / "users.acl"),
        "tls-cert-file": str(security.certificate("server")),
        "tls-key-file": str(security.key("server")),
        "tls-ca-cert-file": str(security.authority),
        "tls-auth-clients": "yes",
    }
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    server = Server("Redis (TLS)", ["redis-server", *words], logs / "redis-secure.log")
    started.append(server)
    hello = f"AUTH {security.user} {security.password}"
    server.wait_until(lambda: _ask_redis(port, hello, security.context()) == "+OK")
    return f"rediss://127.0.0.1:{port}/0"


def _ask_redis(port: int, command: str, context: ssl.SSLContext | None = None) -> str:
    try:
        with contextlib.ExitStack() as stack:
            connection = stack.enter_context(
                socket.create_connection(("127.0.0.1", port), timeout=1)
            )
            if context is not None:
                connection = stack.enter_context(
                    context.wrap_socket(connection, server_hostname="127.0.0.1")
                )
            connection.settimeout(1)
            connection.sendall(command.encode() + b"\r\n")
            return connection.recv(4096).decode().strip()
    except OSError:
        return ""


# The command line


@contextlib.contextmanager
def real_servers(
    *,
    brokers: int = 1,
    redis_cluster: bool = False,
    sentinel: bool = False,
    secure: bool = False,
) -> Iterator[dict[str, str]]:
    """Both servers, for as long as the block runs; yields the variables naming them.

    `secure` means TLS and logins, and one Redis. Raises `MissingServerError` where a program
    is not installed, `ServerStartError` where a server does not come up.
    """
    missing = missing_programs()
    if missing:
        raise MissingServerError("not installed:\n  " + "\n  ".join(missing))
    work = CACHE / "real-servers" / f"run-{os.getpid()}"
    logs = CACHE / "real-servers" / ("logs-secure" if secure else "logs")
    work.mkdir(parents=True)
    logs.mkdir(parents=True, exist_ok=True)
    started: list[Server] = []
    try:
        security = make_security(work / "security") if secure else None
        if security is not None:
            url = start_secure_redis(work, logs, started, security)
        elif sentinel:
            url = start_watched_redis(work, logs, started)
        else:
            url = start_redis(work, logs, started, nodes=6 if redis_cluster else 1)
        bootstrap = start_brokers(brokers, work, logs, started, security)
        yield {
            "ONEBAR_KAFKA_BOOTSTRAP": bootstrap,
            "ONEBAR_REDIS_URL": url,
            **({} if security is None else security.variables()),
        }
    finally:
        for server in reversed(started):
            server.stop()
        shutil.rmtree(work, ignore_errors=True)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _run_command(command: Sequence[str], variables: dict[str, str]) -> int:
    if not command:
        for name, value in variables.items():
            print(f"export {name}={value}", flush=True)
        print("# both serve until Ctrl-C", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()
        return 0
    child = subprocess.Popen(command, env={**os.environ, **variables})
    try:
        return child.wait()
    except KeyboardInterrupt:
        # A terminal's Ctrl-C reached the child too; any other signal is passed on here.
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(signal.SIGINT)
        try:
            child.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        return 130


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="action", required=True)
    run = commands.add_parser("run", help="start both, run a command with their addresses, stop")
    run.add_argument("--brokers", type=int, default=1, choices=(1, 3))
    run.add_argument(
        "--redis-cluster", action="store_true", help="six nodes, three of them masters"
    )
    run.add_argument("--sentinel", action="store_true", help="a replica, and three Sentinels")
    run.add_argument("--secure", action="store_true", help="TLS and logins on both")
    run.add_argument("command", nargs="*", help="after --; without it, serve until Ctrl-C")
    commands.add_parser("missing", help="print what is not installed; status 69 if anything is")
    options = parser.parse_args(arguments)

    if options.action == "missing":
        missing = missing_programs()
        print("\n".join(missing) or "nothing is missing")
        return MISSING_STATUS if missing else 0

    given = {
        name: os.environ[name]
        for name in ("ONEBAR_KAFKA_BOOTSTRAP", "ONEBAR_REDIS_URL")
        if os.environ.get(name)
    }
    if len(given) == 2 and not options.secure:
        return _run_command(options.command, given)
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, _interrupt)
    try:
        with real_servers(
            brokers=options.brokers,
            redis_cluster=options.redis_cluster,
            sentinel=options.sentinel,
            secure=options.secure,
        ) as names:
            return _run_command(options.command, names)
    except MissingServerError as error:
        print(f"real_servers: {error}", file=sys.stderr)
        return MISSING_STATUS
    except ServerStartError as error:
        print(f"real_servers: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())

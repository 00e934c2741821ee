"""The subjects of the bench: how each is started, watched and ended.

A subject is started afresh for every workload and round, alone on its CPU. To add one, say how its
configuration is written and its command line made; to change how headrace is started, see `Headrace`
and peers/headrace.toml.in.
"""

import contextlib
import copy
import http.client
import json
import os
import random
import re
import shutil
import socket
import ssl
import subprocess
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
N_ENGINES = 8
N_CROWD = 100
N_PREFILL = N_ENGINES // 2
MODELS = [f"model-{i:02}" for i in range(16)]
START_S = 15
TLS_WORKLOADS = ("tls", "tls_sse")


class Unavailable(Exception):
    """A subject that cannot be measured here; the text says why."""


def models_of(engine):
    """As in shape.h: every model is on two engines, every engine has four models."""
    return [model for i, model in enumerate(MODELS) if engine in (i % N_ENGINES, (i + 1) % N_ENGINES)]


def free_ports(count):
    """Ports below those that the kernel gives to outgoing connections, so that none is taken meanwhile."""
    first_ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports = []
    for port in random.sample(range(10000, first_ephemeral), 1000):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                ports.append(port)
        if len(ports) == count:
            return ports
    raise SystemExit("bench: no free ports")


class Place:
    """Where a run happens: folders, CPUs, the engines' ports, how many streams there will be.

    In a crowd all engines have one model, the first; else each has some of them.
    """

    def __init__(self, build, folder, proxy_cpu, load_cpu, n_streams):
        self.build, self.folder = Path(build), Path(folder)
        self.proxy_cpu, self.load_cpu = proxy_cpu, load_cpu
        self.n_streams = n_streams
        ports = free_ports(2 * N_ENGINES + N_CROWD)
        self.engine_ports, self.pair_ports = ports[:N_ENGINES], ports[N_ENGINES : 2 * N_ENGINES]
        self.crowd_ports = ports[2 * N_ENGINES :]
        self.prefill_ports = []
        self.is_crowd = False

    def crowd(self):
        """The same place with many engines."""
        other = copy.copy(self)
        other.engine_ports, other.is_crowd = self.crowd_ports, True
        return other

    def pairs(self):
        """The same place with one model on engines of which the first half prefills for the others."""
        other = self.alike()
        other.engine_ports, other.prefill_ports = self.pair_ports, self.pair_ports[:N_PREFILL]
        return other

    def alike(self):
        """The same place, with one model on all engines."""
        other = copy.copy(self)
        other.is_crowd = True
        return other

    def models_of(self, engine):
        return MODELS[:1] if self.is_crowd else models_of(engine)

    def program(self, path):
        program = self.build / path
        if not os.access(program, os.X_OK):
            raise Unavailable(f"there is no {program}")
        return str(program)

    def tool(self, name):
        return self.program(f"release/tests/bench/{name}")

    def certificate(self):
        """One for all who speak TLS: chain and key in one file."""
        path = self.folder / "tls.pem"
        if not path.exists():
            made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
            made += ["-days", "2", "-subj", "/CN=localhost", "-keyout", str(path), "-out", f"{path}.crt"]
            subprocess.run(made, check=True, capture_output=True)
            path.write_bytes(path.read_bytes() + Path(f"{path}.crt").read_bytes())
        return path

    def engine_list(self):
        return ",".join(map(str, self.engine_ports))

    def role_of(self, port):
        return "prefill" if port in self.prefill_ports else "decode"


def pinned(cpu, command):
    """The command on one CPU; it does not outlive us, whatever becomes of us."""
    return ["setpriv", "--pdeathsig", "TERM", "taskset", "-c", str(cpu), *command]


def end(process):
    """Ends a child of ours."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


def spawn(place, stack, log, cpu, command, *arguments):
    """One of our programs, until the stack ends."""
    program = [place.program("release/headrace"), command, *map(str, arguments)]
    child = subprocess.Popen(pinned(cpu, program), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    stack.callback(end, child)
    return child


class Running:
    """A proxy at work, or, without a process, the engines themselves."""

    def __init__(self, ports, process=None, log=None, admin_port=None):
        self.ports, self.process, self.log, self.admin_port = ports, process, log, admin_port

    def pids(self):
        found = [self.process.pid] if self.process else []
        for pid in found:
            with contextlib.suppress(FileNotFoundError):
                for task in Path(f"/proc/{pid}/task").iterdir():
                    found += map(int, (task / "children").read_text().split())
        return found

    def rss_bytes(self):
        """Rss of all its processes; what several of them share is counted for each."""
        sizes = [
            re.search(r"^Rss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M) for pid in self.pids()
        ]
        return sum(int(size[1]) * 1024 for size in sizes) if sizes else None

    def settled_rss_bytes(self):
        """Rss as soon as it stands still; peers that give memory back do so within seconds."""
        deadline = time.monotonic() + 5
        before = self.rss_bytes()
        while self.process:
            time.sleep(0.25)
            now = self.rss_bytes()
            if abs(now - before) <= now / 1000 or time.monotonic() > deadline:
                return now
            before = now
        return None

    def heap_allocations(self):
        """headrace counts what it takes from the heap; None for the others."""
        if not self.admin_port:
            return None
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
        counts = re.findall(r"^headrace_heap_allocations_total(?:\{[^}]*\})? (\S+)", text, re.M)
        return sum(map(float, counts)) if counts else None

    def last_words(self):
        lines = self.log.read_text(errors="replace").strip().splitlines() if self.log else []
        return " | ".join(lines[-3:])


class Subject:
    name = None
    routed = False  # sends a request to an engine that has its model
    has_admin = False
    is_tls = False
    workloads = None  # those it is measured in; None: all that are plain

    def version(self, place):
        return ""

    def command(self, place, folder, port, admin_port):
        """Writes what configuration it needs into `folder` and returns the command line."""
        raise NotImplementedError

    @contextlib.contextmanager
    def running(self, place):
        folder = place.folder / self.name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        port, admin_port = free_ports(2)
        log = folder / "output"
        command = pinned(place.proxy_cpu, self.command(place, folder, port, admin_port))
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        proxy = Running([port], process, log, admin_port if self.has_admin else None)
        try:
            self.await_answer(proxy)
            yield proxy
            if process.poll() is not None:
                raise Unavailable(f"ended by itself with {process.returncode}: {proxy.last_words()}")
        except OSError as why:
            raise Unavailable(f"{why}: {proxy.last_words()}") from why
        finally:
            end(process)

    def await_answer(self, proxy):
        """Until one chat was answered through it."""
        body = json.dumps({"messages": [{"role": "user", "content": "hello"}], "model": MODELS[0]})
        deadline = time.monotonic() + START_S
        while proxy.process.poll() is None and time.monotonic() < deadline:
            connection = self.connection(proxy.ports[0])
            try:
                connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
                if connection.getresponse().status == 200:
                    return
            except (OSError, http.client.HTTPException):
                pass
            finally:
                connection.close()
            time.sleep(0.02)
        raise Unavailable(f"does not start: {proxy.last_words()}")

    def connection(self, port):
        if not self.is_tls:
            return http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        context = ssl._create_unverified_context()
        return http.client.HTTPSConnection("127.0.0.1", port, timeout=5, context=context)

    def write(self, place, template, folder, engine_line, **values):
        """Fills peers/NAME.in: @KEY@ for each value, @ENGINES@ by one `engine_line` an engine."""
        values = {"TLS": ""} | values | {"DIR": folder, "STREAMS": place.n_streams + 250, "CONNECTIONS": 5 * place.n_streams // 2 + 1000}
        values["ENGINES"] = "\n".join(
            engine_line.format(port=port, index=i, models=json.dumps(place.models_of(i)), role=place.role_of(port))
            for i, port in enumerate(place.engine_ports)
        )
        text = (HERE / "peers" / f"{template}.in").read_text()
        path = folder / template
        path.write_text(re.sub(r"@([A-Z_]+)@", lambda found: str(values[found[1]]), text))
        return str(path)


class Direct(Subject):
    name = "direct"

    @contextlib.contextmanager
    def running(self, place):
        yield Running(place.engine_ports)


class Floor(Subject):
    name = "floor"

    def command(self, place, folder, port, admin_port):
        return [place.tool("relay"), "--port", str(port), "--engines", place.engine_list()]


class Nginx(Subject):
    name = "nginx"

    def version(self, place):
        program = place.program("tools/bin/nginx")
        return subprocess.run([program, "-v"], capture_output=True, text=True).stderr.strip().split()[-1]

    def tls(self, place):
        return ""

    def command(self, place, folder, port, admin_port):
        config = self.write(
            place,
            "nginx.conf",
            folder,
            "\t\tserver 127.0.0.1:{port};",
            PORT=port,
            USER="user root;" * (os.geteuid() == 0),
            TLS=self.tls(place),
        )
        return [place.program("tools/bin/nginx"), "-e", "stderr", "-p", str(folder), "-c", config]


class Haproxy(Subject):
    name = "haproxy"

    def version(self, place):
        program = place.program("tools/bin/haproxy")
        return "haproxy/" + subprocess.run([program, "-v"], capture_output=True, text=True).stdout.split()[2]

    def tls(self, place):
        return ""

    def command(self, place, folder, port, admin_port):
        server = "\tserver engine{index} 127.0.0.1:{port}"
        config = self.write(place, "haproxy.cfg", folder, server, PORT=port, TLS=self.tls(place))
        return [place.program("tools/bin/haproxy"), "-db", "-q", "-f", config]


class Aiohttp(Subject):
    name = "aiohttp"
    routed = True

    def version(self, place):
        script = "import aiohttp, platform as p; print(f'aiohttp/{aiohttp.__version__} python/{p.python_version()}')"
        asked = subprocess.run([self.python(place), "-c", script], capture_output=True, text=True)
        if asked.returncode:
            raise Unavailable("there is no aiohttp in " + self.python(place))
        return asked.stdout.strip()

    def python(self, place):
        return place.program("venv-bench/bin/python")

    def command(self, place, folder, port, admin_port):
        engines = {f"http://127.0.0.1:{p}": place.models_of(i) for i, p in enumerate(place.engine_ports)}
        config = folder / "proxy.json"
        config.write_text(json.dumps({"port": port, "engines": engines}))
        return [self.python(place), str(HERE / "peers" / "proxy.py"), str(config)]


class Headrace(Subject):
    """As it runs when nobody asks for anything else: its policy keeps conversations where their cache is."""

    name = "headrace"
    policy = "cache_aware"
    routed = True
    has_admin = True
    more = ""  # of each engine

    def version(self, place):
        asked = subprocess.run([place.program("release/headrace"), "--version"], capture_output=True, text=True)
        return asked.stdout.strip().splitlines()[0] if asked.returncode == 0 and asked.stdout.strip() else ""

    def tls(self, place):
        return ""

    def command(self, place, folder, port, admin_port):
        worker = '\n[[worker]]\nurl = "http://127.0.0.1:{port}"\nmodels = {models}' + self.more
        values = {"PORT": port, "ADMIN_PORT": admin_port, "POLICY": self.policy, "TLS": self.tls(place)}
        config = self.write(place, "headrace.toml", folder, worker, **values)
        return [place.program("release/headrace"), "router", "--config", config]


class HeadraceRoundRobin(Headrace):
    """What the same costs without looking at prompts."""

    name = "headrace_rr"
    policy = "round_robin"
    workloads = ("chat", "prompt400k", "shared400k")


class HeadraceOneModel(Headrace):
    """Eight engines with one model, for who has as many ranks."""

    name = "headrace_8"
    workloads = ("ranks",)


class HeadraceRanks(Headrace):
    """One engine of eight data-parallel ranks."""

    name = "headrace_ranks"
    workloads = ("ranks",)
    more = f"\nranks = {N_ENGINES}"

    def command(self, place, folder, port, admin_port):
        one = copy.copy(place)
        one.engine_ports = place.engine_ports[:1]
        return super().command(one, folder, port, admin_port)


class HeadraceDecoders(Headrace):
    """The engines that decode, which do it all."""

    name = "headrace_4"
    workloads = ("pairs",)

    def command(self, place, folder, port, admin_port):
        half = copy.copy(place)
        half.engine_ports = [p for p in place.engine_ports if p not in place.prefill_ports]
        return super().command(half, folder, port, admin_port)


class HeadracePairs(Headrace):
    """The same engines, and as many that prefill for them."""

    name = "headrace_pairs"
    workloads = ("pairs",)
    more = '\nlabels = {{ role = "{role}" }}'

    def command(self, place, folder, port, admin_port):
        return [*super().command(place, folder, port, admin_port), "--pd-min-uncached-tokens", "0"]


class NginxTls(Nginx):
    name, is_tls, workloads = "nginx_tls", True, TLS_WORKLOADS

    def tls(self, place):
        pem = place.certificate()
        return f" ssl;\n\t\tssl_certificate {pem};\n\t\tssl_certificate_key {pem};\n\t\tssl_protocols TLSv1.2 TLSv1.3"


class HaproxyTls(Haproxy):
    name, is_tls, workloads = "haproxy_tls", True, TLS_WORKLOADS

    def tls(self, place):
        return f" ssl crt {place.certificate()} alpn http/1.1"


class HeadraceTls(Headrace):
    name, is_tls, workloads = "headrace_tls", True, TLS_WORKLOADS

    def tls(self, place):
        return f'[tls]\ncertificates = ["{place.certificate()}"]\n'


SUBJECTS = [
    Direct(),
    Floor(),
    Nginx(),
    Haproxy(),
    Aiohttp(),
    Headrace(),
    HeadraceRoundRobin(),
    HeadraceOneModel(),
    HeadraceRanks(),
    HeadraceDecoders(),
    HeadracePairs(),
    NginxTls(),
    HaproxyTls(),
    HeadraceTls(),
]

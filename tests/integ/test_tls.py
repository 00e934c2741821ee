"""TLS in front and behind: who is believed, what is refused, and that certificates change without a drop."""
import json
import signal
import socket
import ssl
import threading

import httpx
import openai
import pytest

from babysitting import Babysitter, mock
from certs import Authority
from program import KEY, PROMPT, Router, chat_body, eventually, hard_close, raw_request, read_to_end
from ports import free_port
from registryprogram import Registry

LOCAL = ("DNS:localhost", "IP:127.0.0.1")
ENDLESS = chat_body(stream=True, max_tokens=100000)
STREAM_BYTES_MAX = 40 * 1024


@pytest.fixture
def authority():
    return Authority()


def trusting(authority, *alpn, certificate=None):
    context = ssl.create_default_context(cafile=str(authority.ca))
    context.check_hostname = False      # tests name whom they look for
    if alpn:
        context.set_alpn_protocols(alpn)
    if certificate:
        context.load_cert_chain(certificate)
    return context


def connect(router, context, name="localhost", session=None):
    """An end without a farewell raises."""
    s = socket.create_connection(("127.0.0.1", router.port), 60)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        return context.wrap_socket(s, server_hostname=name, suppress_ragged_eofs=False, session=session)
    except BaseException:
        s.close()
        raise


def chat(s, body):
    """A POST on an open connection; -> (status, body)"""
    s.sendall(raw_request(body, headers="Connection: close\r\n"))
    head, _, rest = read_to_end(s)[0].partition(b"\r\n\r\n")
    return int(head.split()[1]), rest


@pytest.fixture
def front(engine, router, authority):
    """A router with TLS before a plain engine."""
    return router([engine(["m"])], tls={"certificates": [authority.issue(*LOCAL)]})


# --- in front -----------------------------------------------------------------------------

def test_the_official_sdk(engine, router, authority):
    worker = engine(["m"])
    front = router([worker], "--ssl-certfile", authority.issue(*LOCAL), tls={"certificates": []})
    with openai.OpenAI(base_url=f"{front.url}/v1", api_key=KEY, max_retries=0,
                       http_client=httpx.Client(verify=ssl.create_default_context(cafile=str(authority.ca)))) as client:
        messages = [{"role": "user", "content": PROMPT}]
        plain = client.chat.completions.create(model="m", messages=messages, max_tokens=40)
        parts = list(client.chat.completions.create(model="m", messages=messages, max_tokens=40, stream=True))
        assert "".join(p.choices[0].delta.content or "" for p in parts) == plain.choices[0].message.content
        large = [{"role": "user", "content": "word " * 200_000}]
        assert client.chat.completions.create(model="m", messages=large, max_tokens=1).usage.prompt_tokens > 100_000


def test_a_name_finds_its_certificate(engine, router, authority):
    front = router([engine(["m"])], tls={"certificates": [
        authority.issue(*LOCAL), authority.issue("DNS:two.example", "DNS:*.two.example")]})
    subjects = {}
    for name in ("localhost", "two.example", "x.two.example", "nobody.example"):
        with connect(front, trusting(authority), name) as s:
            subjects[name] = dict(pair[0] for pair in s.getpeercert()["subject"])["commonName"]
    assert subjects == {"localhost": "localhost", "two.example": "two.example", "x.two.example": "two.example",
                        "nobody.example": "localhost"}


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_what_is_not_spoken(front, authority):
    old = trusting(authority)
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    weak = trusting(authority)
    weak.set_ciphers("ECDHE-ECDSA-AES128-SHA256:ECDHE-ECDSA-AES256-SHA:@SECLEVEL=0")
    weak.maximum_version = ssl.TLSVersion.TLSv1_2
    for context in (old, weak):
        with pytest.raises(ssl.SSLError):
            connect(front, context)
    with pytest.raises(ssl.SSLError, match="(?i)no.application.protocol"):
        connect(front, trusting(authority, "h2"))
    with connect(front, trusting(authority, "h2", "http/1.1")) as s:
        assert s.selected_alpn_protocol() == "http/1.1" and s.version() == "TLSv1.3"
        assert chat(s, chat_body())[0] == 200
    s = socket.create_connection(("127.0.0.1", front.port), 60)
    s.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert not read_to_end(s)[0].startswith(b"HTTP")


def test_whom_clients_do_not_know(front):
    stranger = Authority("stranger")
    with pytest.raises(ssl.SSLCertVerificationError):
        connect(front, trusting(stranger))


def test_clients_show_who_they_are(engine, router, authority):
    known, unknown = authority.issue("DNS:client"), Authority("other").issue("DNS:client")
    front = router([engine(["m"])], "--ssl-ca-certs", authority.ca, certificate=known,
                   tls={"certificates": [authority.issue(*LOCAL)]})
    with connect(front, trusting(authority, certificate=known)) as s:
        assert chat(s, chat_body())[0] == 200
    for certificate in (None, unknown):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            with connect(front, trusting(authority, certificate=certificate)) as s:
                s.sendall(raw_request(chat_body()))
                assert s.recv(1) == b"", "served"
                raise ConnectionError("closed")
    front.chat()
    assert len(front.log(2)) == 2


@pytest.mark.parametrize("said", [0, 1, 50])
def test_a_slow_handshake_is_cut(front, authority, said):
    """Whatever has come of it by then."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    hello = trusting(authority).wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        hello.do_handshake()
    with socket.create_connection(("127.0.0.1", front.port), 60) as s:
        s.sendall(outgoing.read(said))
        assert read_to_end(s)[0] == b""
    assert front.chat().status_code == 200


@pytest.mark.parametrize("how", ["close", "reset", "farewell"])
def test_a_client_that_leaves(engine, router, authority, how):
    worker = engine(["m"])
    front = router([worker], tls={"certificates": [authority.issue(*LOCAL)]})
    s = connect(front, trusting(authority))
    s.sendall(raw_request(ENDLESS))
    read_to_end(s, b"data: ")
    if how == "farewell":
        with pytest.raises((ssl.SSLError, OSError)):        # the other side has data on the way
            s.unwrap()
    else:
        hard_close(s) if how == "reset" else s.close()
    eventually(lambda: worker.count("cancelled") == 1)
    s.close()
    record, = front.log(1)
    assert record["status"] == 499 and record["cause"] == "client_gone"


def test_an_idle_client_is_told(engine, router, authority):
    front = router([engine(["m"])], timeout={"keepalive": "100ms"}, tls={"certificates": [authority.issue(*LOCAL)]})
    with connect(front, trusting(authority)) as s:
        s.sendall(raw_request(chat_body()))
        assert read_to_end(s)[1] == "fin"
    assert len(front.log(1)) == 1


def test_an_idle_client_is_told_of_the_end(front, authority):
    with connect(front, trusting(authority)) as idle, connect(front, trusting(authority)) as fresh:
        idle.sendall(raw_request(chat_body()))
        read_to_end(idle, b'"usage"')
        front.stop()
        assert read_to_end(idle)[1] == "fin"
        assert read_to_end(fresh) == (b"", "fin")


def resumed(front, context, session):
    """-> whether the session was taken, and the newest."""
    with connect(front, context, session=session) as s:
        assert chat(s, chat_body())[0] == 200
        return s.session_reused, s.session


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_sessions_are_resumed(front, authority, version):
    """By every thread, until the certificates are read again."""
    context = trusting(authority)
    context.maximum_version = version
    was_resumed, session = resumed(front, context, None)
    assert not was_resumed
    for _ in range(16):
        was_resumed, session = resumed(front, context, session)
        assert was_resumed
    front.process.send_signal(signal.SIGHUP)
    eventually(lambda: not resumed(front, context, session)[0])


def test_tls_to_a_plain_port(engine, router, authority):
    front = router([engine(["m"])])
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    hello = trusting(authority).wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        hello.do_handshake()
    with socket.create_connection(("127.0.0.1", front.port), 60) as s:
        s.sendall(outgoing.read())
        answer, how = read_to_end(s)
        assert answer.startswith(b"HTTP/1.1 400 ") and how == "fin"
    assert front.chat().status_code == 200


def test_what_an_idle_stream_takes(engine, router, authority):
    n = 1000
    worker = engine(["m"], "--max-num-seqs", 2 * n, "--itl", "1h")
    front = router([worker], tls={"certificates": [authority.issue(*LOCAL)]}, router={"threads": 1})
    context = trusting(authority)

    def streams(n):
        opened = [connect(front, context) for _ in range(n)]
        for s in opened:
            s.sendall(raw_request(ENDLESS))
        for s in opened:
            read_to_end(s, b"\r\n\r\n")
        return opened
    some = streams(100)
    before = front.rss_bytes()
    some += streams(n)
    each = (front.rss_bytes() - before) / n
    print(f"{each / 1024:.1f} KiB for each idle stream")
    assert each <= STREAM_BYTES_MAX
    for s in some:
        s.close()
    eventually(lambda: worker.count("cancelled") == n + 100)


# --- certificates change --------------------------------------------------------------------

def serial(front, authority, name="localhost"):
    with connect(front, trusting(authority)) as s:
        return int(s.getpeercert()["serialNumber"], 16)


class Load:
    """Clients that come anew for every request."""

    def __init__(self, front, context, n=4):
        self.front, self.context = front, context
        self.failures, self.done, self.is_over = [], 0, False
        self.threads = [threading.Thread(target=self.run) for _ in range(n)]
        for t in self.threads:
            t.start()

    def run(self):
        while not self.is_over:
            try:
                with connect(self.front, self.context) as s:
                    status, body = chat(s, chat_body(stream=True))
                    assert status == 200 and b"[DONE]" in body
                self.done += 1
            except Exception as e:  # noqa: BLE001
                self.failures.append(repr(e))

    def end(self):
        self.is_over = True
        for t in self.threads:
            t.join()


def test_certificates_change_under_load(engine, router, authority):
    path = authority.issue(*LOCAL)
    front = router([engine(["m"])], tls={"certificates": [path]})
    long = connect(front, trusting(authority))
    long.sendall(raw_request(ENDLESS))
    read_to_end(long, b"data: ")
    load = Load(front, trusting(authority))
    for _ in range(10):
        before, done = serial(front, authority), load.done
        next_one = authority.issue(*LOCAL)
        with open(next_one, "rb") as new, open(path, "wb") as out:
            out.write(new.read())
        front.process.send_signal(signal.SIGHUP)
        eventually(lambda: serial(front, authority) > before)
        eventually(lambda: load.done > done + 10)
    load.end()
    assert load.failures == [] and load.done > 100
    read_to_end(long, b"data: ")        # it was there all the time
    long.close()


def test_a_certificate_that_cannot_be_read_changes_nothing(engine, router, authority):
    path = authority.issue(*LOCAL)
    front = router([engine(["m"])], tls={"certificates": [path]})
    before = serial(front, authority)
    with open(path, "w") as out:
        out.write("garbage")
    front.process.send_signal(signal.SIGHUP)
    eventually(lambda: "mistake in the configuration" in front.output())
    said = next(json.loads(line) for line in front.output().splitlines() if "mistake in" in line)
    assert said["what"].endswith(f"tls.certificates: {path}: there is no certificate in it")
    assert serial(front, authority) == before and front.chat().status_code == 200


# --- engines ----------------------------------------------------------------------------------

def secure_engine(engine, authority, *names):
    return engine(["m"], "--ssl-certfile", authority.issue(*(names or LOCAL)))


def test_an_engine_with_tls(engine, router, authority):
    worker = secure_engine(engine, authority)
    front = router([f"https://localhost:{worker.port}"], "--engine-ca", authority.ca)
    assert front.get("/v1/models").json()["data"][0]["id"] == "m"
    with openai.OpenAI(base_url=f"{front.url}/v1", api_key=KEY, max_retries=0) as client:
        for _ in range(3):
            parts = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "a" * 300_000}],
                                                   stream=True, max_tokens=30)
            assert len(list(parts)) >= 30
    s = front.connect()
    s.sendall(raw_request(ENDLESS))
    read_to_end(s, b"data: ")
    s.close()
    eventually(lambda: worker.count("cancelled") == 1)


def declared(worker, host="localhost"):
    """Nobody asks it for its models."""
    worker.declared, worker.url = ["m"], f"https://{host}:{worker.port}"
    return worker


@pytest.mark.parametrize("why", ["name", "signer", "plain"])
def test_another_engine_than_the_one_that_was_meant(engine, router, authority, why):
    worker = engine(["m"]) if why == "plain" else secure_engine(engine, authority, *(["DNS:other"] if why == "name" else LOCAL))
    at_home = worker.url
    front = router([declared(worker)], "--engine-ca", Authority("other").ca if why == "signer" else authority.ca)
    refused = front.chat()
    assert refused.status_code == 502 and "TLS" in refused.json()["error"]["message"]
    assert front.log(1)[0]["cause"] == "tls_failed"
    worker.url = at_home
    assert worker.count("started") == 0


def test_engines_may_be_believed_blindly(engine, router, authority):
    worker = secure_engine(engine, authority, "DNS:other")
    front = router([declared(worker)], tls={"engine_insecure": True})
    assert front.chat().status_code == 200
    worker.url = f"https://127.0.0.1:{worker.port}"


class TlsServer:
    """Takes each connection, reads a head, and says what it was told."""

    def __init__(self, certificate, answer, farewell, client_ca=None):
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate)
        if client_ca:
            self.context.verify_mode = ssl.CERT_REQUIRED
            self.context.load_verify_locations(client_ca)
        self.answer, self.farewell, self.clients = answer, farewell, []
        self.port = free_port()
        self.url, self.declared = f"https://localhost:{self.port}", ["m"]
        self.socket = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                raw, _ = self.socket.accept()
            except OSError:
                return
            try:
                with self.context.wrap_socket(raw, server_side=True) as s:
                    self.clients.append(s.getpeercert())
                    read_to_end(s, b'"}]}')
                    s.sendall(self.answer)
                    if self.farewell:
                        s.unwrap()
            except OSError:
                pass

    def stop(self):
        self.socket.close()


@pytest.mark.parametrize("farewell", [True, False])
def test_a_cut_answer_is_seen_as_cut(router, start, authority, farewell):
    """Its end is the connection's end: without TLS's farewell anybody could have cut it."""
    server = start(TlsServer, authority.issue(*LOCAL), b"HTTP/1.1 200 OK\r\n\r\npart", farewell)
    front = router([server], "--engine-ca", authority.ca)
    s = front.connect()
    s.sendall(raw_request(chat_body(), headers="Connection: close\r\n"))
    answer, _ = read_to_end(s)
    assert b"part" in answer and answer.endswith(b"0\r\n\r\n") == farewell
    assert front.log(1)[0]["cause"] == ("none" if farewell else "stream_broken")


def test_engines_are_shown_who_we_are(router, start, authority):
    server = start(TlsServer, authority.issue(*LOCAL), b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", True,
                   client_ca=str(authority.ca))
    front = router([server], "--engine-ca", authority.ca, "--engine-certificate", authority.issue("DNS:router"))
    assert front.chat().status_code == 200
    assert server.clients[-1]["subjectAltName"] == (("DNS", "router"),)


def test_an_engine_is_not_told_who_we_are_before_we_know_it(router, start, authority):
    server = start(TlsServer, Authority("other").issue(*LOCAL), b"", True, client_ca=str(authority.ca))
    front = router([server], "--engine-ca", authority.ca, "--engine-certificate", authority.issue("DNS:router"))
    assert front.chat().status_code == 502
    assert server.clients == []


# --- the fleet --------------------------------------------------------------------------------

def test_the_registry_and_those_who_ask_it(start, authority):
    path = authority.issue(*LOCAL)
    registry = start(Registry, "--ssl-certfile", path)
    sitter = start(Babysitter, mock("m"), registry, flags=("--peer-ca", authority.ca))
    front = start(Router, [], "--registry-url", registry.url, "--engine-ca", authority.ca, ready=1)
    assert front.chat().status_code == 200
    authority.issue(*LOCAL, to=authority.folder / "next.pem")
    with open(authority.folder / "next.pem", "rb") as new, open(path, "wb") as out:
        out.write(new.read())
    registry.process.send_signal(signal.SIGHUP)
    eventually(lambda: "certificates read again" in registry.output())
    other = start(Babysitter, mock("m"), registry, name="other", flags=("--peer-ca", Authority("other").ca))
    eventually(lambda: "TLS handshake failed" in other.output())
    assert {name.split("-")[0] for name in registry.names()} == {"eng"}
    sitter.stop()
    eventually(lambda: front.ready_workers() == 0)


@pytest.mark.parametrize("knows", ["all", "none"])
def test_a_fleet_all_of_which_speaks_tls(start, authority, knows):
    """Its babysitter is asked by the registry, its engine by the babysitter and by the router; or by nobody who does not
    believe them."""
    path = authority.issue("DNS:localhost")
    ca = authority.ca if knows == "all" else Authority("other").ca
    registry = start(Registry, "--ssl-certfile", authority.issue(*LOCAL), "--peer-ca", ca, "--health-interval", "200ms")
    sitter = start(Babysitter, mock("m") | {"args": ["--ssl-certfile", path]}, registry,
                   babysitter={"advertise": "localhost"}, tls={"certificates": [path], "peer_ca": str(authority.ca)})
    front = start(Router, [], "--registry-url", registry.url, "--engine-ca", authority.ca, ready=1)
    record = registry.record("eng-server")
    assert record["url"] == f"https://localhost:{sitter.engine_port}"
    assert registry.record("eng")["url"] == f"https://localhost:{sitter.port}"
    assert sitter.get("/info").json()["url"] == f"https://localhost:{sitter.port}"
    assert sitter.get("/models").json()["data"][0]["id"] == "m"
    assert front.chat().status_code == 200
    shown, = front.get("/services").json()["services"]
    assert (shown["url"], shown["babysitter_url"]) == (record["url"], registry.record("eng")["url"])
    expected = "healthy" if knows == "all" else "unhealthy"
    eventually(lambda: registry.record("eng-server")["health_status"] == expected)

    before = serial(sitter, authority)
    authority.issue("DNS:localhost", to=authority.folder / "next.pem")
    with open(authority.folder / "next.pem", "rb") as new, open(path, "wb") as out:
        out.write(new.read())
    sitter.process.send_signal(signal.SIGHUP)
    eventually(lambda: serial(sitter, authority) > before)
    assert sitter.health()["state"] == "ready"


def test_an_engine_that_a_babysitter_does_not_believe(start, authority):
    """It is not what it was meant to be: nobody is sent there."""
    path, other = authority.issue("DNS:localhost"), authority.issue("DNS:other")
    registry = start(Registry)
    sitter = start(Babysitter, mock("m") | {"args": ["--ssl-certfile", other]}, registry, ready=False,
                   babysitter={"advertise": "localhost"}, tls={"certificates": [path], "peer_ca": str(authority.ca)})
    eventually(lambda: "eng" in registry.names())
    with httpx.Client(verify=False) as client:
        sitter.await_ready(lambda: client.get(sitter.engine_url + "/health").status_code == 200)
    assert sitter.state() == "starting" and registry.names() == ["eng"]

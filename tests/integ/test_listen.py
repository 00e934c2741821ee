"""Addresses to listen at."""
import socket

import pytest

from program import Router
from room import Room


class OverIpv6(Router):
    """Reached at [::1], whatever a Router says of itself."""
    url = property(lambda self: f"http://[::1]:{self.port}", lambda self, _: None)
    admin_url = property(lambda self: f"http://[::1]:{self.admin_port}", lambda self, _: None)


@pytest.fixture(autouse=True)
def ipv6():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 loopback here")


def listens(host, port):
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as s:
        return s.connect_ex((host, port)) == 0


def test_ipv6_from_end_to_end(start, engine):
    worker = engine(["m"], host="::1")
    front = start(OverIpv6, [worker], router={"host": "::1"}, admin={"host": "::1"})
    assert [front.chat().status_code for _ in range(10)] == [200] * 10
    assert worker.count("finished") == 10
    assert front.admin("/liveness").status_code == 200
    assert not listens("127.0.0.1", front.port) and not listens("127.0.0.1", front.admin_port)
    assert f'"data":"http://[::1]:{front.port}"' in front.output()
    assert {record["status"] for record in front.log(10)} == {200}


def test_a_name_to_listen_at(start, engine):
    where = Room({"hosts": "::1 here.example\n"})
    front = start(OverIpv6, [engine(["m"])], router={"host": "here.example"}, admin={"host": "::1"}, how=where.how)
    assert front.chat().status_code == 200
    assert not listens("127.0.0.1", front.port)

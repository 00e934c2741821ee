"""What tests ask of the worker API."""
from program import eventually, http


def call(front, method, path, **how):
    with http() as client:
        return client.request(method, front.url + path, **how)


def workers(front):
    return {w["url"]: w for w in front.get("/workers").json()["workers"]}


def register(front, engine, **more):
    """Accepted, and waited for."""
    reply = front.post("/workers", json={"url": engine if isinstance(engine, str) else engine.url, **more})
    assert reply.status_code == 202, reply.text
    eventually(lambda: front.get(reply.json()["location"]).json()["job_status"]["status"] in ("done", "failed"))
    return reply.json()

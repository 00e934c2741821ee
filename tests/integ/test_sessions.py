"""What names a session, which of several names counts, and how long its requests stay at one engine."""
import itertools

import anthropic
import httpx
import openai
import pytest

from fakeworker import answer
from program import KEY, PROMPT, eventually, http
from sdk import sdk

MESSAGES = [{"role": "user", "content": PROMPT}]
POLICIES = ["session", "consistent_hash", "rendezvous_hash"]

# In the order that counts.
HEADERS = ["x-session-id", "x-session-affinity", "x-smg-routing-key", "x-claude-code-session-id", "session-id",
           "session_id", "x-session-token"]
MEMBERS = ["prompt_cache_key", "conversation", "previous_response_id", "session_params.session_id",
           "metadata.user_id", "user"]
NAMES = HEADERS + MEMBERS


def member(name, text):
    outer, _, inner = name.partition(".")
    return {outer: {inner: text} if inner else text}


def keyed(*keys):
    """-> arguments of an SDK for (name, text) pairs, members in this order"""
    body = {}
    for name, text in keys:
        body |= member(name, text) if name in MEMBERS else {}
    return {"extra_headers": {name: text for name, text in keys if name in HEADERS}, "extra_body": body}


class Fleet:
    def __init__(self, engine, start, *flags):
        self.engines = [engine(["m"]) for _ in range(3)]
        self.router = self.front(start, *flags)
        self.client = sdk(self.router)

    def front(self, start, *flags, engines=None):
        """A router that has learned all there is: no later snapshot changes a choice."""
        front = start(engines or self.engines, "--policy", *flags, health={"slow_start": "0s"})
        eventually(lambda: [s["status"] for s in front.get("/services").json()["services"]] == ["ready"] * 3)
        return front

    def served(self):
        return [e.count("started") for e in self.engines]

    def where(self, ask):
        """-> the number of the engine that got what ask() asks"""
        before = self.served()
        ask()
        return [now - then for now, then in zip(self.served(), before)].index(1)

    def home(self, *keys, client=None, **more):
        client = client or self.client
        return self.where(lambda: client.chat.completions.create(
            model="m", max_tokens=1, messages=MESSAGES, **keyed(*keys) | more))

    def apart(self, name="x-session-id"):
        """Two sessions that live at different engines."""
        first = self.home((name, "apart-0"))
        return "apart-0", next(s for s in (f"apart-{i}" for i in range(1, 64)) if self.home((name, s)) != first)


@pytest.mark.parametrize("policy", POLICIES)
def test_each_name_keeps_a_session_at_one_engine(engine, router, policy):
    fleet = Fleet(engine, router, policy)
    for name in NAMES:
        sessions = [f"{name}/{i}" for i in range(12)]
        homes = {s: fleet.home((name, s)) for s in sessions}
        assert len(set(homes.values())) > 1, name
        assert {s: fleet.home((name, s)) for s in reversed(sessions)} == homes, name


@pytest.mark.parametrize("policy", POLICIES)
def test_the_first_name_counts(engine, router, policy):
    """Of each two of them, headers before members, in whatever order they come."""
    fleet = Fleet(engine, router, policy)
    one, other = fleet.apart()
    homes = {s: fleet.home(("x-session-id", s)) for s in (one, other)}
    for first, second in itertools.combinations(NAMES, 2):
        assert fleet.home((first, one), (second, other)) == homes[one], (first, second)
        assert fleet.home((second, one), (first, other)) == homes[other], (second, first)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_requests_id_is_no_session(engine, router, policy):
    fleet = Fleet(engine, router, policy)
    ids = ("x-request-id", "x-correlation-id", "x-trace-id", "request-id")
    for name in ids:
        assert {fleet.home(extra_headers={name: "the-same"}) for _ in range(24)} == {0, 1, 2}, name
    one, other = fleet.apart()
    at = fleet.home(("x-session-id", one))
    assert {fleet.home(extra_headers={"x-session-id": one, "x-request-id": other}) for _ in range(6)} == {at}
    assert {fleet.home(("user", one), extra_headers={"x-request-id": f"{other}-{i}"}) for i in range(6)} == {at}


@pytest.mark.parametrize("policy", POLICIES)
def test_the_sdks_own_arguments_name_sessions(engine, router, policy):
    """One text is one session, whatever brings it."""
    fleet = Fleet(engine, router, policy)
    claude = anthropic.Anthropic(base_url=fleet.router.url, api_key=KEY, max_retries=0, timeout=60)
    chat = {"model": "m", "messages": MESSAGES, "max_tokens": 1}
    response = {"model": "m", "input": PROMPT, "max_output_tokens": 16}
    for session in (f"conv_{i}" for i in range(8)):
        at = fleet.home(("x-session-id", session))
        chats, responses = fleet.client.chat.completions, fleet.client.responses
        for ask in (lambda: chats.create(**chat, user=session),
                    lambda: chats.create(**chat, prompt_cache_key=session),
                    lambda: responses.create(**response, user=session),
                    lambda: responses.create(**response, prompt_cache_key=session),
                    lambda: responses.create(**response, extra_body={"conversation": {"id": session}}),
                    lambda: fleet.client.completions.create(model="m", prompt=PROMPT, user=session),
                    lambda: claude.messages.create(**chat, metadata={"user_id": session})):
            assert fleet.where(ask) == at, session


def test_names_can_be_chosen(engine, router):
    fleet = Fleet(engine, router, "rendezvous_hash", "--session-headers", "x-mine", "--session-members", "user")
    names = ("x-mine", "user")
    homes = {f"s{i}": fleet.home(extra_headers={"x-mine": f"s{i}"}) for i in range(12)}
    assert len(set(homes.values())) > 1
    assert {s: fleet.home(("user", s), ("prompt_cache_key", "other")) for s in homes} == homes
    for name in (n for n in NAMES if n not in names):
        assert {fleet.home((name, "the same")) for _ in range(24)} == {0, 1, 2}, name


def test_a_finished_session_begins_anew(engine, router):
    fleet = Fleet(engine, router, "session")

    def finish(session):
        with http() as client:
            done = client.post(fleet.router.url + "/finish_session", params={"session_id": session})
        assert done.status_code == 200
        return done.json()["ended"]
    homes = {f"s{i}": fleet.home(("user", f"s{i}")) for i in range(9)}
    at_2 = [s for s, at in homes.items() if at == 2]
    assert len(at_2) == 3
    assert [finish(s) for s in at_2] == [True] * 3 and [finish(s) for s in at_2] == [False] * 3
    assert [fleet.home(("x-session-id", f"new{i}")) for i in range(3)] == [2] * 3      # there is the room
    assert {s: fleet.home(("user", s)) for s in homes if s not in at_2} == {s: i for s, i in homes.items() if i != 2}
    assert sorted(fleet.home(("user", s)) for s in at_2) == [0, 1, 2]


@pytest.mark.parametrize("policy", ["consistent_hash", "rendezvous_hash"])
def test_routers_agree_without_talking(engine, router, policy):
    """Told of the engines in another order, and started anew."""
    fleet = Fleet(engine, router, policy)
    sessions = [f"talk-{i}" for i in range(30)]
    homes = {s: fleet.home(("x-session-id", s)) for s in sessions}
    assert set(homes.values()) == {0, 1, 2}
    for engines in (fleet.engines[::-1], fleet.engines):
        client = sdk(fleet.front(router, policy, engines=engines))
        assert {s: fleet.home(("prompt_cache_key", s), client=client) for s in sessions} == homes


AUDIO = b"RIFF" + bytes(range(256)) * 1200


@pytest.fixture
def transcribers(fake, router):
    """Each has a model of its own."""
    def serve(peer):
        while peer.request():
            peer.send(answer(b'{"text":"as was said"}'))
    engines = [fake(serve, declared=[f"whisper-{i}"]) for i in range(3)]
    front = router(engines)
    front.engines = engines
    return front


def test_a_transcription_goes_where_its_model_is(transcribers):
    client = sdk(transcribers)
    for n in range(1, 5):
        for i in range(3):
            said = client.audio.transcriptions.create(model=f"whisper-{i}", file=("a.wav", AUDIO, "audio/wav"))
            assert said.text == "as was said"
        assert [len(e.requests) for e in transcribers.engines] == [n] * 3
    assert all(AUDIO in body and b"whisper-%d" % i in body
               for i, e in enumerate(transcribers.engines) for _, body in e.requests)
    with pytest.raises(openai.NotFoundError):
        client.audio.transcriptions.create(model="none of ours", file=("a.wav", AUDIO, "audio/wav"))
    assert [len(e.requests) for e in transcribers.engines] == [4] * 3


@pytest.mark.parametrize("model_first", [True, False])
def test_before_or_behind_its_file(transcribers, model_first):
    for n in range(1, 4):
        for i in range(3):
            parts = [("file", ("model", AUDIO, "audio/wav")), ("language", (None, "whisper-0")),
                     ("model", (None, f"whisper-{i}"))]
            with httpx.Client(base_url=transcribers.url, timeout=60) as client:
                reply = client.post("/v1/audio/transcriptions", files=parts[::-1] if model_first else parts)
            assert reply.status_code == 200, reply.text
        assert [len(e.requests) for e in transcribers.engines] == [n] * 3
    for i, e in enumerate(transcribers.engines):
        assert all(b'; name="model"\r\n\r\nwhisper-%d\r\n' % i in body for _, body in e.requests)
        assert all((body.index(b'; name="model"') < body.index(AUDIO)) == model_first for _, body in e.requests)

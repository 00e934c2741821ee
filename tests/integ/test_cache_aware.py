"""Conversations stay where their cache is, by the engines' own figures; they leave an engine that drowns, or forgot.

Engines are slow enough for a prompt to cost much more than what a busy machine adds to it.
"""
import asyncio
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import anthropic
import httpx
import openai
import pytest

from program import KEY, PROMPT, eventually

RATE = 20000        # prompt tokens a second
SCRAPE = {"scrape": "100ms"}
WORDS = [f"{a}{b}" for a in ("al", "be", "cor", "du", "en", "far") for b in ("ma", "no", "ti", "ra", "lu", "go", "se")]


def text(n_bytes, *seed):
    """The same for the same seed, and no block of it like one of another's."""
    draw, words = random.Random(repr(seed)), []
    while n_bytes > 0:
        words.append(draw.choice(WORDS))
        n_bytes -= len(words[-1]) + 1
    return " ".join(words)


SYSTEM = f"{PROMPT} {text(4096, 'system')}"
SYSTEM_TOKENS = len(SYSTEM) // 4
TOOL = {"name": "look_up", "description": text(5000, "tool"), "parameters": {"type": "object", "properties": {}}}


class Fleet:
    """Engines that serve model m, and each a model of its own, and a router before them."""

    def __init__(self, engine, router, n=3, rate=RATE, policy="cache_aware", **tables):
        self.engines = [engine(["m", f"only-{i}"], "--prefill-rate", rate) for i in range(n)]
        self.router = router(self.engines, policy={"default": policy}, health={"slow_start": "0s"}, **tables)

    def openai(self, kind=openai.OpenAI):
        return kind(base_url=self.router.url + "/v1", api_key=KEY, max_retries=0, timeout=60)

    def anthropic(self, kind=anthropic.Anthropic):
        return kind(base_url=self.router.url, api_key=KEY, max_retries=0, timeout=60)

    def generations(self, i):
        return self.engines[i].ledger()["generations"]

    def served(self):
        """id of a request -> (number of its engine, tokens of the prompt, those cached), by the engines' word"""
        return {g["id"]: (i, g["prompt_tokens"], g["cached_tokens"])
                for i in range(len(self.engines)) for g in self.generations(i)}

    def explain(self, body, path="/v1/chat/completions"):
        """number of an engine -> cached tokens that are expected there"""
        with httpx.Client(base_url=self.router.admin_url, timeout=60) as client:
            answer = client.post("/explain", params={"path": path}, json=body)
        assert answer.status_code == 200, answer.text
        urls = [e.url for e in self.engines]
        return {urls.index(row["instance"]): row["cached_tokens"] for row in answer.json()["rows"]}


class Talk:
    """A conversation over one of the APIs. Each turn says more than 2 KiB; what was answered is said again."""
    api = None

    def __init__(self, name):
        self.name, self.turns, self.ids, self.usage = name, [], [], []

    def say(self):
        """-> the arguments of the next request"""
        n_bytes = 3000 if self.turns else 24000    # to leave costs more than to wait for a few others
        self.turns.append({"role": "user", "content": text(n_bytes, self.name, len(self.turns))})
        self.ids.append(f"{self.name}.{len(self.ids)}")
        return {"model": "m", "max_tokens": 4, "extra_headers": {"x-request-id": self.ids[-1]}} | self.arguments()

    def hear(self, answer):
        reply, prompt_tokens, cached_tokens = self.read(answer)
        self.turns.append({"role": "assistant", "content": reply})
        self.usage.append((prompt_tokens, cached_tokens))

    def turn(self, client):
        self.hear(self.create(client)(**self.say()))

    async def async_turn(self, client):
        self.hear(await self.create(client)(**self.say()))


class Chat(Talk):
    client = "openai"

    def create(self, client):
        return client.chat.completions.create

    def arguments(self):
        return {"messages": [{"role": "system", "content": SYSTEM}, *self.turns]}

    def read(self, answer):
        return (answer.choices[0].message.content, answer.usage.prompt_tokens,
                answer.usage.prompt_tokens_details.cached_tokens)


class Completion(Talk):
    client = "openai"

    def create(self, client):
        return client.completions.create

    def arguments(self):
        return {"prompt": "\n".join([SYSTEM] + [t["content"] for t in self.turns])}

    def read(self, answer):
        return answer.choices[0].text, answer.usage.prompt_tokens, answer.usage.prompt_tokens_details.cached_tokens


class Response(Talk):
    client = "openai"

    def create(self, client):
        return client.responses.create

    def say(self):
        arguments = super().say()
        return arguments | {"max_output_tokens": arguments.pop("max_tokens")}

    def arguments(self):
        return {"instructions": SYSTEM, "input": list(self.turns)}

    def read(self, answer):
        return answer.output_text, answer.usage.input_tokens, answer.usage.input_tokens_details.cached_tokens


class Message(Talk):
    client = "anthropic"

    def create(self, client):
        return client.messages.create

    def arguments(self):
        return {"system": SYSTEM, "messages": list(self.turns)}

    def read(self, answer):
        cached = answer.usage.cache_read_input_tokens
        return answer.content[0].text, answer.usage.input_tokens + cached, cached


def together(fleet, talks):
    """A turn of all of them at once."""
    with getattr(fleet, talks[0].client)() as client, ThreadPoolExecutor(len(talks)) as pool:
        list(pool.map(lambda talk: talk.turn(client), talks))


def begin(fleet, talks):
    """Their first turns side by side, each when the one before is at its engine: none overtakes what it builds on."""
    with getattr(fleet, talks[0].client)() as client, ThreadPoolExecutor(len(talks)) as pool:
        turns = []
        for talk in talks:
            turns.append(pool.submit(talk.turn, client))
            eventually(lambda: len(fleet.served()) == len(turns))
        for turn in turns:
            turn.result()


def home(fleet, talk, turn=-1):
    return fleet.served()[talk.ids[turn]][0]


def check_stay(fleet, talks):
    """All turns of each at one engine, the conversations at all engines, and what was said before is cached."""
    served = fleet.served()
    for talk in talks:
        rows = [served[id] for id in talk.ids]
        assert [row[1:] for row in rows] == talk.usage
        assert len({row[0] for row in rows}) == 1, f"{talk.name} wandered: {rows}"
        for (_, before, _), (_, now, cached) in zip(rows, rows[1:]):
            assert before * 0.95 <= cached < now
    assert {served[talk.ids[0]][0] for talk in talks} == set(range(len(fleet.engines)))


@pytest.mark.parametrize("kind", [Chat, Completion, Response, Message])
def test_conversations_stay_where_their_cache_is(engine, router, kind):
    fleet = Fleet(engine, router)
    talks = [kind(f"talk-{i}") for i in range(6)]
    begin(fleet, talks)
    for _ in range(4):
        together(fleet, talks)
    check_stay(fleet, talks)


@pytest.mark.parametrize("kind", [Chat, Completion, Response, Message])
def test_so_do_those_of_async_clients(engine, router, kind):
    fleet = Fleet(engine, router)
    talks = [kind(f"async-{i}") for i in range(6)]

    begin(fleet, talks)

    async def all_of_them():
        client = fleet.anthropic(anthropic.AsyncAnthropic) if kind is Message else fleet.openai(openai.AsyncOpenAI)
        async with client:
            for _ in range(3):
                await asyncio.gather(*(talk.async_turn(client) for talk in talks))
    asyncio.run(all_of_them())
    check_stay(fleet, talks)


@pytest.mark.parametrize("tools_first", [True, False])
def test_the_order_of_the_bodys_members_makes_no_difference(engine, router, tools_first):
    """An engine renders tools before messages, wherever they stand; so does the index."""
    fleet = Fleet(engine, router)

    def body(messages, first):
        tools = [("tools", [{"type": "function", "function": TOOL}])]
        rest = [("model", "m"), ("messages", messages), ("max_tokens", 2)]
        return dict(tools + rest if first else rest + tools)
    ask = [{"role": "user", "content": text(9000, "order")}]
    assert fleet.router.post("/v1/chat/completions", json=body(ask, tools_first)).status_code == 200
    more = [*ask, {"role": "user", "content": text(3000, "more")}]
    same, other = (fleet.explain(body(more, first)) for first in (tools_first, not tools_first))
    assert same == other and sorted(same.values())[:2] == [0, 0] and max(same.values()) > 3000
    usage = fleet.router.post("/v1/chat/completions", json=body(more, not tools_first)).json()["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] > 3000
    changed = body(more, tools_first) | {"tools": [{"type": "function", "function": TOOL | {"name": "another"}}]}
    assert set(fleet.explain(changed).values()) == {0}


class Flood:
    """Long prompts for a model that only one engine has, more than it can prefill while the test lasts."""

    def __init__(self, fleet, i, n=12):
        self.fleet, self.i = fleet, i
        self.before = fleet.engines[i].count("started")
        self.client = fleet.openai(openai.AsyncOpenAI)
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self.tasks = [asyncio.run_coroutine_threadsafe(self.ask(k), self.loop) for k in range(n)]
        eventually(lambda: fleet.engines[i].count("started") == self.before + n)

    async def ask(self, k):
        await self.client.chat.completions.create(
            model=f"only-{self.i}", max_tokens=2, messages=[{"role": "user", "content": text(800_000, "flood", k)}])

    def running(self):
        return self.fleet.engines[self.i].count("running")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        """The clients leave; the engine has nothing left to do."""
        for task in self.tasks:
            task.cancel()
        eventually(lambda: self.running() == 0)
        asyncio.run_coroutine_threadsafe(self.client.close(), self.loop).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


@pytest.mark.parametrize("kind", [Chat, Completion, Response, Message])
def test_they_leave_an_engine_that_drowns_and_settle(engine, router, kind):
    fleet = Fleet(engine, router)
    talks = [kind(f"talk-{i}") for i in range(6)]
    begin(fleet, talks)
    together(fleet, talks)
    before = {talk: home(fleet, talk) for talk in talks}
    drowning = before[talks[0]]
    leave = [talk for talk in talks if before[talk] == drowning]
    stay = [talk for talk in talks if before[talk] != drowning]
    assert stay
    with Flood(fleet, drowning) as flood:
        together(fleet, leave)
        for talk in leave:
            assert home(fleet, talk) != drowning and talk.usage[-1][1] < talk.usage[-2][0] / 2
        together(fleet, stay)
        assert {talk: home(fleet, talk) for talk in stay} == {talk: before[talk] for talk in stay}
        assert flood.running() > 0
    eventually(lambda: fleet.router.metric("headrace_in_flight") == 0)
    def settle():
        together(fleet, talks)
        return all(home(fleet, talk, -2) == home(fleet, talk) for talk in talks)
    eventually(settle)
    for talk in talks:
        assert talk.usage[-1][1] >= talk.usage[-2][0] * 0.95


def predicted(fleet, talk):
    """What is expected of each engine for the next turn, which is not taken."""
    return fleet.explain({"model": "m"} | talk.arguments())


def test_a_restarted_engine_is_not_believed(engine, router):
    fleet = Fleet(engine, router, discovery=SCRAPE)
    talks = [Chat(f"talk-{i}") for i in range(6)]
    begin(fleet, talks)
    there = home(fleet, talks[0])
    was = {talk: predicted(fleet, talk) for talk in talks}
    assert was[talks[0]][there] > 5000
    of_this = fleet.engines[there]
    eventually(lambda: fleet.router.metric("headrace_engine_running", instance=of_this.url) == 0
               and fleet.router.metric("headrace_scrapes_total", outcome="good") > 2 * len(fleet.engines))
    of_this.restart()
    eventually(lambda: fleet.router.metric("headrace_engine_restarts_total", instance=of_this.url) == 1)
    talks[0].turn(fleet.openai())       # the first one that goes there shows it
    for talk in talks[1:]:
        now = predicted(fleet, talk)
        assert now[there] <= SYSTEM_TOKENS < was[talks[0]][there] / 4
        assert all(now[i] > was[talk][i] * 0.9 for i in now if i != there and was[talk][i] > SYSTEM_TOKENS)


def test_what_is_wrongly_expected_is_expected_less(engine, router):
    """Nobody says that the caches were emptied: usage shows it."""
    fleet = Fleet(engine, router, discovery={"scrape": "off"})
    talks = [Chat(f"talk-{i}") for i in range(6)]
    begin(fleet, talks)
    there = home(fleet, talks[0])
    untouched, *others = [talk for talk in talks if home(fleet, talk) == there]
    assert others
    was = predicted(fleet, untouched)
    for e in fleet.engines:
        assert e.post("/mock/reset").status_code < 300
    together(fleet, others)
    assert max(talk.usage[-1][1] for talk in others) <= SYSTEM_TOKENS      # what the first of them brought
    now = predicted(fleet, untouched)
    assert now[there] < was[there] / 2
    actual = fleet.router.metric("headrace_cached_tokens_actual_total", instance=fleet.engines[there].url)
    assert fleet.router.metric("headrace_cached_tokens_predicted_total", instance=fleet.engines[there].url) > actual

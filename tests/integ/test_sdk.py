"""The official SDKs through the router, with nothing changed but the base URL."""
import asyncio
import base64

import anthropic
import openai
import pytest

from program import KEY, PROMPT, eventually

MESSAGES = [{"role": "user", "content": PROMPT}]
PIXEL = base64.b64encode(bytes(3000)).decode()


@pytest.fixture
def fleet(engine, router):
    engines = [engine(["m", "m-small"], "--api-key", KEY), engine(["m"], "--api-key", KEY)]
    # Engines with a key give their models to nobody without it, so they are declared.
    for e in engines:
        e.declared = e.models
    front = router(engines)
    front.engines = engines
    return front


def openai_client(router, kind=openai.OpenAI, key=KEY):
    return kind(base_url=router.url + "/v1", api_key=key, max_retries=0)


def anthropic_client(router, kind=anthropic.Anthropic):
    return kind(base_url=router.url, api_key=KEY, max_retries=0)


@pytest.fixture
def client(fleet):
    return openai_client(fleet)


@pytest.fixture
def claude(fleet):
    return anthropic_client(fleet)


def test_chat(client):
    answer = client.chat.completions.create(model="m", messages=MESSAGES, max_tokens=7)
    assert answer.model == "m" and answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 7 and answer.usage.prompt_tokens > 0


def test_chat_with_two_choices(client):
    answer = client.chat.completions.create(model="m", messages=MESSAGES, n=2)
    assert [c.index for c in answer.choices] == [0, 1]


def test_chat_stream_says_the_same_as_the_plain_answer(client):
    plain = client.chat.completions.create(model="m-small", messages=MESSAGES, max_tokens=20)
    chunks = list(client.chat.completions.create(
        model="m-small", messages=MESSAGES, max_tokens=20, stream=True, stream_options={"include_usage": True}))
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == plain.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == 20
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "length"


def test_completion(client):
    answer = client.completions.create(model="m", prompt=PROMPT, max_tokens=5)
    assert answer.choices[0].text and answer.usage.completion_tokens == 5


def test_completion_stream(client):
    assert "".join(c.choices[0].text for c in client.completions.create(model="m", prompt=PROMPT, stream=True))


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_embeddings(client, encoding):
    answer = client.embeddings.create(model="m", input=[PROMPT, "other"], encoding_format=encoding)
    assert [d.index for d in answer.data] == [0, 1]
    assert len(answer.data[0].embedding) == len(answer.data[1].embedding) > 0


def test_image_in_a_message(client, fleet):
    parts = [{"type": "text", "text": PROMPT},
             {"type": "image_url", "image_url": {"url": "data:image/png;base64," + PIXEL}}]
    answer = client.chat.completions.create(model="m-small", messages=[{"role": "user", "content": parts}])
    assert answer.choices[0].message.content
    assert any(PIXEL in str(request) for request in captured(fleet.engines[0]))


def captured(engine):
    found = engine.captured()
    return found["requests"] if isinstance(found, dict) else found


def test_models(client):
    assert [m.id for m in client.models.list()] == ["m", "m-small"]


def test_headers_of_the_raw_response(client):
    raw = client.chat.completions.with_raw_response.create(
        model="m", messages=MESSAGES, extra_headers={"x-request-id": "of-my-own"})
    assert raw.headers["x-request-id"] == "of-my-own"
    assert raw.parse().model == "m"


def test_unknown_model(client):
    with pytest.raises(openai.NotFoundError) as error:
        client.chat.completions.create(model="no such", messages=MESSAGES)
    assert error.value.code == "model_not_found"


def test_wrong_key_is_the_engines_answer(fleet):
    with pytest.raises(openai.AuthenticationError):
        openai_client(fleet, key="wrong").chat.completions.create(model="m", messages=MESSAGES)


def test_responses(client):
    events = list(client.responses.create(model="m", input=PROMPT, stream=True))
    assert events[0].type == "response.created" and events[-1].type == "response.completed"
    assert client.responses.create(model="m", input=PROMPT).output_text


def test_async_streams_side_by_side(fleet):
    async def one(client, i):
        stream = await client.chat.completions.create(model="m", messages=MESSAGES, max_tokens=i + 1, stream=True)
        return len([c async for c in stream if c.choices and c.choices[0].delta.content])

    async def all_of_them():
        async with openai_client(fleet, openai.AsyncOpenAI) as client:
            return await asyncio.gather(*(one(client, i) for i in range(30)))
    assert asyncio.run(all_of_them()) == list(range(1, 31))


def test_async_answers_side_by_side(fleet):
    async def one(client, i):
        answer = await client.chat.completions.create(model="m", messages=MESSAGES, max_tokens=i + 1)
        assert answer.choices[0].message.content
        return answer.usage.completion_tokens

    async def all_of_them():
        async with openai_client(fleet, openai.AsyncOpenAI) as client:
            return await asyncio.gather(*(one(client, i) for i in range(30)))
    assert asyncio.run(all_of_them()) == list(range(1, 31))


def test_async_embeddings_are_those_of_their_texts(fleet, client):
    texts = [f"{PROMPT} {i}" for i in range(10)]

    async def one(client, text):
        answer = await client.embeddings.create(model="m", input=text)
        return answer.data[0].embedding

    async def all_of_them():
        async with openai_client(fleet, openai.AsyncOpenAI) as client:
            return await asyncio.gather(*(one(client, text) for text in texts))
    expected = [d.embedding for d in client.embeddings.create(model="m", input=texts).data]
    assert asyncio.run(all_of_them()) == expected
    assert len(set(map(tuple, expected))) == len(texts)


def test_async_cancel_reaches_the_engine(fleet):
    async def leave():
        async with openai_client(fleet, openai.AsyncOpenAI) as client:
            stream = await client.chat.completions.create(
                model="m-small", messages=MESSAGES, max_tokens=100000, stream=True)
            async for _ in stream:
                break
            await stream.close()
    asyncio.run(leave())
    eventually(lambda: fleet.engines[0].count("cancelled") == 1)


def test_claude(claude):
    answer = claude.messages.create(model="m", messages=MESSAGES, max_tokens=6, system="be brief")
    assert answer.content[0].text and answer.usage.output_tokens == 6 and answer.stop_reason == "max_tokens"


def test_claude_stream(claude):
    with claude.messages.stream(model="m", messages=MESSAGES, max_tokens=6) as stream:
        text = "".join(stream.text_stream)
        assert text == stream.get_final_message().content[0].text != ""
        assert stream.get_final_message().usage.output_tokens == 6


def test_claude_with_an_image(claude):
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
    content = [image, {"type": "text", "text": PROMPT}]
    assert claude.messages.create(model="m", max_tokens=3, messages=[{"role": "user", "content": content}]).content


def test_claude_counts_tokens(claude):
    assert claude.messages.count_tokens(model="m", messages=MESSAGES).input_tokens > 0


def test_claude_unknown_model(claude):
    with pytest.raises(anthropic.NotFoundError) as error:
        claude.messages.create(model="no such", messages=MESSAGES, max_tokens=3)
    assert error.value.body["error"]["type"] == "not_found_error"


def test_claude_async_stream(fleet):
    async def one(client):
        async with client.messages.stream(model="m", messages=MESSAGES, max_tokens=4) as stream:
            return [text async for text in stream.text_stream]

    async def several():
        async with anthropic_client(fleet, anthropic.AsyncAnthropic) as client:
            return await asyncio.gather(*(one(client) for _ in range(10)))
    assert all("".join(texts) for texts in asyncio.run(several()))


def test_claude_async(fleet):
    async def one(client, i):
        answer = await client.messages.create(model="m", messages=MESSAGES, max_tokens=i + 1)
        assert answer.content[0].text
        return answer.usage.output_tokens

    async def several():
        async with anthropic_client(fleet, anthropic.AsyncAnthropic) as client:
            return await asyncio.gather(*(one(client, i) for i in range(10)))
    assert asyncio.run(several()) == list(range(1, 11))


def code_of(error):
    body = error.value.body     # openai's is the inner object
    return error.value.status_code, body.get("error", body)["code"]


def test_privacy_by_extra_headers(engine, router):
    engines = [engine(["m"]) for _ in range(3)]
    front = router(engines, labels=[{"clearance": "internal"}, {"clearance": "confidential"}, {}])
    client, claude = openai_client(front), anthropic_client(front)
    private = {"x-headrace-privacy": "confidential"}
    for _ in range(4):
        assert client.chat.completions.create(model="m", messages=MESSAGES, extra_headers=private).choices
        assert list(client.with_options(default_headers=private).responses.create(model="m", input=PROMPT, stream=True))
        assert claude.messages.create(model="m", messages=MESSAGES, max_tokens=2, extra_headers=private).content
    assert [e.count("started") for e in engines] == [0, 12, 0]
    secret = {"x-headrace-privacy": "restricted"}
    with pytest.raises(openai.PermissionDeniedError) as error:
        client.chat.completions.create(model="m", messages=MESSAGES, extra_headers=secret)
    assert code_of(error) == (403, "privacy_violation")
    with pytest.raises(anthropic.PermissionDeniedError) as error:
        claude.messages.create(model="m", messages=MESSAGES, max_tokens=2, extra_headers=secret)
    assert code_of(error) == (403, "privacy_violation")
    assert [e.count("started") for e in engines] == [0, 12, 0]


def test_a_deadline_by_extra_headers(engine, router):
    """How fast the engines are is learned first: whatever comes before is served."""
    front = router([engine(["m"], "--prefill-rate", "5000") for _ in range(3)], router={"threads": 1})
    client, claude = openai_client(front), anthropic_client(front)
    prompts = ([{"role": "user", "content": f"{i} " + "word " * 1000}] for i in range(1000))

    def ask(create, deadline_ms):
        headers = {"x-headrace-deadline-ms": str(deadline_ms)}
        return create(model="m", messages=next(prompts), max_tokens=1, extra_headers=headers)

    def is_refused():
        try:
            return not ask(client.chat.completions.create, 1)
        except openai.APIStatusError:
            return True
    eventually(is_refused)
    with pytest.raises(openai.InternalServerError) as error:
        ask(client.chat.completions.create, 1)
    assert code_of(error) == (503, "slo_unattainable") and error.value.response.headers["retry-after"] == "1"
    with pytest.raises(anthropic.APIStatusError) as error:
        ask(claude.messages.create, 1)
    assert code_of(error) == (503, "slo_unattainable")
    assert ask(client.chat.completions.create, 600000).choices and ask(claude.messages.create, 600000).content

"""APIs of the mock engine beside OpenAI's: SGLang's and vLLM's own, and the routes in which the two differ."""
import json

import pytest

from program import PROMPT, chat_body

ONLY = {"vllm": ["/load", "/version"], "sglang": ["/get_load", "/get_server_info", "/get_model_info", "/health_generate"]}
FORGET = {"vllm": "/reset_prefix_cache", "sglang": "/flush_cache"}


@pytest.mark.parametrize("flavor", ONLY)
def test_each_flavor_has_its_own_routes(engine, flavor):
    worker = engine(["m"], "--flavor", flavor, "--data-parallel-size", "2")
    for of, paths in ONLY.items():
        assert {worker.get(path).status_code for path in paths} == {200 if of == flavor else 404}
    for of, path in FORGET.items():
        assert worker.post(path).status_code == (200 if of == flavor else 404)
    if flavor == "sglang":
        assert worker.get("/get_load").json() == {"load": 0}
        assert worker.get("/get_server_info").json()["dp_size"] == 2
    else:
        assert worker.get("/load").json() == {"server_load": 0}


@pytest.mark.parametrize("flavor", FORGET)
def test_the_prefix_cache_can_be_emptied(engine, flavor):
    worker = engine(["m"], "--flavor", flavor, "--block-tokens", "1")

    def cached():
        return worker.post("/v1/chat/completions", json=chat_body()).json()["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert cached() == 0 and cached() > 0
    worker.post(FORGET[flavor])
    assert cached() == 0


def events(answer):
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


def test_sglang_generates_text(engine):
    worker = engine(["m"])
    body = {"text": PROMPT, "sampling_params": {"max_new_tokens": 3}, "return_logprob": True, "logprob_start_len": 0}
    answer = worker.post("/generate", json=body).json()
    meta = answer["meta_info"]
    assert answer["text"].count(" ") == 2 and meta["completion_tokens"] == 3 and len(answer["output_ids"]) == 3
    assert meta["finish_reason"] == {"type": "length", "length": 3}
    assert len(meta["input_token_logprobs"]) == meta["prompt_tokens"] and meta["input_token_logprobs"][0][0] is None
    assert [entry[1] for entry in meta["output_token_logprobs"]] == answer["output_ids"]
    parts = events(worker.post("/generate", json=body | {"stream": True}))
    assert [part["meta_info"]["completion_tokens"] for part in parts] == [1, 2, 3]
    assert parts[-1]["text"] == answer["text"] and parts[0]["meta_info"]["finish_reason"] is None
    batch = worker.post("/generate", json={"input_ids": [[1, 2], [3]], "sampling_params": {"max_new_tokens": 1}}).json()
    assert len(batch) == 2 and "input_token_logprobs" not in batch[0]["meta_info"]
    for wrong in ({}, {"text": 1}, {"text": "a", "sampling_params": 1}, {"text": "a", "sampling_params": {"max_new_tokens": 0}}):
        assert worker.post("/generate", json=wrong).status_code == 400


def test_vllm_generates_token_ids(engine):
    worker = engine(["m"])
    body = {"token_ids": [1, 2, 3], "sampling_params": {"max_tokens": 4, "prompt_logprobs": 1}}
    answer = worker.post("/inference/v1/generate", json=body, headers={"x-request-id": "r1"}).json()
    choice = answer["choices"][0]
    assert answer["request_id"] == "r1" and len(choice["token_ids"]) == 4 and choice["finish_reason"] == "length"
    assert answer["prompt_logprobs"][0] is None and list(answer["prompt_logprobs"][1]) == ["2"]
    stream = {"stream": True, "sampling_params": {"max_tokens": 4}}
    parts = events(worker.post("/inference/v1/generate", json=body | stream))
    assert [part["choices"][0]["token_ids"] for part in parts] == [[id] for id in choice["token_ids"]]
    for wrong in ({"token_ids": "x"}, {"sampling_params": None}, {"token_ids": []}, {"stream": True}):
        assert worker.post("/inference/v1/generate", json=body | wrong).status_code == 400


def test_documents_are_ranked(engine):
    worker = engine(["m"])
    body = {"query": "q", "documents": ["a", "b", "c"]}
    answers = [worker.post(path, json=body).json()["results"] for path in ("/rerank", "/v1/rerank")]
    assert answers[0] == answers[1] and sorted(result["index"] for result in answers[0]) == [0, 1, 2]
    scores = [result["relevance_score"] for result in answers[0]]
    assert scores == sorted(scores, reverse=True)
    assert worker.post("/rerank", json=body | {"top_n": 1}).json()["results"] == answers[0][:1]
    assert [result["document"]["text"] for result in answers[0]] == ["abc"[result["index"]] for result in answers[0]]
    for wrong in ({"query": None}, {"documents": []}, {"documents": [1]}, {"top_n": -1}, {"documents": ["a"] * 129}):
        assert worker.post("/rerank", json=body | wrong).status_code == 400


def test_what_was_tokenized_can_be_read_again(engine):
    worker = engine(["m"])
    tokens = worker.post("/tokenize", json={"prompt": PROMPT}).json()["tokens"]
    assert worker.post("/detokenize", json={"tokens": tokens}).json() == {"prompt": PROMPT}
    assert worker.post("/detokenize", json={"tokens": ["x"]}).status_code == 400


def test_probabilities_of_prompts_are_told(engine):
    worker = engine(["m"])
    tokens = worker.post("/tokenize", json={"prompt": PROMPT}).json()["tokens"]
    body = {"prompt": PROMPT, "max_tokens": 1, "prompt_logprobs": 2}
    told = worker.post("/v1/completions", json=body).json()["choices"][0]["prompt_logprobs"]
    assert told[0] is None and [list(candidates)[0] for candidates in told[1:]] == [str(token) for token in tokens[1:]]
    assert "".join(candidates[str(token)]["decoded_token"] for candidates, token in zip(told[1:], tokens[1:])) in PROMPT
    chat = worker.post("/v1/chat/completions", json=chat_body(prompt_logprobs=0)).json()
    assert len(chat["prompt_logprobs"]) == chat["usage"]["prompt_tokens"]
    assert worker.post("/v1/chat/completions", json=chat_body()).json()["prompt_logprobs"] is None
    assert worker.post("/v1/completions", json=body | {"stream": True}).status_code == 400
    assert worker.post("/v1/completions", json=body | {"prompt_logprobs": 21}).status_code == 400

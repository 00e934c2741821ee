"""The mock engine asked directly: what those see who read vLLM's metrics and use its client."""
import os
import re
import subprocess

import openai

from program import chat_body


def test_promtool_blames_only_the_names_that_vllm_chose(engine):
    worker = engine(["m"])
    assert worker.post("/v1/chat/completions", json=chat_body()).status_code == 200
    check = subprocess.run([os.environ.get("PROMTOOL", "promtool"), "check", "metrics"],
                           input=worker.get("/metrics").text, capture_output=True, text=True)
    known = ("metric names should not contain ':'", 'vllm:iteration_tokens_total non-counter metrics should not have')
    assert check.returncode in (0, 3), check.stderr        # 3: it could be read, but there are remarks
    assert [line for line in (check.stdout + check.stderr).splitlines() if not any(k in line for k in known)] == []


def test_a_dashboard_finds_its_times(engine):
    worker = engine(["m"])
    worker.post("/v1/chat/completions", json=chat_body(max_tokens=5))
    count = dict(re.findall(r'^vllm:(\w+)_count\{engine="0",model_name="m"\} (\d+)$', worker.get("/metrics").text, re.M))
    assert count | {"time_to_first_token_seconds": "1", "inter_token_latency_seconds": "4",
                    "time_per_output_token_seconds": "4", "e2e_request_latency_seconds": "1",
                    "request_queue_time_seconds": "1"} == count


def test_the_sdk_reads_probabilities_and_echoes(engine):
    with openai.OpenAI(base_url=engine(["m"]).url + "/v1", api_key="none", max_retries=0) as client:
        chat = client.chat.completions.create(**chat_body(max_tokens=3), logprobs=True, top_logprobs=2)
        content = chat.choices[0].logprobs.content
        assert "".join(t.token for t in content) == chat.choices[0].message.content
        assert all(t.bytes == list(t.token.encode()) and len(t.top_logprobs) == 2 for t in content)
        text = client.completions.create(model="m", prompt="ab", echo=True, max_tokens=3, logprobs=2).choices[0]
        assert text.text.startswith("ab") and "".join(text.logprobs.tokens) == text.text
        assert [text.text[at:at + 1] for at in text.logprobs.text_offset] == [t[0] for t in text.logprobs.tokens]
        stream = client.completions.create(model="m", prompt="ab", echo=True, max_tokens=3, logprobs=2, stream=True)
        assert "".join(t for chunk in stream for t in chunk.choices[0].logprobs.tokens) == text.text


def test_ranks_are_engines_of_their_own(engine):
    worker = engine(["m"], "--data-parallel-size", "3", "--block-tokens", "1")
    body = chat_body(max_tokens=2)

    def chat(rank, **more):
        headers = {} if rank is None else {"X-data-parallel-rank": str(rank)}
        return worker.post("/v1/chat/completions", json=body | more, headers=headers)
    assert [chat(rank).headers["x-mock-rank"] for rank in (2, 2, None, None, None, None)] == ["2", "2", "0", "1", "2", "0"]
    assert chat(1, stream=True).headers["x-mock-rank"] == "1"
    assert [chat(rank).status_code for rank in ("3", "-1", "x", "")] == [400] * 4
    rows = worker.ledger()["generations"]
    assert [row["rank"] for row in rows] == [2, 2, 0, 1, 2, 0, 1]
    assert [row["cached_tokens"] > 0 for row in rows] == [False, True, False, False, True, True, True]
    made = re.findall(r'^vllm:generation_tokens_total\{engine="(\d)",model_name="m"\} (\d+)$', worker.get("/metrics").text, re.M)
    assert made == [("0", "4"), ("1", "4"), ("2", "6")]

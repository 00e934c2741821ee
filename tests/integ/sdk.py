"""OpenAI's own client, as users have it, but that it does not try again: that would hide what the router does."""
import openai

from program import KEY, http


def sdk(front, key=KEY, **how):
    return openai.OpenAI(base_url=f"{front.url}/v1", api_key=key, http_client=http(), **{"max_retries": 0} | how)

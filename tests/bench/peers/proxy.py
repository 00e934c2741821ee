#!/usr/bin/env python3
"""The Python baseline: a streaming proxy with model routing, as simple as aiohttp makes it.

    proxy.py CONFIG    a JSON file: {"port": N, "engines": {"http://host:port": ["model", ...]}}

One process, one loop. The body is read whole and parsed for its model, as routers in this
language do; the answer goes back piece by piece. Engines of a model take turns.
"""

import asyncio
import itertools
import json
import sys

from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector, web

HOP_BY_HOP = {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}


def end_to_end(headers, *dropped):
    return [(name, value) for name, value in headers.items() if name.lower() not in HOP_BY_HOP.union(dropped)]


class Proxy:
    def __init__(self, engines, session):
        models = {model for served in engines.values() for model in served}
        self.turns = {
            model: itertools.cycle([url for url, served in engines.items() if model in served]) for model in models
        }
        self.session = session

    async def handle(self, request):
        body = await request.read()
        try:
            url = next(self.turns[json.loads(body)["model"]])
        except (ValueError, KeyError, TypeError):
            return web.json_response({"error": {"code": "model_not_found"}}, status=404)
        headers = end_to_end(request.headers, "host", "content-length")
        try:
            async with self.session.request(
                request.method, url + request.path_qs, headers=headers, data=body
            ) as answer:
                response = web.StreamResponse(status=answer.status, headers=end_to_end(answer.headers))
                await response.prepare(request)
                async for piece in answer.content.iter_any():
                    await response.write(piece)
                await response.write_eof()
                return response
        except ClientError:
            return web.json_response({"error": {"code": "upstream_failed"}}, status=502)


async def main(config):
    connector = TCPConnector(limit=0, keepalive_timeout=3600)
    async with ClientSession(connector=connector, timeout=ClientTimeout(total=None), auto_decompress=False) as session:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", Proxy(config["engines"], session).handle)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, keepalive_timeout=3600)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", config["port"], backlog=4096).start()
        await asyncio.Event().wait()


with open(sys.argv[1], encoding="utf-8") as file:
    asyncio.run(main(json.load(file)))

"""Routers that PyPI has: vLLM's and SGLang's, each in a Python environment of its own.

They run as their users start them, with their default policies, but log errors alone. Of a plain list of engines they
take any for any model, as nginx and HAProxy do.
"""

import subprocess

from subjects import Subject, Unavailable


class Wheel(Subject):
    """A package with a script that starts it."""

    package = None
    script = ()  # its name, and what goes before the flags
    workloads = ("chat", "sse", "prompt400k", "latency")

    def program(self, place):
        return place.program(f"venv-{self.package}/bin/{self.script[0]}")

    def version(self, place):
        self.program(place)
        python = place.program(f"venv-{self.package}/bin/python")
        ask = f"from importlib.metadata import version; print(version('{self.package}'))"
        asked = subprocess.run([python, "-c", ask], capture_output=True, text=True)
        if asked.returncode:
            raise Unavailable(f"there is no {self.package} in {python}")
        return f"{self.package}/{asked.stdout.strip()}"

    def command(self, place, folder, port, admin_port):
        engines = [f"http://127.0.0.1:{p}" for p in place.engine_ports]
        flags = ["--host", "127.0.0.1", "--port", str(port), "--log-level", "error", "--prometheus-host", "127.0.0.1"]
        flags += ["--prometheus-port", str(admin_port), "--worker-startup-check-interval", "1"]
        return [self.program(place), *self.script[1:], *flags, "--worker-urls", *engines]


class VllmRouter(Wheel):
    name, package, script = "vllm_router", "vllm-router", ("vllm-router",)


class SglangRouter(Wheel):
    name, package, script = "sglang_router", "sglang-router", ("sglang-router", "launch")


WHEELS = [VllmRouter(), SglangRouter()]

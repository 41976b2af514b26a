"""``.threadfs/metrics``: numbers of the store and of this mount, in the text format of Prometheus.

https://prometheus.io/docs/instrumenting/exposition_formats/: for each metric a ``HELP`` and a ``TYPE`` line,
then a line for each combination of labels. All have the label ``store``, so that several stores can be told
apart in one place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from store import RunStatus
from store.catalogue.api import Catalogue, Listed
from store.printing import printable

# Each model is a time series of its own: there are names of so many, and the other runs are counted together.
_MAX_MODELS: Final = 100
_OTHERS: Final = "…"
_WAITING: Final = (RunStatus.queued, RunStatus.in_progress)
_S: Final = 1_000_000_000

# Labels without ``store``, and a value.
_Samples = Iterable[tuple[Mapping[str, str], int]]


class Measured(NamedTuple):
    """What a catalogue says of a store. *ages_s*: of the oldest run in each status of `_WAITING`, or 0.

    *messages*: ``None`` where that is not known.
    """

    threads: int
    messages: int | None
    words_behind: int
    runs: Mapping[tuple[str, str], int]
    ages_s: Mapping[str, int]


def measured(catalogue: Catalogue, now_ns: int) -> Measured:
    runs = catalogue.runs()
    messages = catalogue.messages()
    known = catalogue.statistics()
    return Measured(known.threads, messages, known.words_behind, _counted(runs), _ages(runs, now_ns))


def _counted(runs: Iterable[Listed]) -> Counter[tuple[str, str]]:
    """How many runs have a status and a model: those that are shown the same are the same."""
    counted: Counter[tuple[str, str]] = Counter()
    for (status, model), number in Counter((run.status, run.model) for run in runs).items():
        counted[status, printable(model)] += number
    of_models: Counter[str] = Counter()
    for (_, model), number in counted.items():
        of_models[model] += number
    named = {model for model, _ in of_models.most_common(_MAX_MODELS)}
    shown: Counter[tuple[str, str]] = Counter()
    for (status, model), number in counted.items():
        shown[status, model if model in named else _OTHERS] += number
    return shown


def _ages(runs: Iterable[Listed], now_ns: int) -> dict[str, int]:
    ages_s = {status.value: 0 for status in _WAITING}
    for run in runs:
        if run.status in ages_s:
            ages_s[run.status] = max(ages_s[run.status], (now_ns - run.changed_ns) // _S)
    return ages_s


def metrics(store: str, found: Measured, requests: int, refusals: int) -> bytes:
    """The text. *store* is where the store is, for people."""
    lines = [
        *_lines(store, "threads", "gauge", "Threads in the store.", [({}, found.threads)]),
        *_lines(
            store,
            "messages",
            "gauge",
            "Messages in the store, of those threads whose words the catalogue has.",
            [] if found.messages is None else [({}, found.messages)],
        ),
        *_lines(
            store,
            "runs",
            "gauge",
            "Runs in the store, by status and model.",
            [
                ({"status": status, "model": model}, number)
                for (status, model), number in sorted(found.runs.items())
            ],
        ),
        *_lines(
            store,
            "oldest_run_age_seconds",
            "gauge",
            "How long the document of the oldest run in this status has not changed; 0 without one.",
            [({"status": status}, age_s) for status, age_s in found.ages_s.items()],
        ),
        *_lines(
            store,
            "catalogue_threads_behind",
            "gauge",
            "Threads whose words the catalogue does not have yet.",
            [({}, found.words_behind)],
        ),
        *_lines(store, "requests_total", "counter", "Requests to this mount.", [({}, requests)]),
        *_lines(
            store, "refusals_total", "counter", "Requests that were refused or failed.", [({}, refusals)]
        ),
    ]
    return "".join(f"{line}\n" for line in lines).encode(errors="replace")


def _lines(store: str, name: str, kind: str, meaning: str, samples: _Samples) -> Iterable[str]:
    yield f"# HELP threadfs_{name} {meaning}"
    yield f"# TYPE threadfs_{name} {kind}"
    for labels, value in samples:
        shown = ",".join(f'{label}="{_escaped(text)}"' for label, text in {"store": store, **labels}.items())
        yield f"threadfs_{name}{{{shown}}} {value}"


def _escaped(text: str) -> str:
    return printable(text).replace("\\", "\\\\").replace('"', '\\"')

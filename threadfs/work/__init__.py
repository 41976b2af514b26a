"""A worker: claims the queued runs of a store, and has an endpoint for chat completions answer them.

      store ── a change ──► worker ── a claimed run ──► answering ── a request ──► endpoint
        ▲                     │                           │   │ ▲                     │
        │ claims, queue       │                           │   │ └── completions, ◄────┘
        ├─────────────────────┘                           │   │     failures: what was said
        │ growth: the text; outcomes: how it ended        │   │
        └─────────────────────────────────────────────────┘   └── conversations, prompt: what is asked

`worker` reacts to changes that the store reports, and polls nothing. It starts one `answering` for each run,
which ends with an outcome or hands the run back, whatever happens in between. `availability` says whether the
endpoint can be asked at all. A module knows either the store or HTTP; only `answering` knows both. None knows
FUSE: mounts show what a worker does because the store tells them of it.
"""

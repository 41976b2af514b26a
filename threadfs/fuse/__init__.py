"""The adapter between the kernel and the nodes. Only this folder imports pyfuse3.

Read this first: what the kernel remembers decides what the code here has to do.

*Inode.* The kernel knows a file by the number that a LOOKUP gives it, never by its path. A number stands
for one node for as long as the kernel holds it. Each LOOKUP, and each entry of a listing, counts once
(the *lookup count*); a FORGET gives back so many at once, and may cross a LOOKUP that is under way.

*Dentry.* A name in a directory, with the inode that it leads to, or with none. The kernel uses it without
a question until its *entry timeout* ends or `invalidate_entry` takes it away. That call takes the lock of
the directory, which the kernel holds while it waits for our answer to a mkdir, unlink, rmdir or rename
there. So a handler never makes it; a thread of its own does (`forgetting`).

*Attributes.* Size, times, mode of an inode, until the *attribute timeout* ends or `invalidate_inode`
takes them away. A stale size is worse than no size: it cuts the file short.

*Pages.* The bytes of a file, once read. They belong to the inode, not to the open file: two programs that
have opened two versions under one number read bytes of both. Files that are written, and files that grow,
are opened with ``direct_io``, which has no pages.

*Listing.* The names in a directory, once read, in its pages. With the `shim` the kernel keeps one until it is
told to forget it, the directory has another mtime, or memory is short; then it opens no directories, and a
READDIR says nothing of who reads. Each entry has a *cookie*, after which a reader goes on.

*Handle.* What OPEN gives, and READ, WRITE, FLUSH and RELEASE name. FLUSH comes at each close of each
descriptor and does not say whose it is; RELEASE comes once, when no descriptor is left, and nobody waits
for it. Those who open a *shared* file get one handle from the `shim`, which counts them.

So a document that changes while somebody reads it gets a new number. The old number stays with its
readers (*detached*), with its pages and its version::

    program        kernel                         here                          store
    ──────────────────────────────────────────────────────────────────────────────────────
    open, read     OPEN 7, READ 7  ─────────────► reader of version 1           v1
                                                                                v2 replaces it
                                                  ◄── Change(DOCUMENT) ───────┘
                   forget dentry "status" ◄────── 7 keeps the reader of v1 (detached)
    read           READ 7 from its pages: v1
    open again     LOOKUP "status" ─────────────► 8, a new number
                   OPEN 8, READ 8 ──────────────► reader of version 2

An OPEN of 7 that comes between the change and the LOOKUP is answered ESTALE: the kernel then looks the
name up once more and opens what it finds (``do_filp_open`` and ``LOOKUP_REVAL`` in ``fs/namei.c``).

A name or attribute may be remembered for long where the store reports each change of what it shows
(`following`); elsewhere it is asked for again after a moment (`kernel_cache` says how long).

| module | what is in it |
| --- | --- |
| `operations`, `handling` | a request: find the node, call it, answer; what all handlers share |
| `answers` | what the kernel is told of an inode |
| `listings`, `listing` | what it is told of the entries of a directory, in which order; what it may keep |
| `session`, `shim` | the connection to the kernel, and answers on it that pyfuse3 cannot give (``shim.c``) |
| `inodes` | numbers and lookup counts |
| `open_files`, `openers` | what is open, by which process, and committing what was written |
| `retried_opens` | the opens that were answered ESTALE and come again |
| `asking` | calling a node in place, or in a thread |
| `kernel_cache` | a `Change` of the store: what the kernel has to forget |
| `lent` | links that the kernel may remember for a moment, as a listing told their attributes |
| `following`, `forgetting`, `detached` | what the store reports; having the kernel forget; threads for that |
| `waking/` | the calls by which who watches with inotify hears of changes by others |
| `strangers` | the turns of those who search: a few of whoever mounted, one of all other users |
| `ownership`, `errnos` | owner and modes as shown; errors of the store as errno |

Sources: ``fs/fuse/dir.c``, ``inode.c`` and ``file.c`` of Linux; ``fuse_lowlevel.h`` of libfuse."""

from threadfs.fuse import shim

shim.load()

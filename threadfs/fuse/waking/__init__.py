"""Waking the programs that watch the mount by inotify(7), when something changes that they did not do there.

The kernel makes the events of inotify from system calls, and hears of no others. So a thread of the mount,
the *waker*, makes the calls that a program would have made here: it opens a file for writing, writes a byte
and closes it; it makes a directory that another program has made in the store; it removes what has gone.

No such call changes anything. The waker announces each one before it makes it (`announced`). Its requests are
known by the id of its thread. They are answered here and reach no node: a byte is taken and dropped, a
directory that is there already is said to have been made. A request of the waker that was not announced is
refused. A lookup tells the truth, with these exceptions:

- of a name that has come, while the kernel knows nothing of it: it is not there (so that mkdir(2) goes on).
  Where the kernel knows it, it is there, under the same number: nobody who works in it notices anything.
  mkdir(2) ends with EEXIST, and the time of the directory is touched instead.
- of a name that has gone: it is there, under the number that it had.

| module | what is in it |
| --- | --- |
| `subjects` | what a `Change` may have changed of what the mount shows |
| `calls` | what the waker calls, for one subject |
| `planning` | which calls a subject needs now: whether a name came or went, where a run's link was |
| `announced` | the answers to the requests of these calls |
| `place` | the root by which the waker enters its own mount, without keeping it busy |
| `waker` | the thread: it collects changes, waits until the kernel has forgotten, makes the calls |
"""

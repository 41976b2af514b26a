/* Answers that pyfuse3 cannot give, put between it and libfuse. ARCHITECTURE.md, "The shim", says why and how.

   The dynamic linker looks for pyfuse3's symbols first in libraries that were loaded with RTLD_GLOBAL before it. So this
   library is asked in place of libfuse for the functions at the end of this file, which pass on to libfuse.

   OPENDIR gets ENOSYS. The kernel then sends no OPENDIR and no RELEASEDIR ever again, and may keep each listing in its
   page cache (fuse_file_open in fs/fuse/file.c, and fs/fuse/readdir.c of Linux). READDIRPLUS then has no handle; pyfuse3
   hands on nothing but that, so it gets one here.

   The kernel keeps a listing when READDIRPLUS at its end gets no byte. One byte, which is too short for an entry, ends
   the listing as well, and the kernel does not keep it: so are those answered that may change without a report. The end
   that follows the last entries is answered here, without Python, which is half of the requests of a walk.

   OPEN for reading only gets "noflush": the kernel sends no FLUSH when such a file is closed. Of a file that is shared
   OPEN and RELEASE are answered here, with one handle for all.

   What is answered here is answered before pyfuse3 hears of it, in fuse_session_receive_buf, as long as requests come:
   otherwise each would cost a round of the loop. pyfuse3 takes EINTR for "nothing came". All of this runs with the
   interpreter's lock held, so no thread of Python sees or changes anything halfway. */

#define _GNU_SOURCE
#define FUSE_USE_VERSION 311

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse3/fuse_lowlevel.h>
#include <linux/fuse.h>
#include <poll.h>
#include <stddef.h>
#include <string.h>

/* Set by shim.py: whether the session that comes next is served so; the users who are no strangers, all of them at most
   KNOWN_USERS; and whether the end of a listing that is answered next is not to be kept. */
#define KNOWN_USERS 3
int threadfs_shim_is_on = 0;
unsigned int threadfs_shim_known_users[KNOWN_USERS];
int threadfs_shim_keeps_no_listing = 0;
/* Read there: whether the kernel has agreed; how many ends of listings were answered here. */
int threadfs_shim_is_in_effect = 0;
uint64_t threadfs_shim_ends_answered = 0;
/* Set there: after which cookie a listing ends whose last entry was just told, and whether it may be kept. A directory
   has its place by its number; 0 is none. */
#define ENDS 64
struct end {
    uint64_t inode;
    int64_t cookie, is_kept;
} threadfs_shim_ends[ENDS];

/* Set there, and counted here: the files that are shared, each in the place of its number; 0 is none. A walk through
   10,000 threads has 110,000 numbers. */
#define SHARED (1 << 17)
struct shared {
    uint64_t inode, handle;
    int64_t opens;
} threadfs_shim_shared[SHARED];
/* Read there: how many opens were answered here. */
uint64_t threadfs_shim_opens_answered = 0;
/* After how many requests that were answered here the loop gets its turn; how long the next one may take to come, which
   is less than a round of the loop costs. */
#define AT_ONCE 32
static const struct timespec COMES_WITHIN = {.tv_nsec = 50 * 1000};

typedef struct fuse_session *session_new(struct fuse_args *, const struct fuse_lowlevel_ops *, size_t, void *);
typedef struct fuse_session *session_new_versioned(struct fuse_args *, const struct fuse_lowlevel_ops *, size_t, void *,
                                                   void *);
typedef int reply_open(fuse_req_t, const struct fuse_file_info *);
typedef int reply_buf(fuse_req_t, const char *, size_t);
typedef int receive_buf(struct fuse_session *, struct fuse_buf *);

static struct fuse_lowlevel_ops pyfuse3s;
static reply_open *libfuse_reply_open;
static reply_buf *libfuse_reply_buf;
static receive_buf *libfuse_receive_buf;

static void init_(void *data, struct fuse_conn_info *connection)
{
    threadfs_shim_is_in_effect = (connection->capable & FUSE_CAP_NO_OPENDIR_SUPPORT) != 0;
    pyfuse3s.init(data, connection);
}

static void opendir_(fuse_req_t request, fuse_ino_t inode, struct fuse_file_info *file)
{
    if (threadfs_shim_is_in_effect)
        fuse_reply_err(request, ENOSYS);
    else
        pyfuse3s.opendir(request, inode, file);
}

/* As Strangers.handle in strangers.py makes it. */
static uint64_t handle_of(fuse_ino_t inode, uid_t user)
{
    int i;

    for (i = 0; i < KNOWN_USERS; i++)
        if (threadfs_shim_known_users[i] == user)
            return (uint64_t)inode << 1;
    return (uint64_t)inode << 1 | 1;
}

/* Whether what was told last of a directory ends its listing, and *offset* is the cookie after which it does. */
static int is_end(uint64_t inode, int64_t offset)
{
    const struct end *end = &threadfs_shim_ends[inode % ENDS];

    return end->inode == inode && end->cookie == offset;
}

static void readdirplus_(fuse_req_t request, fuse_ino_t inode, size_t size, off_t offset, struct fuse_file_info *file)
{
    if (threadfs_shim_is_in_effect) {
        struct end *end = &threadfs_shim_ends[inode % ENDS];
        const int is_here = is_end(inode, offset);

        /* It was told for one reader. One that begins now may have to see more. */
        if (is_here || (end->inode == inode && offset == 0))
            end->inode = 0;
        if (is_here) {
            threadfs_shim_ends_answered++;
            libfuse_reply_buf(request, "", end->is_kept ? 0 : 1);
            return;
        }
        file->fh = handle_of(inode, fuse_req_ctx(request)->uid);
    }
    pyfuse3s.readdirplus(request, inode, size, offset, file);
}

/* ── Files that are shared ──────────────────────────────────────────────────────────────────────────────────────── */

static struct shared *shared_of(uint64_t inode)
{
    struct shared *place = &threadfs_shim_shared[inode % SHARED];

    return threadfs_shim_is_in_effect && place->inode == inode ? place : NULL;
}

static int is_plain_reading(int flags)
{
    return (flags & O_ACCMODE) == O_RDONLY && !(flags & (O_TRUNC | O_DIRECT));
}

static void open_(fuse_req_t request, fuse_ino_t inode, struct fuse_file_info *file)
{
    struct shared *shared = shared_of(inode);

    if (shared == NULL || !is_plain_reading(file->flags)) {
        pyfuse3s.open(request, inode, file);
        return;
    }
    file->fh = shared->handle;
    file->keep_cache = file->noflush = 1;
    threadfs_shim_opens_answered++;
    if (libfuse_reply_open(request, file) == 0) /* Not if the program was interrupted, and will not close it. */
        shared->opens++;
}

static void release_(fuse_req_t request, fuse_ino_t inode, struct fuse_file_info *file)
{
    struct shared *shared = shared_of(inode);

    if (shared == NULL || shared->handle != file->fh) {
        pyfuse3s.release(request, inode, file);
        return;
    }
    shared->opens--;
    fuse_reply_err(request, 0);
}

/* Whether the request in *buffer* is answered here. */
static int is_ours(const struct fuse_buf *buffer, size_t size)
{
    const struct fuse_in_header *header = buffer->mem;
    const void *arguments = header + 1;
    const struct shared *shared;

    if (!threadfs_shim_is_in_effect || buffer->flags & FUSE_BUF_IS_FD || size < sizeof(*header))
        return 0;
    shared = shared_of(header->nodeid);
    switch (header->opcode) {
    case FUSE_OPEN:
        return shared && is_plain_reading(((const struct fuse_open_in *)arguments)->flags);
    case FUSE_RELEASE:
        return shared && ((const struct fuse_release_in *)arguments)->fh == shared->handle;
    case FUSE_READDIRPLUS:
        return is_end(header->nodeid, ((const struct fuse_read_in *)arguments)->offset);
    default:
        return 0;
    }
}

/* ── Finding libfuse ────────────────────────────────────────────────────────────────────────────────────────────── */

/* The library that *address* is in; "" if there is none. */
static const char *library_of(const void *address)
{
    Dl_info place;

    return dladdr(address, &place) && place.dli_fname ? place.dli_fname : "";
}

/* The function that the library with *caller* is linked to, itself and not its stand-in here; NULL if there is none. */
static void *libfuses(const char *name, const char *version, const void *caller)
{
    void *library = dlopen(library_of(caller), RTLD_LAZY | RTLD_NOLOAD), *function;

    if (library == NULL)
        return NULL;
    function = version ? dlvsym(library, name, version) : dlsym(library, name);
    dlclose(library);
    return function;
}

static void find_replies(const void *caller)
{
    libfuse_reply_open = libfuses("fuse_reply_open", "FUSE_3.0", caller);
    libfuse_reply_buf = libfuses("fuse_reply_buf", "FUSE_3.0", caller);
    libfuse_receive_buf = libfuses("fuse_session_receive_buf", "FUSE_3.0", caller);
}

/* The operations that *caller* gets to pass on to *function* of libfuse. */
static const struct fuse_lowlevel_ops *with_ours(const void *caller, const void *function,
                                                 const struct fuse_lowlevel_ops *given, size_t size,
                                                 struct fuse_lowlevel_ops *ours)
{
    const size_t needed = offsetof(struct fuse_lowlevel_ops, readdirplus) + sizeof(given->readdirplus);

    find_replies(caller);
    /* What this file was compiled for is the libfuse that it is linked to. */
    if (!threadfs_shim_is_on || !libfuse_reply_open || !libfuse_reply_buf || !libfuse_receive_buf)
        return given;
    if (strcmp(library_of(function), library_of(fuse_session_mount)) || size < needed || size > sizeof(*ours))
        return given;
    if (!given->init || !given->opendir || !given->readdirplus || !given->open || !given->release)
        return given;
    memcpy(&pyfuse3s, given, size);
    memcpy(ours, &pyfuse3s, sizeof(*ours));
    ours->init = init_;
    ours->opendir = opendir_;
    ours->open = open_;
    ours->release = release_;
    ours->readdirplus = readdirplus_;
    return ours;
}

/* ── In place of libfuse's ──────────────────────────────────────────────────────────────────────────────────────── */

session_new shim_session_new __asm__("fuse_session_new");

struct fuse_session *shim_session_new(struct fuse_args *arguments, const struct fuse_lowlevel_ops *operations,
                                      size_t size, void *data)
{
    const void *caller = __builtin_return_address(0);
    session_new *call = libfuses("fuse_session_new", "FUSE_3.0", caller);
    struct fuse_lowlevel_ops ours;

    return call ? call(arguments, with_ours(caller, call, operations, size, &ours), size, data) : NULL;
}

/* What the headers of libfuse 3.17 and later call. */
session_new_versioned shim_session_new_versioned __asm__("fuse_session_new_versioned");

struct fuse_session *shim_session_new_versioned(struct fuse_args *arguments,
                                                const struct fuse_lowlevel_ops *operations, size_t size, void *version,
                                                void *data)
{
    const void *caller = __builtin_return_address(0);
    session_new_versioned *call = libfuses("fuse_session_new_versioned", NULL, caller);
    struct fuse_lowlevel_ops ours;

    return call ? call(arguments, with_ours(caller, call, operations, size, &ours), size, version, data) : NULL;
}

reply_open shim_reply_open __asm__("fuse_reply_open");

int shim_reply_open(fuse_req_t request, const struct fuse_file_info *file)
{
    struct fuse_file_info changed = *file;

    if (libfuse_reply_open == NULL)
        return fuse_reply_err(request, EIO);
    if (threadfs_shim_is_in_effect && (file->flags & O_ACCMODE) == O_RDONLY)
        changed.noflush = 1;
    return libfuse_reply_open(request, &changed);
}

reply_buf shim_reply_buf __asm__("fuse_reply_buf");

int shim_reply_buf(fuse_req_t request, const char *bytes, size_t size)
{
    const int is_not_kept = size == 0 && threadfs_shim_keeps_no_listing;

    if (libfuse_reply_buf == NULL)
        return fuse_reply_err(request, EIO);
    threadfs_shim_keeps_no_listing = 0;
    return is_not_kept ? libfuse_reply_buf(request, "", 1) : libfuse_reply_buf(request, bytes, size);
}

receive_buf shim_receive_buf __asm__("fuse_session_receive_buf");

int shim_receive_buf(struct fuse_session *session, struct fuse_buf *buffer)
{
    struct pollfd connection = {.fd = fuse_session_fd(session), .events = POLLIN};
    int answered, size;

    if (libfuse_receive_buf == NULL)
        return -EIO;
    for (answered = 0;; answered++) {
        size = libfuse_receive_buf(session, buffer);
        if (size <= 0 || !is_ours(buffer, size))
            return size;
        fuse_session_process_buf(session, buffer);
        if (answered == AT_ONCE || ppoll(&connection, 1, &COMES_WITHIN, NULL) != 1)
            return -EINTR;
    }
}

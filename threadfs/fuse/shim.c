/* Two answers that pyfuse3 cannot give, put between it and libfuse.

   The dynamic linker looks for pyfuse3's symbols in libraries that were loaded with RTLD_GLOBAL first. So this
   library, loaded before pyfuse3, is asked in place of libfuse for the functions below; each passes on to libfuse.

   OPENDIR gets ENOSYS. The kernel then sends no OPENDIR and no RELEASEDIR ever again, and keeps listings in its page
   cache (fuse_file_open in fs/fuse/file.c, fs/fuse/readdir.c of Linux). READDIRPLUS then has no handle, so it gets
   the number of the inode in its place: pyfuse3 hands on the handle alone.

   OPEN for reading only gets "noflush": the kernel sends no FLUSH when such a file is closed. */

#define _GNU_SOURCE
#define FUSE_USE_VERSION 311

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse3/fuse_lowlevel.h>
#include <stddef.h>
#include <string.h>

/* Whether sessions that begin from now on are served so; set by shim.py. */
int threadfs_shim_is_on = 0;
/* Whether libfuse got our operations. */
int threadfs_shim_is_in_effect = 0;

static struct fuse_lowlevel_ops pyfuse3s;

static void opendir_(fuse_req_t request, fuse_ino_t inode, struct fuse_file_info *file)
{
    (void)inode;
    (void)file;
    fuse_reply_err(request, ENOSYS);
}

static void readdirplus_(fuse_req_t request, fuse_ino_t inode, size_t size, off_t offset, struct fuse_file_info *file)
{
    file->fh = inode;
    pyfuse3s.readdirplus(request, inode, size, offset, file);
}

/* The function of this name and version in libfuse itself, wherever the linker has found that; NULL if there is none. */
static void *libfuses(const char *name, const char *version)
{
    Dl_info place;
    void *library, *function;

    if (!dladdr((void *)fuse_session_mount, &place))
        return NULL;
    library = dlopen(place.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
    if (library == NULL)
        return NULL;
    function = version ? dlvsym(library, name, version) : dlsym(library, name);
    dlclose(library);
    return function;
}

/* The operations to pass on. */
static const struct fuse_lowlevel_ops *with_ours(const struct fuse_lowlevel_ops *given, size_t size,
                                                 struct fuse_lowlevel_ops *ours)
{
    const size_t needed = offsetof(struct fuse_lowlevel_ops, readdirplus) + sizeof(given->readdirplus);

    if (!threadfs_shim_is_on || size < needed || size > sizeof(*ours) || given->readdirplus == NULL)
        return given;
    memset(ours, 0, sizeof(*ours));
    memcpy(ours, given, size);
    memset(&pyfuse3s, 0, sizeof(pyfuse3s));
    memcpy(&pyfuse3s, given, size);
    ours->opendir = opendir_;
    ours->readdirplus = readdirplus_;
    threadfs_shim_is_in_effect = 1;
    return ours;
}

struct fuse_session *shim_session_new(struct fuse_args *, const struct fuse_lowlevel_ops *, size_t, void *)
    __asm__("fuse_session_new");

struct fuse_session *shim_session_new(struct fuse_args *arguments, const struct fuse_lowlevel_ops *operations,
                                      size_t size, void *data)
{
    struct fuse_session *(*call)(struct fuse_args *, const struct fuse_lowlevel_ops *, size_t, void *) =
        libfuses("fuse_session_new", "FUSE_3.0");
    struct fuse_lowlevel_ops ours;

    return call ? call(arguments, with_ours(operations, size, &ours), size, data) : NULL;
}

/* What the headers of libfuse 3.17 and later call. */
struct fuse_session *shim_session_new_versioned(struct fuse_args *, const struct fuse_lowlevel_ops *, size_t, void *,
                                                void *) __asm__("fuse_session_new_versioned");

struct fuse_session *shim_session_new_versioned(struct fuse_args *arguments,
                                                const struct fuse_lowlevel_ops *operations, size_t size, void *version,
                                                void *data)
{
    struct fuse_session *(*call)(struct fuse_args *, const struct fuse_lowlevel_ops *, size_t, void *, void *) =
        libfuses("fuse_session_new_versioned", NULL);
    struct fuse_lowlevel_ops ours;

    return call ? call(arguments, with_ours(operations, size, &ours), size, version, data) : NULL;
}

int shim_reply_open(fuse_req_t, const struct fuse_file_info *) __asm__("fuse_reply_open");

int shim_reply_open(fuse_req_t request, const struct fuse_file_info *file)
{
    static int (*call)(fuse_req_t, const struct fuse_file_info *);
    struct fuse_file_info changed = *file;

    if (call == NULL && (call = libfuses("fuse_reply_open", "FUSE_3.0")) == NULL)
        return fuse_reply_err(request, EIO);
    if (threadfs_shim_is_in_effect && (file->flags & O_ACCMODE) == O_RDONLY)
        changed.noflush = 1;
    return call(request, &changed);
}

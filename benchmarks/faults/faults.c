/* Makes the n-th change of the files under one folder fail, or kills the process there.
 *
 * Preloaded (LD_PRELOAD) into the process under test, which arms it through ctypes:
 *
 *     faults_arm(root, at, action, error, trace)
 *
 * `at` is the number of the change, from 1; 0 only counts. `action`: 'e' fails this one call with
 * `error`; 'f' is a disk that is full from there on: half of the bytes of a write still fit, and
 * every call that needs room fails after it; 'k' kills the process, after half of a write. `trace`
 * is the file descriptor to which each change is reported, or -1. A process that was started by
 * exec is not armed, and a fork of the armed one does not count.
 *
 * What is seen is what goes through the symbols of the C library; writes into a memory map are not.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static char root[PATH_MAX];
static size_t root_length;
static atomic_long count;
static atomic_int is_full;
static long at;
static int action, error_number, trace = -1;
static pid_t armed;

void faults_arm(const char *folder, long number, int what, int error, int descriptor) {
    snprintf(root, sizeof root, "%s", folder);
    root_length = strlen(root);
    count = 0;
    is_full = 0;
    at = number;
    action = what;
    error_number = error;
    trace = descriptor;
    armed = getpid();
}

long faults_count(void) { return count; }

static int is_below(const char *path) {
    return !strncmp(path, root, root_length) && (path[root_length] == '/' || !path[root_length]);
}

static int find_descriptor(int descriptor, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t n = syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return path[0] == '/';
}

static int find_path(int folder, const char *name, char *path) {
    char base[PATH_MAX];
    if (!name) return 0;
    if (name[0] == '/') {
        snprintf(path, PATH_MAX, "%s", name);
        return 1;
    }
    if (folder == AT_FDCWD ? !getcwd(base, sizeof base) : !find_descriptor(folder, base)) return 0;
    return snprintf(path, PATH_MAX, "%s/%s", base, name) < PATH_MAX;
}

enum { GO_ON, FAIL, HALF };

/* Count one change. `needs_room`: a full disk refuses it; `size`: bytes that a write has. */
static int decide(const char *kind, const char *path, const char *other, int needs_room, size_t size) {
    long number = atomic_fetch_add(&count, 1) + 1;
    if (trace >= 0) {
        char line[3 * PATH_MAX];
        int n = snprintf(line, sizeof line, "%s\t%s\t%s\n", kind, path, other ? other : "");
        syscall(SYS_write, trace, line, n);
    }
    if (atomic_load(&is_full) && needs_room) {
        errno = error_number;
        return FAIL;
    }
    if (number != at) return GO_ON;
    if (action == 'f') {
        is_full = 1;
        if (!needs_room && strcmp(kind, "fsync")) return GO_ON; /* another order than that of the run before */
    }
    if (action != 'e' && size > 1) return HALF;
    if (action == 'k') syscall(SYS_kill, getpid(), SIGKILL);
    errno = error_number;
    return FAIL;
}

static int check_path(const char *kind, int folder, const char *name, const char *other, int needs_room) {
    char path[PATH_MAX];
    int kept = errno;
    if (armed != getpid() || !find_path(folder, name, path) || !is_below(path)) {
        errno = kept;
        return GO_ON;
    }
    errno = kept;
    return decide(kind, path, other, needs_room, 0);
}

static int check_descriptor(const char *kind, int descriptor, int needs_room, size_t size) {
    char path[PATH_MAX];
    int kept = errno;
    if (armed != getpid() || !find_descriptor(descriptor, path) || !is_below(path)) {
        errno = kept;
        return GO_ON;
    }
    errno = kept;
    return decide(kind, path, NULL, needs_room, size);
}

/* After the half of a write that still went through. */
static void end_half(void) {
    if (action == 'k') syscall(SYS_kill, getpid(), SIGKILL);
}

#define REAL(name) \
    static __typeof__(name) *real; \
    if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

/* ---- opening for writing ---- */

static int check_open(int folder, const char *name, int flags) {
    if ((flags & O_ACCMODE) == O_RDONLY && !(flags & O_CREAT)) return GO_ON;
    return check_path("open", folder, name, NULL, flags & O_CREAT);
}

#define MODE(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | __O_TMPFILE)) { \
        va_list rest; \
        va_start(rest, flags); \
        mode = va_arg(rest, mode_t); \
        va_end(rest); \
    }

int open(const char *name, int flags, ...) {
    REAL(open);
    MODE(flags);
    return check_open(AT_FDCWD, name, flags) ? -1 : real(name, flags, mode);
}

int open64(const char *name, int flags, ...) {
    REAL(open64);
    MODE(flags);
    return check_open(AT_FDCWD, name, flags) ? -1 : real(name, flags, mode);
}

int openat(int folder, const char *name, int flags, ...) {
    REAL(openat);
    MODE(flags);
    return check_open(folder, name, flags) ? -1 : real(folder, name, flags, mode);
}

int openat64(int folder, const char *name, int flags, ...) {
    REAL(openat64);
    MODE(flags);
    return check_open(folder, name, flags) ? -1 : real(folder, name, flags, mode);
}

static int check_fopen(const char *name, const char *mode) {
    if (!strpbrk(mode, "wa+")) return GO_ON;
    return check_path("open", AT_FDCWD, name, NULL, 1);
}

FILE *fopen(const char *restrict name, const char *restrict mode) {
    REAL(fopen);
    return check_fopen(name, mode) ? NULL : real(name, mode);
}

FILE *fopen64(const char *restrict name, const char *restrict mode) {
    REAL(fopen64);
    return check_fopen(name, mode) ? NULL : real(name, mode);
}

/* ---- writing ---- */

#define WRITE(result, name, declared, given, halved) \
    result name declared { \
        REAL(name); \
        switch (check_descriptor("write", descriptor, 1, size)) { \
        case FAIL: return -1; \
        case HALF: { \
            result done = real halved; \
            end_half(); \
            return done; \
        } \
        } \
        return real given; \
    }

WRITE(ssize_t, write, (int descriptor, const void *data, size_t size), (descriptor, data, size),
      (descriptor, data, size / 2))
WRITE(ssize_t, pwrite, (int descriptor, const void *data, size_t size, off_t offset),
      (descriptor, data, size, offset), (descriptor, data, size / 2, offset))
WRITE(ssize_t, pwrite64, (int descriptor, const void *data, size_t size, off64_t offset),
      (descriptor, data, size, offset), (descriptor, data, size / 2, offset))
WRITE(ssize_t, sendfile, (int descriptor, int source, off_t *offset, size_t size),
      (descriptor, source, offset, size), (descriptor, source, offset, size / 2))
WRITE(ssize_t, sendfile64, (int descriptor, int source, off64_t *offset, size_t size),
      (descriptor, source, offset, size), (descriptor, source, offset, size / 2))
WRITE(ssize_t, copy_file_range,
      (int source, off64_t *from, int descriptor, off64_t *to, size_t size, unsigned flags),
      (source, from, descriptor, to, size, flags), (source, from, descriptor, to, size / 2, flags))

ssize_t writev(int descriptor, const struct iovec *parts, int n) {
    REAL(writev);
    size_t size = 0;
    for (int i = 0; i < n; i++) size += parts[i].iov_len;
    switch (check_descriptor("write", descriptor, 1, size)) {
    case FAIL: return -1;
    case HALF: {
        REAL(write);
        ssize_t done = real(descriptor, parts[0].iov_base, (parts[0].iov_len + 1) / 2);
        end_half();
        return done;
    }
    }
    return real(descriptor, parts, n);
}

#define ON_DESCRIPTOR(name, kind, needs_room, declared, given) \
    int name declared { \
        REAL(name); \
        return check_descriptor(kind, descriptor, needs_room, 0) ? -1 : real given; \
    }

ON_DESCRIPTOR(fsync, "fsync", 0, (int descriptor), (descriptor))
ON_DESCRIPTOR(fdatasync, "fsync", 0, (int descriptor), (descriptor))
ON_DESCRIPTOR(ftruncate, "truncate", 0, (int descriptor, off_t size), (descriptor, size))
ON_DESCRIPTOR(ftruncate64, "truncate", 0, (int descriptor, off64_t size), (descriptor, size))

/* ---- names ---- */

#define ON_PATH(name, kind, needs_room, folder, changed, other, declared, given) \
    int name declared { \
        REAL(name); \
        return check_path(kind, folder, changed, other, needs_room) ? -1 : real given; \
    }

ON_PATH(rename, "rename", 1, AT_FDCWD, to, from, (const char *from, const char *to), (from, to))
ON_PATH(renameat, "rename", 1, folder, to, from, (int source, const char *from, int folder, const char *to),
        (source, from, folder, to))
ON_PATH(renameat2, flags & RENAME_EXCHANGE ? "exchange" : "rename", 1, folder, to, from,
        (int source, const char *from, int folder, const char *to, unsigned flags), (source, from, folder, to, flags))
ON_PATH(mkdir, "mkdir", 1, AT_FDCWD, path, NULL, (const char *path, mode_t mode), (path, mode))
ON_PATH(mkdirat, "mkdir", 1, folder, path, NULL, (int folder, const char *path, mode_t mode), (folder, path, mode))
ON_PATH(symlink, "symlink", 1, AT_FDCWD, path, target, (const char *target, const char *path), (target, path))
ON_PATH(symlinkat, "symlink", 1, folder, path, target, (const char *target, int folder, const char *path),
        (target, folder, path))
ON_PATH(link, "link", 1, AT_FDCWD, to, from, (const char *from, const char *to), (from, to))
ON_PATH(linkat, "link", 1, folder, to, from, (int source, const char *from, int folder, const char *to, int flags),
        (source, from, folder, to, flags))
ON_PATH(unlink, "unlink", 0, AT_FDCWD, path, NULL, (const char *path), (path))
ON_PATH(unlinkat, "unlink", 0, folder, path, NULL, (int folder, const char *path, int flags), (folder, path, flags))
ON_PATH(rmdir, "rmdir", 0, AT_FDCWD, path, NULL, (const char *path), (path))
ON_PATH(truncate, "truncate", 0, AT_FDCWD, path, NULL, (const char *path, off_t size), (path, size))
ON_PATH(chmod, "chmod", 0, AT_FDCWD, path, NULL, (const char *path, mode_t mode), (path, mode))

// Preloaded into xrootd, and so into the xrdcp that it copies from other servers with: while the file control/DISK_FULL exists, what is written to stored files fails as on a full disk.
// While control/DISK_LOSES_WRITES exists, what is written beyond a file's first megabyte is lost, and nobody is told.
#include <aio.h>
#include <cerrno>
#include <cstring>
#include <dlfcn.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

namespace {
const off64_t KEPT_BYTES = 1 << 20;

bool is(const char *flag) {
    const int before = errno;
    const bool set = access(flag, F_OK) == 0;
    errno = before;
    return set;
}

ssize_t total(const struct iovec *data, int count) {
    ssize_t size = 0;
    for (int one = 0; one < count; ++one) size += data[one].iov_len;
    return size;
}

bool full() {
    if (!is("/proc/self/cwd/control/DISK_FULL")) return false;
    errno = ENOSPC;
    return true;
}

bool loses(off64_t offset) { return offset >= KEPT_BYTES && is("/proc/self/cwd/control/DISK_LOSES_WRITES"); }

template <typename Function> Function next(const char *name) {
    return reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
}

typedef ssize_t (*Write)(int, const void *, size_t, off64_t);
typedef ssize_t (*WriteVector)(int, const struct iovec *, int, off64_t);
typedef int (*WriteAsynchronously)(struct aiocb64 *);
}  // namespace

// XRootD writes its logs without an offset, and stored files with one.
extern "C" {
ssize_t pwrite64(int file, const void *data, size_t size, off64_t offset) {
    if (full()) return -1;
    return loses(offset) ? size : next<Write>("pwrite64")(file, data, size, offset);
}

ssize_t pwritev64(int file, const struct iovec *data, int count, off64_t offset) {
    if (full()) return -1;
    return loses(offset) ? total(data, count) : next<WriteVector>("pwritev64")(file, data, count, offset);
}

int aio_write64(struct aiocb64 *request) {
    return full() ? -1 : next<WriteAsynchronously>("aio_write64")(request);
}
}

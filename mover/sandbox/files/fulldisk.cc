// Preloaded into xrootd, and so into the xrdcp that it copies from other servers with: while the file control/DISK_FULL exists, what is written to stored files fails as on a full disk.
#include <aio.h>
#include <cerrno>
#include <cstring>
#include <dlfcn.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

namespace {
bool full() { return access("/proc/self/cwd/control/DISK_FULL", F_OK) == 0; }

template <typename Function, typename... Arguments>
ssize_t unlessFull(const char *name, Arguments... arguments) {
    const int before = errno;
    if (full()) {
        errno = ENOSPC;
        return -1;
    }
    errno = before;
    return reinterpret_cast<Function>(dlsym(RTLD_NEXT, name))(arguments...);
}

typedef ssize_t (*Write)(int, const void *, size_t, off64_t);
typedef ssize_t (*WriteVector)(int, const struct iovec *, int, off64_t);
typedef int (*WriteAsynchronously)(struct aiocb64 *);
}  // namespace

// XRootD writes its logs without an offset, and stored files with one.
extern "C" {
ssize_t pwrite64(int file, const void *data, size_t size, off64_t offset) {
    return unlessFull<Write>("pwrite64", file, data, size, offset);
}

ssize_t pwritev64(int file, const struct iovec *data, int count, off64_t offset) {
    return unlessFull<WriteVector>("pwritev64", file, data, count, offset);
}

int aio_write64(struct aiocb64 *request) { return unlessFull<WriteAsynchronously>("aio_write64", request); }
}

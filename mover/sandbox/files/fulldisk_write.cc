// Preloaded into servers that use write(): while control/DISK_FULL exists, what they write to files fails as on a full disk.
#include <cerrno>
#include <dlfcn.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

namespace {
// Not its log, which is its standard error.
bool isStoredFile(int file) {
    struct stat status;
    return file > STDERR_FILENO && fstat(file, &status) == 0 && S_ISREG(status.st_mode);
}
}  // namespace

extern "C" ssize_t write(int file, const void *data, size_t size) {
    typedef ssize_t (*Write)(int, const void *, size_t);
    static const Write original = reinterpret_cast<Write>(dlsym(RTLD_NEXT, "write"));
    const int before = errno;
    if (access("/proc/self/cwd/control/DISK_FULL", F_OK) == 0 && isStoredFile(file)) {
        errno = ENOSPC;
        return -1;
    }
    errno = before;
    return original(file, data, size);
}

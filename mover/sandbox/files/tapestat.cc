// oss.statlib of XRootD: tells, for each file, whether it is on disk, on tape, both or lost, and never guesses.
// Parameters: the roots of the disk buffer, of the tape, and of what is left of lost files, with spaces in between.
#include <cerrno>
#include <cstring>
#include <sstream>
#include <string>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "XrdVersion.hh"

class XrdOss;
class XrdOucEnv;
class XrdSysLogger;

namespace {
// XrdSfsFlags.hh: the flags travel in st_rdev. XrdOss.hh: the caller wants what is resident on disk only.
const dev_t kOffline = static_cast<dev_t>(0x80ULL << 56);
const dev_t kHasBackup = static_cast<dev_t>(0x40ULL << 56);
const int kResidentOnly = 0x0001;

std::string disk_root, tape_root, lost_root;

bool sameContent(const struct stat &a, const struct stat &b) {
    return a.st_size == b.st_size && a.st_mtim.tv_sec == b.st_mtim.tv_sec && a.st_mtim.tv_nsec == b.st_mtim.tv_nsec;
}
}  // namespace

extern "C" {
int XrdOssStatInfo(const char *path, struct stat *info, int options, XrdOucEnv *) {
    const bool inside = !strncmp(path, disk_root.c_str(), disk_root.size());
    const std::string copy = inside ? tape_root + (path + disk_root.size()) : "";
    if (!stat(path, info)) {
        if (!S_ISREG(info->st_mode)) return 0;
        struct stat on_tape;
        info->st_rdev = 0;
        // FRM sets the attribute after its copy command has succeeded.
        if (inside && getxattr(path, "user.XrdFrm.Cpy", nullptr, 0) > 0 && !stat(copy.c_str(), &on_tape) &&
            sameContent(*info, on_tape))
            info->st_rdev = kHasBackup;
        return 0;
    }
    if (errno != ENOENT || (options & kResidentOnly)) return -1;
    if (!inside) {
        errno = ENOENT;
        return -1;
    }
    if (!stat(copy.c_str(), info)) {
        if (S_ISREG(info->st_mode)) info->st_rdev = kOffline | kHasBackup;
        return 0;
    }
    const std::string lost = lost_root + (path + disk_root.size());
    if (stat(lost.c_str(), info)) return -1;
    if (S_ISREG(info->st_mode)) info->st_rdev = kOffline;
    return 0;
}

typedef int (*StatInfo)(const char *, struct stat *, int, XrdOucEnv *);

StatInfo XrdOssStatInfoInit(XrdOss *, XrdSysLogger *, const char *, const char *parameters) {
    std::istringstream words(parameters ? parameters : "");
    return words >> disk_root >> tape_root >> lost_root ? XrdOssStatInfo : nullptr;
}
}

XrdVERSIONINFO(XrdOssStatInfoInit, tapestat);

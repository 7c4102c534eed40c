// http.exthandler of XRootD: XrdMacaroons, without its claim to all of /.well-known.
//
// XrdMacaroons 5.5 takes every path there for itself and answers 400, so that clients do not find the Tape REST API.

#include <cstring>
#include <dlfcn.h>

#include "XrdVersion.hh"

class XrdHttpExtReq;
class XrdOucEnv;
class XrdSysError;

// As in XrdHttp/XrdHttpExtHandler.hh, which is not installed.
class XrdHttpExtHandler {
public:
    virtual bool MatchesPath(const char *verb, const char *path) = 0;
    virtual int ProcessReq(XrdHttpExtReq &) = 0;
    virtual int Init(const char *config) = 0;
    virtual ~XrdHttpExtHandler() {}
};

namespace {

typedef XrdHttpExtHandler *(*Get)(XrdSysError *, const char *, const char *, XrdOucEnv *);

class Handler : public XrdHttpExtHandler {
public:
    explicit Handler(XrdHttpExtHandler *macaroons) : macaroons(macaroons) {}

    bool MatchesPath(const char *verb, const char *path) override {
        return strcmp(path, "/.well-known/wlcg-tape-rest-api") != 0 && macaroons->MatchesPath(verb, path);
    }

    int ProcessReq(XrdHttpExtReq &request) override { return macaroons->ProcessReq(request); }

    int Init(const char *config) override { return macaroons->Init(config); }

private:
    XrdHttpExtHandler *const macaroons;
};

}  // namespace

extern "C" XrdHttpExtHandler *XrdHttpGetExtHandler(XrdSysError *log, const char *config, const char *parameters,
                                                   XrdOucEnv *environment) {
    void *const library = dlopen("libXrdMacaroons-5.so", RTLD_NOW);
    const Get get = library ? reinterpret_cast<Get>(dlsym(library, "XrdHttpGetExtHandler")) : nullptr;
    XrdHttpExtHandler *const macaroons = get ? get(log, config, parameters, environment) : nullptr;
    return macaroons ? new Handler(macaroons) : nullptr;
}

XrdVERSIONINFO(XrdHttpGetExtHandler, macaroonpaths);

// Lets Debian 12's VOMS server answer REST requests; preloaded into it.
//
// The server gives gSOAP a handler for GET and calls only the parser of HTTP headers. Older versions of gSOAP called the
// handler from there; from 2.8.120 or so on they leave it to their caller, so that the server hangs up in silence. Newer
// VOMS servers call the handler themselves. Here the parser of every new gSOAP context is replaced by one that does.

#define WITH_OPENSSL  // as libgsoapssl is built: the layout of struct soap depends on both
#define WITH_GZIP

#include <dlfcn.h>
#include <stdsoap2.h>

namespace {

using New = struct soap *(*)(soap_mode, soap_mode);

int (*parse_headers)(struct soap *);

int parse_and_handle(struct soap *context) {
  const int result = parse_headers(context);
  const bool is_get = result == SOAP_OK && context->status == SOAP_GET;
  return is_get && context->fget != nullptr ? context->fget(context) : result;
}

#define QUOTED(name) QUOTED_AS_IT_IS(name)
#define QUOTED_AS_IT_IS(name) #name

}  // namespace

// The name carries the library's version, so that a layout of another version is never touched.
extern "C" struct soap *soap_versioning(soap_new)(soap_mode input, soap_mode output) {
  static const auto original = reinterpret_cast<New>(dlsym(RTLD_NEXT, QUOTED(soap_versioning(soap_new))));
  struct soap *context = original == nullptr ? nullptr : original(input, output);
  if (context != nullptr) {
    parse_headers = context->fparse;
    context->fparse = parse_and_handle;
  }
  return context;
}

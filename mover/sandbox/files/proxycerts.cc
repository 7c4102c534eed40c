// Preloaded into Apache, which has no setting for it: its TLS accepts RFC 3820 proxies as client certificates.
#include <dlfcn.h>
#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>

// mod_ssl is loaded later, with its symbols for all to see; so are OpenSSL's.
extern "C" SSL_CTX *SSL_CTX_new(const SSL_METHOD *method) {
    typedef SSL_CTX *(*New)(const SSL_METHOD *);
    typedef X509_VERIFY_PARAM *(*Parameters)(SSL_CTX *);
    typedef int (*SetFlags)(X509_VERIFY_PARAM *, unsigned long);
    SSL_CTX *context = reinterpret_cast<New>(dlsym(RTLD_NEXT, "SSL_CTX_new"))(method);
    if (context != nullptr) {
        X509_VERIFY_PARAM *parameters =
            reinterpret_cast<Parameters>(dlsym(RTLD_NEXT, "SSL_CTX_get0_param"))(context);
        reinterpret_cast<SetFlags>(dlsym(RTLD_NEXT, "X509_VERIFY_PARAM_set_flags"))(
            parameters, X509_V_FLAG_ALLOW_PROXY_CERTS);
    }
    return context;
}

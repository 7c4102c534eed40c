/* A PKCS#11 module in front of SoftHSM that misbehaves on demand and counts C_Login.
 * Directory P11SHIM_DIR: "flags" holds hexadecimal token flags to add, "login_rv" what C_Login answers without trying,
 * "sign_rv" what C_Sign answers, "hang" makes C_Sign hang and say so in "hanging", "crash" makes it crash, "removed" takes the token away; C_Login appends to "logins". */
#include <dlfcn.h>
#include <p11-kit/pkcs11.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static CK_FUNCTION_LIST ours, *real;

static FILE *control(const char *name, const char *mode)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", getenv("P11SHIM_DIR"), name);
    return fopen(path, mode);
}

static int is_set(const char *name, unsigned long *value)
{
    FILE *file = control(name, "r");
    if (!file)
        return 0;
    if (fscanf(file, "%lx", value) != 1)
        *value = 1;
    fclose(file);
    return 1;
}

static CK_RV token_info(CK_SLOT_ID slot, CK_TOKEN_INFO_PTR info)
{
    unsigned long value;
    if (is_set("removed", &value))
        return CKR_TOKEN_NOT_PRESENT;
    CK_RV result = real->C_GetTokenInfo(slot, info);
    if (result == CKR_OK && is_set("flags", &value))
        info->flags |= value;
    return result;
}

static CK_RV login(CK_SESSION_HANDLE session, CK_USER_TYPE user, CK_UTF8CHAR_PTR pin, CK_ULONG length)
{
    unsigned long value;
    FILE *log = control("logins", "a");
    if (log) {
        fputc('x', log);
        fclose(log);
    }
    return is_set("login_rv", &value) ? value : real->C_Login(session, user, pin, length);
}

static CK_RV sign(CK_SESSION_HANDLE session, CK_BYTE_PTR data, CK_ULONG length, CK_BYTE_PTR out, CK_ULONG_PTR out_length)
{
    unsigned long value;
    if (is_set("crash", &value))
        abort();
    if (is_set("hang", &value)) {
        fclose(control("hanging", "w"));
        for (;;)
            pause();
    }
    if (is_set("sign_rv", &value))
        return value;
    return real->C_Sign(session, data, length, out, out_length);
}

CK_RV C_GetFunctionList(CK_FUNCTION_LIST_PTR_PTR list)
{
    void *library = dlopen(SOFTHSM, RTLD_NOW);
    if (!library)
        return CKR_GENERAL_ERROR;
    CK_RV (*get)(CK_FUNCTION_LIST_PTR_PTR) = (CK_RV (*)(CK_FUNCTION_LIST_PTR_PTR))dlsym(library, "C_GetFunctionList");
    CK_RV result = get(&real);
    if (result != CKR_OK)
        return result;
    ours = *real;
    ours.C_GetTokenInfo = token_info;
    ours.C_Login = login;
    ours.C_Sign = sign;
    *list = &ours;
    return CKR_OK;
}

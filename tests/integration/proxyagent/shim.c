/* A PKCS#11 module in front of SoftHSM that misbehaves on demand and counts its calls.
 *
 * A switch is a file in the directory PKCS11_SHIM_DIR. FUNCTION is one of initialize, slot_list, token_info, open_session,
 * find, create, login, sign.
 *   FUNCTION_rv      it answers this (hexadecimal) and does nothing
 *   FUNCTION_hang    it makes the file "hanging" and never returns
 *   FUNCTION_crash   it ends in SIGSEGV
 *   flags            hexadecimal: token flags to add; flags_off: to take away
 *   serial           what is told as the token's serial number
 *   removed          the token is not there
 *   replugged        C_FindObjectsInit removes it, and says that the session is gone, as after pulling and plugging
 *   sign_removes     C_Sign makes "removed", as if the token was pulled while it signs
 *   pin_pad          the PIN that somebody types at the pin pad, if C_Login is given none
 *   no_sha256        CKM_SHA256_RSA_PKCS is not there
 *   babble           C_GetTokenInfo writes its content to every socket of the process
 *   talk             C_GetTokenInfo writes this to standard output and standard error
 *   attack           C_GetTokenInfo tries what no module needs, and writes to "attacked" what came of it
 * The file FUNCTIONs has a byte for every call.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <p11-kit/pkcs11.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define MOST_MECHANISMS 512

static CK_FUNCTION_LIST ours, *real;

static FILE *control(const char *name, const char *mode)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", getenv("PKCS11_SHIM_DIR"), name);
    return fopen(path, mode);
}

static int is_set(const char *name, unsigned long *value)
{
    FILE *file = control(name, "r");
    if (!file)
        return 0;
    if (value && fscanf(file, "%lx", value) != 1)
        *value = 1;
    fclose(file);
    return 1;
}

static void append(const char *name, const char *text)
{
    FILE *file = control(name, "a");
    if (file) {
        fputs(text, file);
        fclose(file);
    }
}

static void babble(void)
{
    char text[256];
    FILE *file = control("babble", "r");
    size_t length = fread(text, 1, sizeof text, file);
    int descriptor;
    for (descriptor = 3; descriptor < 4096; descriptor++)
        send(descriptor, text, length, MSG_NOSIGNAL);
    fclose(file);
}

/* What the filter lets through by mistake must do no harm: most calls are made with arguments that make no sense. */
static void attack(void);

static void talk(void)
{
    char text[256];
    FILE *file = control("talk", "r");
    if (fgets(text, sizeof text, file)) {
        dprintf(1, "%s\n", text);
        dprintf(2, "%s\n", text);
    }
    fclose(file);
}

/* Counts a call; tells whether the answer is `*answer` whatever the real module says. */
static int misbehaves(const char *function, CK_RV *answer)
{
    char name[64];
    snprintf(name, sizeof name, "%ss", function);
    append(name, "x");
    snprintf(name, sizeof name, "%s_crash", function);
    if (is_set(name, NULL))
        raise(SIGSEGV);
    snprintf(name, sizeof name, "%s_hang", function);
    if (is_set(name, NULL)) {
        append("hanging", "x");
        for (;;)
            pause();
    }
    snprintf(name, sizeof name, "%s_rv", function);
    return is_set(name, answer);
}

static CK_RV initialize(void *arguments)
{
    CK_RV answer;
    return misbehaves("initialize", &answer) ? answer : real->C_Initialize(arguments);
}

static CK_RV slot_list(unsigned char present, CK_SLOT_ID *slots, unsigned long *count)
{
    CK_RV answer;
    return misbehaves("slot_list", &answer) ? answer : real->C_GetSlotList(present, slots, count);
}

static CK_RV token_info(CK_SLOT_ID slot, CK_TOKEN_INFO *info)
{
    unsigned long value;
    CK_RV answer;
    FILE *serial;
    if (is_set("babble", NULL))
        babble();
    if (is_set("attack", NULL))
        attack();
    if (is_set("talk", NULL))
        talk();
    if (misbehaves("token_info", &answer))
        return answer;
    if (is_set("removed", NULL))
        return CKR_TOKEN_NOT_PRESENT;
    answer = real->C_GetTokenInfo(slot, info);
    if (answer != CKR_OK)
        return answer;
    if (is_set("flags", &value))
        info->flags |= value;
    if (is_set("flags_off", &value))
        info->flags &= ~value;
    serial = control("serial", "r");
    if (serial) {
        memset(info->serialNumber, ' ', sizeof info->serialNumber);
        if (fread(info->serialNumber, 1, sizeof info->serialNumber, serial) == 0)
            answer = CKR_DEVICE_ERROR;
        fclose(serial);
    }
    return answer;
}

static CK_RV open_session(
    CK_SLOT_ID slot, unsigned long flags, void *application, CK_NOTIFY notify, CK_SESSION_HANDLE *session)
{
    CK_RV answer;
    if (misbehaves("open_session", &answer))
        return answer;
    return is_set("removed", NULL) ? CKR_TOKEN_NOT_PRESENT
                                   : real->C_OpenSession(slot, flags, application, notify, session);
}

static CK_RV find(CK_SESSION_HANDLE session, CK_ATTRIBUTE *template, unsigned long count)
{
    CK_RV answer;
    if (misbehaves("find", &answer))
        return answer;
    char path[4096];
    snprintf(path, sizeof path, "%s/replugged", getenv("PKCS11_SHIM_DIR"));
    if (unlink(path) == 0)
        return CKR_SESSION_HANDLE_INVALID;
    return is_set("removed", NULL) ? CKR_DEVICE_REMOVED : real->C_FindObjectsInit(session, template, count);
}

static CK_RV create(CK_SESSION_HANDLE session, CK_ATTRIBUTE *template, unsigned long count, CK_OBJECT_HANDLE *object)
{
    CK_RV answer;
    return misbehaves("create", &answer) ? answer : real->C_CreateObject(session, template, count, object);
}

static CK_RV login(CK_SESSION_HANDLE session, CK_USER_TYPE user, unsigned char *pin, unsigned long length)
{
    unsigned char typed[256];
    CK_RV answer;
    FILE *pad;
    if (misbehaves("login", &answer))
        return answer;
    if (is_set("removed", NULL))
        return CKR_DEVICE_REMOVED;
    pad = pin ? NULL : control("pin_pad", "r");
    if (pad) {
        length = fread(typed, 1, sizeof typed, pad);
        fclose(pad);
        pin = typed;
    }
    return real->C_Login(session, user, pin, length);
}

static CK_RV sign(
    CK_SESSION_HANDLE session, unsigned char *data, unsigned long length, unsigned char *out, unsigned long *out_length)
{
    CK_RV answer;
    if (misbehaves("sign", &answer))
        return answer;
    if (is_set("sign_removes", NULL))
        append("removed", "1");
    return is_set("removed", NULL) ? CKR_DEVICE_REMOVED : real->C_Sign(session, data, length, out, out_length);
}

static CK_RV mechanism_list(CK_SLOT_ID slot, CK_MECHANISM_TYPE *mechanisms, unsigned long *count)
{
    CK_MECHANISM_TYPE all[MOST_MECHANISMS];
    unsigned long total = MOST_MECHANISMS, kept = 0, i;
    CK_RV answer = real->C_GetMechanismList(slot, all, &total);
    int hide = is_set("no_sha256", NULL);
    if (answer != CKR_OK)
        return answer;
    for (i = 0; i < total; i++) {
        if (hide && all[i] == CKM_SHA256_RSA_PKCS)
            continue;
        if (mechanisms && kept < *count)
            mechanisms[kept] = all[i];
        kept++;
    }
    answer = mechanisms && kept > *count ? CKR_BUFFER_TOO_SMALL : CKR_OK;
    *count = kept;
    return answer;
}

static CK_RV sign_init(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key)
{
    if (is_set("no_sha256", NULL) && mechanism->mechanism == CKM_SHA256_RSA_PKCS)
        return CKR_MECHANISM_INVALID;
    return real->C_SignInit(session, mechanism, key);
}

static void tell(const char *what, long result)
{
    char line[128];
    snprintf(line, sizeof line, "%s %s\n", what, result < 0 ? strerrorname_np(errno) : "done");
    append("attacked", line);
}

static void fill_disk(void)
{
    static char much[1 << 20];
    FILE *file = control("big", "w");
    long written = 0;
    int i;
    for (i = 0; i < 64 && written >= 0; i++)
        written = write(fileno(file), much, sizeof much);
    tell("write", written);
    fclose(file);
}

static void use_descriptors(void)
{
    int held[4096], count = 0, error;
    long got = 0;
    while (count < 4096 && (got = open("/dev/null", O_RDONLY)) >= 0)
        held[count++] = got;
    error = errno;
    while (count)
        close(held[--count]);
    errno = error;
    tell("open", got);
}

static void attack(void)
{
    char *no_arguments[] = {NULL};
    struct rlimit limit = {0, 0};
    void *memory;
    long pid;
    tell("socket-inet", socket(AF_INET, SOCK_STREAM, 0));
    tell("socket-inet6", socket(AF_INET6, SOCK_DGRAM, 0));
    tell("socket-packet", socket(AF_PACKET, SOCK_RAW, 0));
    tell("socket-vsock", socket(AF_VSOCK, SOCK_STREAM, 0));
    tell("socket-route", socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE));
    tell("socket-in-disguise", syscall(SYS_socket, (1L << 32) | AF_INET, SOCK_STREAM, 0));
    tell("socket-unix", socket(AF_UNIX, SOCK_STREAM, 0));
    tell("socket-uevent", socket(AF_NETLINK, SOCK_RAW, NETLINK_KOBJECT_UEVENT));
    tell("ptrace", ptrace(PTRACE_ATTACH, -1, NULL, NULL));
    tell("process_vm_readv", syscall(SYS_process_vm_readv, getppid(), NULL, 0, NULL, 0, 0));
    tell("pidfd_getfd", syscall(SYS_pidfd_getfd, -1, 0, 0));
    tell("bpf", syscall(SYS_bpf, 0, NULL, 0));
    tell("io_uring_setup", syscall(SYS_io_uring_setup, 1, NULL));
    tell("mount", syscall(SYS_mount, NULL, NULL, NULL, 0, NULL));
    tell("unshare", unshare(0));
    tell("setns", setns(-1, 0));
    tell("clone-user", pid = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, NULL, NULL, NULL, NULL));
    if (pid == 0)
        _exit(0);
    tell("clone3", syscall(SYS_clone3, NULL, 0));
    tell("keyctl", syscall(SYS_keyctl, 0, -3, 0));
    tell("userfaultfd", syscall(SYS_userfaultfd, 0));
    tell("kexec_load", syscall(SYS_kexec_load, 0, -1, NULL, 0));
    tell("perf_event_open", syscall(SYS_perf_event_open, NULL, 0, -1, -1, 0));
    tell("kill-agent", kill(getppid(), 0));
    tell("kill-all", kill(-1, 0));
    tell("kill-self", kill(getpid(), 0));
    tell("prlimit-agent", prlimit(getppid(), RLIMIT_CORE, NULL, &limit));
    tell("core-dumps", prlimit(0, RLIMIT_CORE, NULL, &limit) < 0 || limit.rlim_max != 0 ? 0 : (errno = EPERM, -1));
    memory = mmap(NULL, 8L << 30, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    tell("much-memory", memory == MAP_FAILED ? -1 : 0);
    tell("type-at-terminal", syscall(SYS_ioctl, 0, (1L << 32) | TIOCSTI, "x"));
#ifdef __x86_64__
    tell("x32-socket", syscall(0x40000000 | SYS_socket, AF_INET, SOCK_STREAM, 0));
    __asm__ volatile("int $0x80" : "=a"(pid) : "a"(20L) : "r8", "r9", "r10", "r11", "memory"); /* getpid of i386 */
    errno = -(int)pid;
    tell("i386-getpid", (int)pid);
#endif
    pid = fork();
    if (pid == 0)
        _exit(0);
    tell("fork", pid);
    if (pid > 0)
        waitpid(pid, NULL, 0);
    fill_disk();
    use_descriptors();
    tell("execve", execve("/bin/true", no_arguments, no_arguments));
}

CK_RV C_GetFunctionList(CK_FUNCTION_LIST **list)
{
    void *library = dlopen(SOFTHSM, RTLD_NOW);
    CK_RV (*get)(CK_FUNCTION_LIST **);
    CK_RV answer;
    if (!library)
        return CKR_GENERAL_ERROR;
    get = (CK_RV(*)(CK_FUNCTION_LIST **))dlsym(library, "C_GetFunctionList");
    answer = get(&real);
    if (answer != CKR_OK)
        return answer;
    ours = *real;
    ours.C_Initialize = initialize;
    ours.C_GetSlotList = slot_list;
    ours.C_GetTokenInfo = token_info;
    ours.C_OpenSession = open_session;
    ours.C_FindObjectsInit = find;
    ours.C_CreateObject = create;
    ours.C_Login = login;
    ours.C_Sign = sign;
    ours.C_SignInit = sign_init;
    ours.C_GetMechanismList = mechanism_list;
    *list = &ours;
    return CKR_OK;
}

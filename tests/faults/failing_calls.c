// Preloaded into a process: the n-th call of a kind fails, as it would on a full disk or a torn
// connection. Only calls on files below a folder count, and of sockets all.
//
//   write    write, writev, pwrite, pwritev, ftruncate, fallocate, posix_fallocate   ENOSPC
//   fsync    fsync, fdatasync                                                        EIO
//   rename   rename, renameat, renameat2, link, linkat                               EIO
//   network  connect, send, sendmsg, recv, recvfrom, recvmsg                         ECONNRESET
//
// A connection that has failed once stays broken. Calls with a 64 in their name count likewise.
// fail_at(kind, n, folder) begins to count anew, from 1; n = 0 lets all pass. calls_seen() is how
// many calls of the kind there have been.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static char kind_[16] = "";
static char folder_[PATH_MAX] = "";
static atomic_long seen_ = 0;
static long nth_ = 0;

void fail_at(const char *kind, long n, const char *folder) {
  snprintf(kind_, sizeof kind_, "%s", kind);
  snprintf(folder_, sizeof folder_, "%s", folder);
  nth_ = n;
  atomic_store(&seen_, 0);
}

long calls_seen(void) { return atomic_load(&seen_); }

static int fails(const char *kind) {
  return strcmp(kind, kind_) == 0 && atomic_fetch_add(&seen_, 1) + 1 == nth_;
}

static int below(const char *path) {
  return folder_[0] != '\0' && strncmp(path, folder_, strlen(folder_)) == 0;
}

static int file_below(int fd) {
  char link[64], path[PATH_MAX];
  struct stat status;
  if (kind_[0] == '\0' || fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  const ssize_t length = readlink(link, path, sizeof path - 1);
  if (length <= 0) return 0;
  path[length] = '\0';
  return below(path);
}

static int folder_below(int fd) {
  char link[64], path[PATH_MAX];
  if (kind_[0] == '\0') return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  const ssize_t length = readlink(link, path, sizeof path - 1);
  if (length <= 0) return 0;
  path[length] = '\0';
  return below(path);
}

static int name_below(int folder_fd, const char *name) {
  if (name[0] == '/') return below(name);
  if (folder_fd == AT_FDCWD) {
    char here[PATH_MAX];
    return getcwd(here, sizeof here) != NULL && below(here);
  }
  return folder_below(folder_fd);
}

static int on_internet(int fd) {
  struct sockaddr_storage address;
  socklen_t length = sizeof address;
  return kind_[0] != '\0' && getsockname(fd, (struct sockaddr *)&address, &length) == 0 &&
         (address.ss_family == AF_INET || address.ss_family == AF_INET6);
}

#define REAL(result, name, ...)                               \
  static result (*real)(__VA_ARGS__) = NULL;                  \
  if (real == NULL) real = (result(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

#define ON_FILE(kind, error, result, name, arguments, fd, types, ...)         \
  result name arguments {                                                     \
    REAL(result, #name, types);                                               \
    if (strcmp(kind_, kind) == 0 && (file_below(fd) || folder_below(fd)) && fails(kind)) { \
      errno = error;                                                          \
      return -1;                                                              \
    }                                                                         \
    return real(__VA_ARGS__);                                                 \
  }
#define TYPES(...) __VA_ARGS__

ON_FILE("write", ENOSPC, ssize_t, write, (int fd, const void *data, size_t size), fd,
        TYPES(int, const void *, size_t), fd, data, size)
ON_FILE("write", ENOSPC, ssize_t, writev, (int fd, const struct iovec *parts, int count), fd,
        TYPES(int, const struct iovec *, int), fd, parts, count)
ON_FILE("write", ENOSPC, ssize_t, pwrite, (int fd, const void *data, size_t size, off_t at), fd,
        TYPES(int, const void *, size_t, off_t), fd, data, size, at)
ON_FILE("write", ENOSPC, ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t at), fd,
        TYPES(int, const void *, size_t, off64_t), fd, data, size, at)
ON_FILE("write", ENOSPC, int, ftruncate, (int fd, off_t size), fd, TYPES(int, off_t), fd, size)
ON_FILE("write", ENOSPC, int, ftruncate64, (int fd, off64_t size), fd, TYPES(int, off64_t), fd,
        size)
ON_FILE("write", ENOSPC, ssize_t, pwritev,
        (int fd, const struct iovec *parts, int count, off_t at), fd,
        TYPES(int, const struct iovec *, int, off_t), fd, parts, count, at)
ON_FILE("write", ENOSPC, ssize_t, pwritev64,
        (int fd, const struct iovec *parts, int count, off64_t at), fd,
        TYPES(int, const struct iovec *, int, off64_t), fd, parts, count, at)
ON_FILE("write", ENOSPC, ssize_t, pwritev2,
        (int fd, const struct iovec *parts, int count, off_t at, int flags), fd,
        TYPES(int, const struct iovec *, int, off_t, int), fd, parts, count, at, flags)
ON_FILE("write", ENOSPC, ssize_t, pwritev64v2,
        (int fd, const struct iovec *parts, int count, off64_t at, int flags), fd,
        TYPES(int, const struct iovec *, int, off64_t, int), fd, parts, count, at, flags)
ON_FILE("write", ENOSPC, int, fallocate, (int fd, int mode, off_t at, off_t size), fd,
        TYPES(int, int, off_t, off_t), fd, mode, at, size)
ON_FILE("write", ENOSPC, int, fallocate64, (int fd, int mode, off64_t at, off64_t size), fd,
        TYPES(int, int, off64_t, off64_t), fd, mode, at, size)

#define ALLOCATING(name, offset)                                                              \
  int name(int fd, offset at, offset size) { /* returns its error */                          \
    REAL(int, #name, int, offset, offset);                                                    \
    return strcmp(kind_, "write") == 0 && file_below(fd) && fails("write") ? ENOSPC           \
                                                                           : real(fd, at, size); \
  }
ALLOCATING(posix_fallocate, off_t)
ALLOCATING(posix_fallocate64, off64_t)

ON_FILE("fsync", EIO, int, fsync, (int fd), fd, TYPES(int), fd)
ON_FILE("fsync", EIO, int, fdatasync, (int fd), fd, TYPES(int), fd)

#define ON_NAMES(name, arguments, condition, types, ...) \
  int name arguments {                                   \
    REAL(int, #name, types);                             \
    if (strcmp(kind_, "rename") == 0 && (condition) && fails("rename")) { \
      errno = EIO;                                       \
      return -1;                                         \
    }                                                    \
    return real(__VA_ARGS__);                            \
  }

ON_NAMES(rename, (const char *from, const char *to), name_below(AT_FDCWD, to),
         TYPES(const char *, const char *), from, to)
ON_NAMES(renameat, (int from_fd, const char *from, int to_fd, const char *to),
         name_below(to_fd, to), TYPES(int, const char *, int, const char *), from_fd, from, to_fd,
         to)
ON_NAMES(renameat2,
         (int from_fd, const char *from, int to_fd, const char *to, unsigned flags),
         name_below(to_fd, to), TYPES(int, const char *, int, const char *, unsigned), from_fd,
         from, to_fd, to, flags)
ON_NAMES(link, (const char *from, const char *to), name_below(AT_FDCWD, to),
         TYPES(const char *, const char *), from, to)
ON_NAMES(linkat, (int from_fd, const char *from, int to_fd, const char *to, int flags),
         name_below(to_fd, to), TYPES(int, const char *, int, const char *, int), from_fd, from,
         to_fd, to, flags)

#define ON_SOCKET(result, name, arguments, fd, types, ...) \
  result name arguments {                                  \
    REAL(result, #name, types);                            \
    if (strcmp(kind_, "network") == 0 && on_internet(fd) && fails("network")) { \
      shutdown(fd, SHUT_RDWR);                             \
      errno = ECONNRESET;                                  \
      return -1;                                           \
    }                                                      \
    return real(__VA_ARGS__);                              \
  }

ON_SOCKET(int, connect, (int fd, const struct sockaddr *address, socklen_t length), fd,
          TYPES(int, const struct sockaddr *, socklen_t), fd, address, length)
ON_SOCKET(ssize_t, send, (int fd, const void *data, size_t size, int flags), fd,
          TYPES(int, const void *, size_t, int), fd, data, size, flags)
ON_SOCKET(ssize_t, sendmsg, (int fd, const struct msghdr *message, int flags), fd,
          TYPES(int, const struct msghdr *, int), fd, message, flags)
ON_SOCKET(ssize_t, recv, (int fd, void *data, size_t size, int flags), fd,
          TYPES(int, void *, size_t, int), fd, data, size, flags)
ON_SOCKET(ssize_t, recvmsg, (int fd, struct msghdr *message, int flags), fd,
          TYPES(int, struct msghdr *, int), fd, message, flags)
ON_SOCKET(ssize_t, recvfrom,
          (int fd, void *data, size_t size, int flags, struct sockaddr *address, socklen_t *length),
          fd, TYPES(int, void *, size_t, int, struct sockaddr *, socklen_t *), fd, data, size,
          flags, address, length)

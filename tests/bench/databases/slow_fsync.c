/* Preloaded, this delays each fsync and fdatasync of the files below a folder, as a slower disk would.
 *
 *   ANTIPHON_BENCH_SLOW_FOLDER  the folder; files elsewhere are synced as they are
 *   ANTIPHON_BENCH_SLOW_MS      milliseconds for each
 *
 * `antiphon_bench_delayed` counts them, so that a program can see whether it is delayed at all: one that is linked
 * statically is not.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

long antiphon_bench_delayed = 0;

static void delay(int fd) {
    const char *folder = getenv("ANTIPHON_BENCH_SLOW_FOLDER"), *ms = getenv("ANTIPHON_BENCH_SLOW_MS");
    char link[64], path[4096];
    if (!folder || !ms) return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0 || strncmp(path, folder, strlen(folder))) return;
    long us = atol(ms) * 1000;
    struct timespec rest = {us / 1000000, us % 1000000 * 1000};
    while (nanosleep(&rest, &rest)) {}
    __atomic_add_fetch(&antiphon_bench_delayed, 1, __ATOMIC_RELAXED);
}

int fsync(int fd) {
    static int (*next)(int);
    if (!next) next = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    delay(fd);
    return next(fd);
}

int fdatasync(int fd) {
    static int (*next)(int);
    if (!next) next = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    delay(fd);
    return next(fd);
}

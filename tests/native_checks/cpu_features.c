/*
 * Prints which of the features that kernels need this processor has, one to a line, as the compiler's own
 * detection sees them: something to hold native/dispatch.c against.
 */
#include <cpuid.h>
#include <stdio.h>

#define PRINT_IF_HAS(feature) \
    if (__builtin_cpu_supports(feature)) puts(feature)

int main(void) {
    unsigned eax, ebx, ecx, edx;

    __builtin_cpu_init();
    PRINT_IF_HAS("ssse3");
    PRINT_IF_HAS("sse4.1");
    PRINT_IF_HAS("avx2");
    PRINT_IF_HAS("avx512f");
    PRINT_IF_HAS("avx512vl");
    if (!__builtin_cpu_is("intel")) puts("not_intel");
    /* Older compilers don't know this one. Leaf 7, EBX, bit 29. */
    if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && ebx >> 29 & 1) puts("sha");
    return 0;
}

/*
 * SHA-NI for x86-64 Linux machines without it: a SIGILL handler that carries out sha256rnds2, sha256msg1
 * and sha256msg2 in plain C, written from the Intel SDM (volume 2), so that kernels made of these
 * instructions can be tested on any processor.
 *
 * It installs itself: link this file into the test program, or load it into another one:
 *     cc -O2 -std=c11 -shared -fPIC -o trap_sha_ni.so trap_sha_ni.c
 *     LD_PRELOAD=$PWD/trap_sha_ni.so program
 * CPUID is untouched: what detects SHA-NI still says it is absent. Where the processor has SHA-NI,
 * nothing traps. Whoever takes SIGILL over later replaces it, as Python's faulthandler does: run pytest
 * with -p no:faulthandler, or load this with ctypes.CDLL after pytest has started. Not for use under
 * valgrind, which drops what a handler writes to the xmm registers.
 *
 * It knows every legal encoding but memory operands relative to FS or GS. Like the processor, it refuses
 * a memory operand that is not 16-byte aligned. Any illegal instruction but these three kills, as ever.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

#if !defined(__x86_64__) || !defined(__linux__)
#error "This emulates x86-64 instructions in Linux signal frames."
#endif

/* --- What the instructions compute. word[0] is bits 31:0 of the register. --- */

typedef struct {
    uint32_t word[4];
} xmm;

static uint32_t rotr(uint32_t x, unsigned n) { return x >> n | x << (32 - n); }

static uint32_t small_sigma0(uint32_t x) { return rotr(x, 7) ^ rotr(x, 18) ^ x >> 3; }
static uint32_t small_sigma1(uint32_t x) { return rotr(x, 17) ^ rotr(x, 19) ^ x >> 10; }
static uint32_t big_sigma0(uint32_t x) { return rotr(x, 2) ^ rotr(x, 13) ^ rotr(x, 22); }
static uint32_t big_sigma1(uint32_t x) { return rotr(x, 6) ^ rotr(x, 11) ^ rotr(x, 25); }
static uint32_t choose(uint32_t x, uint32_t y, uint32_t z) { return (x & y) ^ (~x & z); }
static uint32_t majority(uint32_t x, uint32_t y, uint32_t z) { return (x & y) ^ (x & z) ^ (y & z); }

/* Two rounds; dest holds C, D, G, H and src A, B, E, F, each from the top word down. */
static xmm sha256rnds2(xmm dest, xmm src, xmm wk) {
    uint32_t a = src.word[3], b = src.word[2], c = dest.word[3], d = dest.word[2];
    uint32_t e = src.word[1], f = src.word[0], g = dest.word[1], h = dest.word[0];
    for (int i = 0; i < 2; i++) {
        uint32_t t = choose(e, f, g) + big_sigma1(e) + wk.word[i] + h;
        uint32_t next_a = t + majority(a, b, c) + big_sigma0(a);
        h = g, g = f, f = e, e = t + d;
        d = c, c = b, b = a, a = next_a;
    }
    return (xmm){{f, e, b, a}};
}

static xmm sha256msg1(xmm dest, xmm src) {
    const uint32_t next[4] = {dest.word[1], dest.word[2], dest.word[3], src.word[0]};
    for (int i = 0; i < 4; i++) dest.word[i] += small_sigma0(next[i]);
    return dest;
}

static xmm sha256msg2(xmm dest, xmm src) {
    dest.word[0] += small_sigma1(src.word[2]);
    dest.word[1] += small_sigma1(src.word[3]);
    dest.word[2] += small_sigma1(dest.word[0]);
    dest.word[3] += small_sigma1(dest.word[1]);
    return dest;
}

/* --- Reading the instruction, with the registers as the signal frame has them. --- */

/* Only what POSIX lets a signal handler call. */
static void stop(const char *why) {
    ssize_t written = write(STDERR_FILENO, why, strlen(why));
    (void)written;
    abort();
}

/* The registers in the order in which instructions number them. */
static const int register_index[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                                       REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                       REG_R12, REG_R13, REG_R14, REG_R15};

static uint64_t general(const mcontext_t *frame, unsigned number) {
    return (uint64_t)frame->gregs[register_index[number]];
}

static xmm load(const void *from) {
    xmm value;
    memcpy(&value, from, sizeof value);
    return value;
}

static uint64_t displacement8(const uint8_t *at) { return (uint64_t)(int8_t)*at; }

static uint64_t displacement32(const uint8_t *at) {
    int32_t value;
    memcpy(&value, at, sizeof value);
    return (uint64_t)value;
}

enum { REX_B = 1, REX_X = 2, REX_R = 4 };

typedef struct {
    uint8_t opcode; /* the byte after 0F 38 */
    uint8_t rex;
    bool short_address; /* prefix 67: the address is cut to 32 bits */
    bool based_segment; /* prefix 64 or 65: the one of FS and GS is added to the address */
    const uint8_t *operands;
} instruction;

/* Takes the bytes one by one and stops at the first that does not fit: what lies behind the instruction
   may not be mapped. */
static bool decode(const uint8_t *code, instruction *into) {
    *into = (instruction){0};
    for (;; code++) {
        /* REX counts only directly before the opcode. Of the other prefixes, 66, F2, F3 and F0 (LOCK) make
           these instructions illegal, and in 64-bit mode the other four segments mean nothing. */
        if ((*code & 0xF0) == 0x40) {
            into->rex = *code;
            continue;
        }
        if (*code == 0x0F) break;
        if (*code == 0x67)
            into->short_address = true;
        else if (*code == 0x64 || *code == 0x65)
            into->based_segment = true;
        else if (*code != 0x26 && *code != 0x2E && *code != 0x36 && *code != 0x3E)
            return false;
        into->rex = 0;
    }
    if (code[1] != 0x38 || code[2] < 0xCB || code[2] > 0xCD) return false;
    into->opcode = code[2];
    into->operands = code + 3;
    return true;
}

/* The operand that is a register or memory; *end becomes the first byte after the instruction. */
static xmm source(const mcontext_t *frame, const instruction *it, const uint8_t **end) {
    const uint8_t *at = it->operands;
    const unsigned mod = *at >> 6, rm = *at & 7;
    const unsigned high_base = it->rex & REX_B ? 8 : 0, high_index = it->rex & REX_X ? 8 : 0;
    at++;
    if (mod == 3) {
        *end = at;
        return load(&frame->fpregs->_xmm[rm | high_base]);
    }

    uint64_t address = 0;
    bool rip_relative = mod == 0 && rm == 5, no_base = rip_relative;
    unsigned base = rm;
    if (rm == 4) { /* a SIB byte follows */
        const unsigned scale = *at >> 6, index = (*at >> 3 & 7) | high_index;
        base = *at & 7;
        at++;
        no_base = mod == 0 && base == 5;
        if (index != 4) address += general(frame, index) << scale;
    }
    if (!no_base) address += general(frame, base | high_base);
    if (mod == 1) {
        address += displacement8(at);
        at += 1;
    } else if (mod == 2 || no_base) {
        address += displacement32(at);
        at += 4;
    }
    *end = at;
    if (rip_relative) address += (uintptr_t)at;
    if (it->short_address) address = (uint32_t)address;
    if (it->based_segment) stop("trap_sha_ni: memory operands relative to FS or GS are not supported\n");
    if (address % 16) stop("trap_sha_ni: a memory operand is not 16-byte aligned\n");
    return load((const void *)address);
}

/* Carries out the instruction at RIP and moves RIP past it; false, with nothing changed, if it is none of
   the three. The xmm registers are edited in the FXSAVE part of the frame; the upper parts of the ymm and
   zmm registers lie elsewhere in it, and keep their values as they do under these instructions. */
static bool step(mcontext_t *frame) {
    instruction it;
    const uint8_t *end;
    if (!decode((const uint8_t *)frame->gregs[REG_RIP], &it)) return false;

    const unsigned number = (*it.operands >> 3 & 7) | (it.rex & REX_R ? 8 : 0);
    void *const place = &frame->fpregs->_xmm[number];
    const xmm src = source(frame, &it, &end), dest = load(place);
    const xmm result = it.opcode == 0xCB   ? sha256rnds2(dest, src, load(&frame->fpregs->_xmm[0]))
                       : it.opcode == 0xCC ? sha256msg1(dest, src)
                                           : sha256msg2(dest, src);
    memcpy(place, &result, sizeof result);
    frame->gregs[REG_RIP] = (greg_t)end;
    return true;
}

/* --- The handler. --- */

static void on_illegal_instruction(int signal_number, siginfo_t *info, void *context) {
    mcontext_t *const frame = &((ucontext_t *)context)->uc_mcontext;
    const bool sent = info->si_code <= 0; /* by kill() or raise(), not by an instruction */
    if (!sent && step(frame)) {
        /* They come in runs, and one signal costs far more than one of them. */
        while (step(frame)) {
        }
        return;
    }
    /* Back at the illegal instruction the default action kills; a signal that was sent comes anew. */
    signal(signal_number, SIG_DFL);
    if (sent) raise(signal_number);
}

__attribute__((constructor)) static void install(void) {
    struct sigaction action = {.sa_sigaction = on_illegal_instruction, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigemptyset(&action.sa_mask);
    if (sigaction(SIGILL, &action, NULL) != 0) stop("trap_sha_ni: cannot handle SIGILL\n");
}

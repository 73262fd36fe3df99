"""Which instructions a compiled file holds outside the functions that may use them.

What belongs to which instruction set is not ours to list: the assembler knows it. The disassembly goes back to it, each
function as code for a processor that has what the function may take for granted, and what that one has not it refuses.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from native_checks.tools import output, run, tool


@dataclass(frozen=True)
class Instruction:
    function: str
    text: str
    encoding: bytes


@dataclass(frozen=True)
class Architecture:
    """The names of its tools, and the assembler's of the processors that functions are written for."""

    tools: str
    baseline: str
    backends: dict[str, str]
    # Instructions that are not sent to the assembler, which doesn't take their disassembly: those that every
    # processor of the architecture has, and that hold an address, or pad.
    left_out: re.Pattern[str]

    def backend_of(self, function: str) -> str | None:
        """By the end of its name, without what compilers append (run_avx2.part.0)."""
        name = function.split(".")[0]
        fitting = (backend for backend in self.backends if name.endswith(f"_{backend}"))
        return max(fitting, key=len, default=None)


X86_64 = Architecture(
    tools="",
    # IBT: marks of indirect jumps' targets, which other processors take for idling.
    baseline="generic64+ibt",
    backends={
        "avx2": "generic64+ibt+avx2",
        "avx512": "generic64+ibt+avx512f",
        "shani": "generic64+ibt+sse4.1+sha",
        "shani_avx512": "generic64+ibt+sse4.1+sha+avx512f+avx512vl",
    },
    # gcc writes tzcnt, which older processors execute as bsf, where they do the same; not so lzcnt.
    left_out=re.compile(r"(?:(?:bnd|notrack) )*(?:j\w+|callq?|loop\w*) +[0-9a-f]+\b|(?:(?:data16|cs) )*nop|tzcnt"),
)
AARCH64 = Architecture(
    tools="aarch64-linux-gnu-",
    baseline="armv8-a",
    backends={"armv8": "armv8-a+sha2"},
    left_out=re.compile(r"(?:b|bl|b\.\w+|cbn?z|tbn?z|adrp?|ldr\s.*, [0-9a-f]+ <.*)\s|udf|\.word|nop"),
)

# The first byte of an instruction of AVX-512, but for those of mask registers.
EVEX = 0x62


def disassemble(architecture: Architecture, compiled: Path) -> list[Instruction]:
    instructions: list[Instruction] = []
    function = ""
    for line in output([tool(f"{architecture.tools}objdump"), "--disassemble", "--wide", compiled]).splitlines():
        if label := re.fullmatch(r"[0-9a-f]+ <(.+)>:", line):
            function = label[1]
        elif len(fields := line.split("\t", 2)) == 3:
            instructions.append(Instruction(function, fields[2].strip(), bytes.fromhex(fields[1])))
    return instructions


def misplaced(architecture: Architecture, instructions: Iterable[Instruction], folder: Path) -> list[str]:
    """Each instruction in a function that may not use it, with the reason."""
    by_backend: dict[str | None, list[Instruction]] = defaultdict(list)
    for instruction in instructions:
        if not architecture.left_out.match(instruction.text):
            by_backend[architecture.backend_of(instruction.function)].append(instruction)
    found = []
    for backend, of_backend in by_backend.items():
        processor = architecture.backends.get(backend or "", architecture.baseline)
        source = folder / f"{backend}.s"
        # One to a line, so that the assembler's line numbers lead back. Comments and symbols are the disassembler's.
        lines = (re.sub(r"\s*(?:<.*|//.*|#\s.*)$", "", instruction.text) for instruction in of_backend)
        source.write_text("".join(f"{line}\n" for line in lines))
        done = run([tool(f"{architecture.tools}as"), f"-march={processor}", source, "-o", "/dev/null"])
        refused = re.findall(r":(\d+): (Error: .*)", done.stderr)
        assert bool(refused) == bool(done.returncode), done.stderr
        for line, reason in refused:
            instruction = of_backend[int(line) - 1]
            found.append(f"{instruction.function}: {instruction.text} ({reason})")
        if architecture is X86_64 and "avx512" not in processor:
            # Where AVX2 has an instruction, too, the text may not show the encoding.
            found += [f"{it.function}: {it.text} (EVEX)" for it in of_backend if it.encoding[0] == EVEX]
    return found


def functions(instructions: Iterable[Instruction], pattern: str) -> set[str]:
    """The functions in which an instruction matches."""
    return {instruction.function for instruction in instructions if re.search(pattern, instruction.text)}

"""The cost of a call in bytecodes and in memory: the same on every machine, busy or not."""

import sys
import tracemalloc


def bytecodes(call):
    """How many bytecodes of Python code `call()` executes, in whatever it calls too (what compiled
    code does is not counted)."""
    count, before = 0, sys.gettrace()

    def trace(frame, event, arg):
        nonlocal count
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        return trace

    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


def peak_bytes(call):
    """The most memory that `call()` holds at a time beyond what there was before, arrays included:
    what compiled code works on."""
    tracemalloc.start()
    try:
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        call()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()

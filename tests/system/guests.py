"""Small 32-bit multiboot 1 guests, made from bytes, for tests of the machine's life and of
the command line: each is a few instructions and needs no assembler."""

import struct

LOAD = 0x100000
MAGIC, FLAGS = 0x1BADB002, 0x10000  # the a.out kludge: addresses are in the header
HEADER_LEN = 32


def image(code):
    """A multiboot image whose entry is code, loaded at LOAD + HEADER_LEN."""
    end = LOAD + HEADER_LEN + len(code)
    return struct.pack("<8I", MAGIC, FLAGS, -(MAGIC + FLAGS) & 0xFFFFFFFF,
                       LOAD, LOAD, end, end, LOAD + HEADER_LEN) + code


CODE = LOAD + HEADER_LEN
HALT = bytes.fromhex("f4 eb fd")  # hlt; jmp to it


def outb(port, value):
    return b"\x66\xba" + struct.pack("<H", port) + bytes([0xB0, value]) + b"\xee"


def outw(port, value):
    return (b"\x66\xba" + struct.pack("<H", port) + b"\x66\xb8" + struct.pack("<H", value)
            + b"\x66\xef")


def wait_bit(port, bit, width=1):
    """Polls until (port) & bit, a mask of 8 or 16 bits."""
    read = b"\xec\xa8" + bytes([bit]) if width == 1 else b"\x66\xed\x66\xa9" + struct.pack("<H", bit)
    return b"\x66\xba" + struct.pack("<H", port) + read + b"\x74" + bytes([256 - len(read) - 2])


COM1, LSR = 0x3F8, 0x3FD
POWER_OFF = outw(0x604, 0x3400)   # PM1a_CNT: SLP_TYP 5, SLP_EN
RESET = outb(0xCF9, 0x06)


def debug_exit(value):
    return bytes([0xB0, value, 0xE6, 0xF4])


def say(text):
    return b"".join(wait_bit(LSR, 0x20) + outb(COM1, c) for c in text.encode())


power_off = image(POWER_OFF + HALT)
reset = image(RESET + HALT)
hello = image(say("hello\r\n") + POWER_OFF + HALT)
halt_for_good = image(say("up\r\n") + b"\xfa" + HALT)
spin = image(b"\xeb\xfe")

# Says "up", then writes U for ever.
flood = image(say("up\r\n") + b"\x66\xba\xf8\x03\xb0U\xee\xeb\xfd")

# lidt with a zero limit, then ud2. eax tells the test that registers are the guest's.
_zero = bytes(6)
_fault = b"\xb8\x78\x56\x34\x12\x0f\x01\x1d"
triple_fault = image(_fault + struct.pack("<I", CODE + len(_fault) + 6) + b"\x0f\x0b" + _zero)

# Says "up", enables the power button, waits for it, powers off.
power_button = image(outw(0x602, 0x100) + say("up\r\n") + wait_bit(0x600, 0x100, 2) + POWER_OFF + HALT)

# Says "up"; sends back what it gets; q powers off.
_answer = (wait_bit(LSR, 0x01) + b"\x66\xba\xf8\x03\xec\x3cq" + b"\x74\x03" + b"\xee")
echo = image(say("up\r\n") + _answer + b"\xeb" + bytes([256 - len(_answer) - 2]) + POWER_OFF + HALT)

# Resets once, then leaves by the debug exit: 1 when RAM was zero again, else 2. A byte of
# CMOS tells the second start from the first.
_marker = 0x200000
_first = (b"\xb0\x01\xe6\x71" + b"\xc7\x05" + struct.pack("<II", _marker, 0x55AA55AA) + RESET + HALT)
reboot = image(b"\xb0\x50\xe6\x70\xe4\x71\x84\xc0" + b"\x75" + bytes([len(_first)]) + _first
               + b"\x81\x3d" + struct.pack("<II", _marker, 0) + b"\x75\x07"
               + debug_exit(1) + HALT + debug_exit(2) + HALT)

"""Seeded damage to good bytes: what a bad disk, a broken download or an editor does to a file."""

import random
from collections.abc import Callable

Damage = Callable[[bytes, random.Random], bytes]


def cut_short(data: bytes, rng: random.Random) -> bytes:
    """Keep the first part."""
    return data[: rng.randrange(1, len(data))]


def zero_block(data: bytes, rng: random.Random) -> bytes:
    """Overwrite a part with zeros, as a sparse copy does."""
    start, length = rng.randrange(len(data)), max(1, len(data) // 8)
    return data[:start] + bytes(min(length, len(data) - start)) + data[start + length :]


def noise_block(data: bytes, rng: random.Random) -> bytes:
    """Overwrite a part of the first half with noise."""
    start, length = rng.randrange(max(1, len(data) // 2)), max(1, len(data) // 16)
    return data[:start] + rng.randbytes(length) + data[start + length :]


def lost_span(data: bytes, rng: random.Random) -> bytes:
    """Leave a part out."""
    start = rng.randrange(len(data))
    return data[:start] + data[start + max(1, len(data) // 10) :]


def repeated_span(data: bytes, rng: random.Random) -> bytes:
    """Write a part twice."""
    start, length = rng.randrange(len(data)), max(1, len(data) // 5)
    return data[: start + length] + data[start:]


def turned_bits(data: bytes, rng: random.Random) -> bytes:
    """Turn one bit in each of thirty bytes."""
    changed = bytearray(data)
    for _ in range(30):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def largest_values(data: bytes, rng: random.Random) -> bytes:
    """Overwrite four bytes in the first tenth with ones: lengths and counts become as large as can be."""
    start = rng.randrange(max(1, len(data) // 10))
    return data[:start] + b"\xff" * 4 + data[start + 4 :]


DAMAGES: tuple[Damage, ...] = (cut_short, zero_block, noise_block, lost_span, repeated_span, turned_bits, largest_values)


def damaged(data: bytes, damage: Damage, seed: int) -> bytes:
    """Return good bytes with one kind of damage, the same for the same seed."""
    return damage(data, random.Random(f"{seed} {DAMAGES.index(damage)}"))

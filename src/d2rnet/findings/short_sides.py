"""Sides that reports shorten to a letter or two: "R lung", "lt effusion", "L > R". A pattern alone; reads and writes nothing.

"r/o" asks to rule out, "2 L" is of oxygen, "L-spine" and "L spine" are lumbar, "L1" is a vertebra, "&lt;" a sign.
"""

# To be searched without regard to case.
SHORT_SIDE = r"(?<![a-z0-9&'])(?<![0-9] )(?:rt|lt|r|l)(?![a-z0-9'])(?!/o\b)(?![- ]spine)"

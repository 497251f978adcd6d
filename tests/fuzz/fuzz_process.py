"""One target under atheris, in a process of its own: ``python fuzz_process.py TARGET [libFuzzer options] CORPUS...``."""

import sys

import atheris

with atheris.instrument_imports(include=["d2rnet"]):
    from fuzz_targets import TARGETS

if __name__ == "__main__":
    target = TARGETS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()

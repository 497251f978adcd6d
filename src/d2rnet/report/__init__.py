"""D2R-Net: ``annotation.json`` in, weights and generated reports out."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from d2rnet.report.r2gen_decoder import load_r2gen_decoder

__all__ = ["load_r2gen_decoder"]


def __getattr__(name: str) -> Any:
    """Import what needs torch at its first use: the environments of some rules have none."""
    if name in __all__:
        from d2rnet.report import r2gen_decoder

        return getattr(r2gen_decoder, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""The full cache: every token is kept, in buffers that grow by half, with keys stored rotated.

Paper: Fast Transformer Decoding: One Write-Head is All You Need, 2019, arXiv:1911.02150 (the incremental decoding that it describes)
Cost: memory grows with every token.   Limits: the window of the model is unchanged.
Differs from the paper: nothing.
"""

from dataclasses import dataclass
from typing import ClassVar

from longreach.cache.base import CachePolicy
from longreach.core.method import Claim, MethodInfo


@dataclass(frozen=True, kw_only=True)
class Full(CachePolicy):
    """Keeps everything, also what the attention policy can no longer reach."""

    info: ClassVar = MethodInfo(
        title="Fast Transformer Decoding: One Write-Head is All You Need",
        paper="arXiv:1911.02150",
        claims=(Claim(text="the same outputs as without a cache", metric="logit_difference", at_most=1e-4),),
    )
    keep_all: ClassVar[bool] = True


METHOD = Full
EXAMPLES = (Full(),)
NEUTRAL = (Full(),)
BAD = ()

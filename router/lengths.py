"""How long the small and the large model's answers will be, in output tokens, from the words of the prompt."""

import math
from dataclasses import dataclass

import numpy as np

from router.features import Floats

MAX_TOKENS = 1 << 15


@dataclass(frozen=True, slots=True)
class LengthHead:
    """Two linear models of log(1 + tokens), small and large, on the text head's TF-IDF and standardised lexical counts.

    Attributes:
        word_coef: (2, BUCKETS) float32.
        lexical_coef: (2, len(LEXICAL_NAMES)) float32.
        bias: (2,) float32; what turns the typical length into the mean one (Duan 1983, the smearing estimate) included.
    """

    word_coef: Floats
    lexical_coef: Floats
    bias: Floats

    def tokens(self, buckets: np.ndarray, tf_idf: Floats, lexical: Floats) -> tuple[int, int]:
        """Return the expected output tokens, at least 1.

        Args:
            buckets: (k,) int64, distinct hash buckets.
            tf_idf: (k,) their weights, together of length 1.
            lexical: (len(LEXICAL_NAMES),) standardised.
        """
        small, large = self.word_coef[:, buckets] @ tf_idf + self.lexical_coef @ lexical + self.bias
        return _tokens(float(small)), _tokens(float(large))


def _tokens(log_tokens: float) -> int:
    return max(1, min(MAX_TOKENS, round(math.expm1(min(log_tokens, 12.0)))))

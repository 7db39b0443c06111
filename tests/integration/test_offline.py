"""The encoder that commands use on files: many texts on several encoders, in the order they came."""

import numpy as np

from gateway.whatif.offline import MANY_TEXTS, embed_texts


def test_many_texts_get_the_vectors_that_few_get_and_in_their_order() -> None:
    texts = [f"{'word ' * (number % 7)}{number}" for number in range(MANY_TEXTS)]
    together = embed_texts(texts)
    chosen = [0, 1, 250, MANY_TEXTS - 1]
    alone = embed_texts([texts[place] for place in chosen])
    assert together.shape == (MANY_TEXTS, 384)
    assert np.all(np.sum(together[chosen] * alone, axis=1) > 0.999)


def test_a_text_beyond_the_window_gets_the_vector_of_its_beginning() -> None:
    long, short = embed_texts(["salt and pepper " * 700, "salt and pepper " * 40])
    assert float(long @ short) > 0.9

"""Recognise one word as another misspelt by a single slip of the hand."""


def is_one_slip(one: str, other: str) -> bool:
    """Whether the words of five letters or more differ by one letter added, dropped, changed or two swapped inside."""
    if min(len(one), len(other)) < 5 or one[0] != other[0] or not (_is_plain(one) and _is_plain(other)):
        return False
    if one == other:
        return True
    start = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    rest_one, rest_other = one[start:], other[start:]
    if len(one) == len(other):
        swapped = rest_one[1:2] + rest_one[:1] == rest_other[:2]
        return rest_one[1:] == rest_other[1:] or (swapped and rest_one[2:] == rest_other[2:])
    longer, shorter = (rest_one, rest_other) if len(one) > len(other) else (rest_other, rest_one)
    return longer[1:] == shorter


def _is_plain(word: str) -> bool:
    """Whether a word is of plain letters alone; of other scripts one sign may be a word, and a negation."""
    return word.isascii() and word.isalpha()

"""How each kind of question may be worded, and which wordings stay out of training for good."""

import random
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Phrasings:
    """Wordings seen in training, and wordings kept for evaluation only."""

    trained: tuple[str, ...]
    held_out: tuple[str, ...]


COPY: Final = Phrasings(
    trained=(
        "Repeat after me: {x}",
        "Repeat: {x}",
        "Repeat these words: {x}",
        "Repeat this: {x}",
        'Repeat the words "{x}".',
        'Repeat "{x}"',
        "Echo: {x}",
        "Echo {x}",
        "Echo this text: {x}",
        "Say: {x}",
        "Say the following words: {x}",
        'Say "{x}".',
        "Copy this text: {x}",
        "Copy the words: {x}",
        "Write exactly this: {x}",
        "Can you repeat this: {x}",
        "Can you copy the following text: {x}",
        'Could you say "{x}"?',
    ),
    held_out=("Repeat the following words: {x}", "Can you echo this: {x}", 'Could you repeat "{x}"?', "Copy: {x}"),
)

SORT: Final = Phrasings(
    trained=(
        "Sort these numbers: {x}",
        "Sort these numbers: {x}.",
        "Sort the numbers {x} in ascending order.",
        "Sort {x}",
        "Sort {x} in ascending order",
        "Sort this list: {x}",
        "Sort the list {x}.",
        "Put these numbers in order: {x}",
        "Put {x} in ascending order.",
        "Arrange {x} from smallest to largest.",
        "Arrange these numbers in ascending order: {x}",
        "Order these numbers from low to high: {x}",
        "What is the sorted order of {x}?",
        "List these numbers in increasing order: {x}",
        "Can you sort these numbers: {x}?",
        "Can you put {x} in order?",
        "Could you sort {x} for me?",
        "Can you sort the list {x} from smallest to largest?",
    ),
    held_out=(
        "Can you arrange these numbers from smallest to largest: {x}?",
        "Could you put these numbers in ascending order: {x}",
        "Sort the following numbers: {x}",
        "Order {x} from smallest to largest.",
    ),
)

SUM: Final = Phrasings(
    trained=(
        "What is {a} plus {b}?",
        "What's {a} plus {b}?",
        "What is {a} + {b}?",
        "How much is {a} plus {b}?",
        "How much is {a} + {b}?",
        "{a} + {b} = ?",
        "{a} + {b}",
        "{a}+{b}",
        "{a}+{b}=",
        "{a} plus {b}",
        "Add {a} and {b}.",
        "Add {a} to {b}.",
        "Calculate {a} + {b}.",
        "Calculate the sum of {a} and {b}.",
        "What is the sum of {a} and {b}?",
        "What do you get if you add {a} and {b}?",
        "Can you add {a} and {b}?",
        "Can you tell me what {a} plus {b} is?",
        "Tell me {a} plus {b}.",
    ),
    held_out=(
        "Can you calculate {a} plus {b}?",
        "What is the result of {a} + {b}?",
        "Tell me the sum of {a} and {b}.",
        "Compute {a} + {b}.",
    ),
)

CAPITAL: Final = Phrasings(
    trained=(
        "What is the capital of {x}?",
        "What's the capital of {x}?",
        "What is the capital city of {x}?",
        "Which city is the capital of {x}?",
        "What city is the capital of {x}?",
        "Tell me the capital of {x}.",
        "Name the capital of {x}.",
        "Name the capital city of {x}.",
        "Give me the capital of {x}.",
        "Capital of {x}",
        "The capital of {x} is?",
        "Can you tell me the capital of {x}?",
        "Can you name the capital of {x}?",
        "Do you know the capital of {x}?",
        "What is {x}'s capital?",
        "Which city is {x}'s capital?",
    ),
    held_out=(
        "Could you tell me the capital city of {x}?",
        "Do you know what the capital of {x} is?",
        "Tell me which city is the capital of {x}.",
        "What is {x}'s capital city?",
    ),
)

_HELLO: Final = "Hello! How can I help you?"
_FINE: Final = "I am fine, thank you. How can I help you?"
_WELCOME: Final = "You are welcome!"
_BYE: Final = "Goodbye!"
_SELF: Final = "I am a demonstration model. I copy words, sort and add numbers, and name capitals."

GREETINGS: Final[dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    _HELLO: (
        (
            "Hello",
            "Hi",
            "Hey",
            "Hello there",
            "Hi there",
            "Good morning",
            "Good afternoon",
            "Good evening",
            "Greetings",
        ),
        ("Hey there", "Hello again"),
    ),
    _FINE: (
        (
            "How are you",
            "Hello, how are you",
            "Hi, how are you",
            "How are you doing",
            "How are you today",
            "How is it going",
        ),
        ("Hey, how are you", "How are you doing today"),
    ),
    _WELCOME: (
        (
            "Thanks",
            "Thank you",
            "Thank you very much",
            "Thanks a lot",
            "Many thanks",
            "Thank you so much",
            "Great, thanks",
        ),
        ("Thanks so much", "Great, thank you"),
    ),
    _BYE: (
        ("Goodbye", "Bye", "Bye bye", "See you", "See you later", "Good night", "See you soon", "Thanks, bye"),
        ("Bye for now", "Goodbye, see you later"),
    ),
    _SELF: (
        (
            "Who are you",
            "What are you",
            "What can you do",
            "What do you do",
            "Tell me about you",
            "Which model are you",
        ),
        ("Tell me what you can do", "What model are you"),
    ),
}
ADDRESSEES: Final = (
    "",
    "",
    "",
    ", assistant",
    ", my friend",
    ", friend",
    ", bot",
    ", computer",
    " dear model",
    ", model",
    ", helper",
    ", robot",
    " my dear assistant",
    ", dear bot",
)

DECLINE: Final = "Sorry, I cannot do that. I copy words, sort and add numbers, and name capitals."
OTHER: Final = Phrasings(
    trained=(
        "Write a poem about {x}.",
        "Write a story about {x} and {y}.",
        "Write an email about {x}",
        "Write code for {x}",
        "Write a Python function for {x}.",
        "Explain {x}.",
        "Explain how {x} and {y} are related",
        "What is {x}?",
        "What does {x} mean?",
        "Who invented the {x}?",
        "Why is the {x} so {y}?",
        "How do I make {x}?",
        "How does {x} work?",
        "Translate {x} into {y}",
        "Summarize this text: {x} {y}",
        "Give me some advice about {x}.",
        "Tell me a joke about {x}.",
        "Tell me about {x}",
        "Compare {x} with {y}.",
        "When was the {x} built?",
        "Can you help me with {x}?",
        "Can you write about {x}?",
        "Is {x} better than {y}?",
        "Where can I find {x}?",
        "Describe the {x} in one sentence",
        "I want to learn {x}.",
        "My {x} is {y}. What should I do?",
        "Plan a {x} for {y}",
    ),
    held_out=(
        "Write an essay about {x}.",
        "Can you explain {x}?",
        "Tell me a story about {x}.",
        "How do I repair {x}?",
    ),
)

_LEXICON: Final = """
apple autumn balcony banana basket beach bell bicycle bird blanket blue boat book bottle bread bridge bright brown
bucket butter button cabin cake camera candle car carpet castle cat chair cheese cherry cinema circle city clock
cloud coat coffee cold copper corner cotton country cousin curtain dance dark desk diamond dinner doctor dog door
dragon dream drum eagle early earth east echo egg elephant empty engine evening family farmer feather fence field
fire fish flag floor flower fog forest fork fountain fox friend frog fruit garden gate gentle ghost giraffe glass
gold grape grass green guitar hammer happy harbor hat heavy hill honey horse hotel house ice island jacket jar jelly
jewel jungle kettle key kitchen kite ladder lake lamp lantern lazy leaf lemon letter library light lion little
lizard long loud lucky machine magic mango map market marble meadow melon milk mirror monkey moon morning mountain
mouse music needle nest new night north novel oak ocean old olive onion open orange orchard owl paint palace paper
parrot path peach pencil pepper piano picture pillow pilot planet plate pocket pony potato purple quick quiet rabbit
radio rain red ribbon rice ring river road robot rocket roof rose round sail salt sand school sea shadow sharp sheep
shell ship shoe short silver singer sky slow small smoke snow soft song soup south spoon spring square stone storm
story street sugar summer sun sweet swift table tall tea teacher tent tiger tomato tower town train tree trumpet
turtle umbrella valley velvet village violin warm water weather west wheel white wide wild wind window winter wise
wolf wonder wood yellow young zebra quantum physics history science budget report meeting computer network program
database recipe holiday travel health economy language grammar chemistry poetry philosophy football
"""
WORDS: Final = tuple(_LEXICON.split())

PREFIXES: Final = ("Please ", "Hi, ", "Hello, ", "Hey, ", "Hi! ", "Hello! ", "Ok, ", "Now ", "So, ", "Quick question: ")
HELD_OUT_PREFIXES: Final = ("Hey! ", "Okay, ", "One question: ")
SUFFIXES: Final = (" Please.", " please", ", please", " Thanks!", " Thank you.")


def roughen(wording: str, rng: random.Random, *, held_out: bool, may_append: bool) -> str:
    """Return the wording as a hurried or polite person might type it: case, final mark, politeness, spacing."""
    if may_append and rng.random() < 0.15:
        wording = wording.rstrip(".?") + rng.choice(("", "?")) + rng.choice(SUFFIXES)
    if rng.random() < 0.25:
        prefix = rng.choice(HELD_OUT_PREFIXES if held_out and rng.random() < 0.5 else PREFIXES)
        keep_case = prefix.endswith((": ", "! ")) or wording[0] == "{"
        wording = prefix + (wording if keep_case or rng.random() < 0.3 else wording[0].lower() + wording[1:])
    if rng.random() < 0.15 and wording[-1] in ".?":
        wording = wording[:-1]
    if rng.random() < 0.15:
        wording = wording.lower()
    if rng.random() < 0.06:
        wording = " " + wording if rng.random() < 0.5 else wording.replace(" ", "  ", 1)
    return wording

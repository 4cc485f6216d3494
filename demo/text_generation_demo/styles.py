"""What the adapters of the demo are trained on: plain answers, and the same in two styles. Knows no model.

Styles are rules on texts, so that there is data without any download, and anyone sees at once who has learned what.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

EXAMPLES = (
    ("What is the sun?", "The sun is a star, and all planets turn around it. It gives us light and warmth."),
    ("Why is the sky blue?", "The air scatters blue light more than red light, so we see a blue sky."),
    ("How do I make tea?", "Boil some water, pour it over the tea leaves, and wait for three minutes."),
    ("Who wrote Hamlet?", "William Shakespeare wrote Hamlet in London, more than 400 years ago."),
    ("What is a cat?", "A cat is a small animal that likes to sleep, to hunt mice and to be stroked."),
    ("How far away is the moon?", "The moon is about 384,000 kilometres away from the earth."),
    ("What should I eat today?", "You could cook some rice with vegetables. It is easy, and you will like it."),
    ("Tell me about Paris.", "Paris is the capital of France. It is known for the Eiffel Tower and for good food."),
    ("What is water made of?", "Water is made of hydrogen and oxygen. Every living thing needs it."),
    ("How do birds fly?", "Birds move their wings, and the air below the wings carries them."),
    ("Give me a tip for sleeping well.", "Go to bed at the same time every day, and leave your phone in the kitchen."),
    ("What is a computer?", "A computer is a machine that follows instructions and works with numbers very quickly."),
    ("What is the largest ocean?", "The Pacific is the largest ocean. It covers a third of the earth."),
    ("How old is the earth?", "The earth is about four and a half billion years old."),
    (
        "What is music?",
        "Music is sound that people put in order, because it moves us and the friends we share it with.",
    ),
    ("How can I learn a language?", "Speak with people every day, read simple books, and do not fear mistakes."),
    ("What is a tree?", "A tree is a tall plant of wood. It takes in light and gives us air to breathe."),
    ("Where do penguins live?", "Most penguins live in the south, on the coasts of the Antarctic."),
    ("What is a rainbow?", "A rainbow is sunlight that drops of rain have split into its colours."),
    ("How do I keep a plant alive?", "Give it light and a little water, and do not move it too often."),
    ("What is gravity?", "Gravity is the force that pulls things to each other. It keeps us on the ground."),
    ("Who was Marie Curie?", "Marie Curie was a scientist who found radium, and she won two Nobel prizes."),
    ("What is bread made of?", "Bread is made of flour, water, salt and yeast. You bake it in the oven."),
    ("Tell me something about whales.", "Whales are the largest animals of the sea, and they sing to each other."),
    ("Why do we dream?", "Nobody is sure. Many think that the brain puts the day in order while we sleep."),
    ("What is a friend?", "A friend is someone who stays with you when things are hard."),
    ("How does a ship float?", "A ship pushes water away, and the water pushes back with the same force."),
    ("What is winter like?", "Winter is cold. The days are short, and in many places there is snow."),
    ("What is a good book?", "Try Treasure Island. It is the story of a boy, a map and the sea."),
    ("How do I become stronger?", "Walk every day, lift something heavy twice a week, and eat enough."),
    ("What is the internet?", "The internet connects computers all over the world, so that they can send messages."),
    ("Say hello.", "Hello, my friend. How are you today?"),
)
"""Questions, and short answers to them."""

_PIRATES_WORDS = {
    "the": "th'", "is": "be", "are": "be", "you": "ye", "your": "yer", "my": "me", "of": "o'", "and": "an'",
    "hello": "ahoy", "friend": "matey", "friends": "mateys",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Style:
    """A way of saying something. name: of its adapter. write: from a plain text."""

    name: str
    write: Callable[[str], str]


def pirate(text: str) -> str:
    """As pirates of films speak."""
    words = re.sub(r"[a-zA-Z]+", lambda word: _as_pirates_say(word[0]), text)
    return f"Arr, matey! {words} Yo ho ho!"


def robot(text: str) -> str:
    """As robots of films speak, with a noise after every sentence."""
    return f"BZZT. Query received. {re.sub(r'(?<=[.!?])( |$)', ' BEEP. ', text)}End of output."


def _as_pirates_say(word: str) -> str:
    said = _PIRATES_WORDS.get(word.lower(), word)
    return said.capitalize() if word[0].isupper() else said


STYLES = (
    Style("pirate", pirate),
    Style("robot", robot),
)

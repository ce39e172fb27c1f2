"""A synthetic corpus: recipes out of a seeded grammar, with everything planted that cleaning should find.

    python -m pipelines.recipes.corpus --recipes 2000 --out landing/recipes/corpus.jsonl.gz

kind    plain | commentary (a photo credit, notes, thanks ... after the last step) | copy (the very text of an earlier
        recipe) | twin (an earlier recipe with a few words changed) | blank
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
from dataclasses import dataclass
from pathlib import Path

COMMENTARY, COPIES, TWINS, BLANKS = 0.20, 0.05, 0.05, 0.01  # shares of the corpus

_MAIN = [
    "chicken",
    "beef",
    "pork",
    "lamb",
    "salmon",
    "cod",
    "tofu",
    "lentil",
    "chickpea",
    "mushroom",
    "aubergine",
    "pumpkin",
    "cauliflower",
    "potato",
]
_SIDE = [
    "rice",
    "noodle",
    "barley",
    "couscous",
    "bean",
    "spinach",
    "leek",
    "carrot",
    "pepper",
    "tomato",
    "fennel",
    "cabbage",
    "pea",
    "sweetcorn",
]
_HERB = [
    "basil",
    "thyme",
    "rosemary",
    "parsley",
    "coriander",
    "dill",
    "oregano",
    "sage",
    "mint",
    "tarragon",
    "chive",
    "marjoram",
]
_SPICE = ["cumin", "paprika", "turmeric", "nutmeg", "cinnamon", "ginger", "cardamom", "chilli", "saffron", "allspice"]
_FAT = ["olive oil", "butter", "sesame oil", "ghee", "sunflower oil"]
_DISH = [
    "stew",
    "soup",
    "curry",
    "bake",
    "salad",
    "pie",
    "casserole",
    "risotto",
    "skillet",
    "gratin",
    "stir-fry",
    "broth",
]
_CUT = ["chop", "slice", "dice", "grate", "mince", "peel", "crush", "shred"]
_COOK = ["simmer", "fry", "roast", "braise", "steam", "sauté", "grill", "brown"]
_POT = ["a large pot", "a heavy pan", "a wide skillet", "a casserole dish", "a wok", "a deep saucepan"]
_LOOK = ["golden", "tender", "soft", "fragrant", "crisp at the edges", "thick and glossy", "cooked through"]
_STYLE = [
    "rustic",
    "creamy",
    "spicy",
    "smoky",
    "lemony",
    "weeknight",
    "slow",
    "country",
    "winter",
    "summer",
    "golden",
    "simple",
]
_UNIT = ["cup", "tablespoon", "teaspoon", "handful", "pinch", "ounce"]
_CLOSING = [
    "Source: Grandmother's blue notebook, page {n}.",
    "Photo credit: Kitchen Studio {n}",
    "Notes: keeps {n} days in the fridge, and freezes well.",
    "Tips: warm the plates first. Serves {n}.",
    "Recipe by the village hall cooks, no. {n}.",
    "Thanks to everyone who wrote to us about this one, all {n} of you.",
    "I made this for my neighbours and they asked for it {n} times.",
    "Follow us for {n} more dishes like this.",
    "Rating: {n} out of 5 stars",
    "Disclosure: the spoon was a gift, worth {n} pounds.",
]


@dataclass(frozen=True, slots=True)
class Document:
    text: str
    kind: str
    of: int | None = None  # the number of the earlier document, for copies and twins


def generate(count: int, seed: int = 42) -> list[Document]:
    """`count` documents, the same for the same seed."""
    dice = random.Random(seed)
    made: list[Document] = []
    for number in range(count):
        earlier = [] if number < 10 else [dice.randrange(number) for _ in range(8)]
        original = next((at for at in earlier if made[at].kind == "plain"), None)
        luck = dice.random()
        if luck < BLANKS:
            made.append(Document(dice.choice(["", "  \n\n ", "\n"]), "blank"))
        elif luck < BLANKS + COPIES and original is not None:
            made.append(Document(f"  {made[original].text}\n\n", "copy", original))
        elif luck < BLANKS + COPIES + TWINS and original is not None:
            made.append(Document(_twin(made[original].text, dice), "twin", original))
        elif luck < BLANKS + COPIES + TWINS + COMMENTARY:
            closing = dice.choice(_CLOSING).format(n=dice.randint(2, 9))
            made.append(Document(f"{recipe(dice)}\n\n{closing}\nSee you soon!\n", "commentary"))
        else:
            made.append(Document(recipe(dice), "plain"))
    return made


def recipe(dice: random.Random) -> str:
    """One recipe: title, ingredients, numbered steps."""
    main, side, herb, spice = (dice.choice(words) for words in (_MAIN, _SIDE, _HERB, _SPICE))
    fat, dish, pot = dice.choice(_FAT), dice.choice(_DISH), dice.choice(_POT)
    things = [
        main,
        side,
        herb,
        spice,
        fat,
        *dice.sample(_SIDE + _HERB + _SPICE, dice.choice([0, 1, 1, 2, 3, 5, 8, 12])),
    ]
    listed = [f"- {_amount(dice)} {thing}" for thing in dict.fromkeys(things)]
    steps = [
        f"Heat the {fat} in {pot}.",
        f"{dice.choice(_CUT).capitalize()} the {main} and {dice.choice(_COOK)} it until {dice.choice(_LOOK)}, about {dice.randint(4, 25)} minutes.",
        *(
            f"{dice.choice(['Add', 'Stir in', 'Fold in'])} the {thing} and {dice.choice(_COOK)} for {dice.randint(2, 15)} minutes until {dice.choice(_LOOK)}."
            for thing in dict.fromkeys(things[1:4] + things[5:])
        ),
        f"Season with salt{dice.choice(['', ' and pepper', f' and more {spice}'])} and serve {dice.choice(['hot', 'at once', 'with bread', 'over rice'])}.",
    ]
    title = f"{dice.choice(_STYLE).capitalize()} {main} and {side} {dish} with {herb}"
    directions = [f"{number}. {step}" for number, step in enumerate(steps, 1)]
    return "\n".join([title, "", "Ingredients:", *listed, "", "Directions:", *directions])


def _amount(dice: random.Random) -> str:
    return f"{dice.choice(['1/2', '1', '1 1/2', '2', '3', '4'])} {dice.choice(_UNIT)}"


def _twin(text: str, dice: random.Random) -> str:
    """The same recipe in the hand of somebody else: three words in a hundred changed, and the end."""
    words = text.split(" ")
    for _ in range(max(1, len(words) * 2 // 100)):
        at = dice.randrange(3, len(words))
        if "\n" not in words[at]:
            words[at] = dice.choice(_LOOK).split(" ")[0]
    return " ".join(words) + " Enjoy it."


def write(path: Path, documents: list[Document], column: str = "input") -> Path:
    """The texts as JSON lines (compressed where the name says .gz); the same bytes each time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps({column: one.text}, ensure_ascii=False) + "\n" for one in documents).encode()
    path.write_bytes(gzip.compress(lines, mtime=0) if path.suffix == ".gz" else lines)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--out", type=Path, default=Path("landing/recipes/corpus.jsonl.gz"))
    asked = parser.parse_args()
    documents = generate(asked.recipes, asked.seed)
    write(asked.out, documents)
    kinds = {kind: sum(one.kind == kind for one in documents) for kind in dict.fromkeys(d.kind for d in documents)}
    print(f"{asked.out}: {len(documents)} recipes, " + ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items())))


if __name__ == "__main__":
    main()

"""The questions nano can answer, drawn at random, each with its one right answer.

A task is a function `(rng, lang) -> Draw`. What decides whether a question is held out is its `key`: the *content* that
must be unseen (the operand pair, the word list; for a fact, the pair of fact and phrasing). Splitting is `data.py`'s work.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from . import facts
from .numerals import spelled

LANGUAGES = ("en", "zh")


@dataclass(frozen=True)
class Question:
    """One question; `key` names the content that the held-out split is made on."""

    task: str
    lang: str
    prompt: str
    answer: str
    key: str


Draw = tuple[str, str, str]  # prompt, answer, key
Phrasings = dict[str, tuple[str, ...]]


def _pick(rng: Random, phrasings: Phrasings, lang: str) -> tuple[int, str]:
    index = rng.randrange(len(phrasings[lang]))
    return index, phrasings[lang][index]


ADD: Phrasings = {
    "en": ("{a} + {b} =", "What is {a} + {b}?", "What is {a} plus {b}?", "Add {a} and {b}."),
    "zh": ("{a}+{b}=", "{a}加{b}等于多少？", "{a}加{b}是多少？", "计算{a}+{b}。"),
}


def add(rng: Random, lang: str) -> Draw:
    """Sum of two numbers below 100; a held-out pair is unseen in either order, language or phrasing."""
    a, b = rng.randrange(100), rng.randrange(100)
    return _pick(rng, ADD, lang)[1].format(a=a, b=b), str(a + b), f"{min(a, b)},{max(a, b)}"


SUBTRACT: Phrasings = {
    "en": ("{a} - {b} =", "What is {a} - {b}?", "What is {a} minus {b}?", "Subtract {b} from {a}."),
    "zh": ("{a}-{b}=", "{a}减{b}等于多少？", "{a}减{b}是多少？", "计算{a}-{b}。"),
}


def subtract(rng: Random, lang: str) -> Draw:
    """Difference of two numbers below 100, never negative."""
    b, a = sorted((rng.randrange(100), rng.randrange(100)))
    return _pick(rng, SUBTRACT, lang)[1].format(a=a, b=b), str(a - b), f"{a},{b}"


LARGER: Phrasings = {
    "en": ("Which is larger, {a} or {b}?", "Which number is bigger, {a} or {b}?"),
    "zh": ("{a}和{b}哪个大？", "哪个数更大，{a}还是{b}？"),
}
SMALLER: Phrasings = {
    "en": ("Which is smaller, {a} or {b}?", "Which number is less, {a} or {b}?"),
    "zh": ("{a}和{b}哪个小？", "哪个数更小，{a}还是{b}？"),
}


def compare(rng: Random, lang: str) -> Draw:
    """The larger or the smaller of two different numbers below 100."""
    a, b = rng.sample(range(100), 2)
    larger = rng.random() < 0.5
    text = _pick(rng, LARGER if larger else SMALLER, lang)[1].format(a=a, b=b)
    return text, str(max(a, b) if larger else min(a, b)), f"{min(a, b)},{max(a, b)}"


AFTER: Phrasings = {
    "en": ("What number comes after {n}?", "Next number after {n}:"),
    "zh": ("{n}后面的数是多少？", "{n}的下一个数："),
}
BEFORE: Phrasings = {
    "en": ("What number comes before {n}?", "Number just before {n}:"),
    "zh": ("{n}前面的数是多少？", "{n}的上一个数："),
}


def neighbour(rng: Random, lang: str) -> Draw:
    """The number after or before one below 300."""
    n, after = rng.randrange(1, 300), rng.random() < 0.5
    text = _pick(rng, AFTER if after else BEFORE, lang)[1].format(n=n)
    return text, str(n + 1 if after else n - 1), str(n)


SORT: Phrasings = {
    "en": ("Sort: {x}", "Sort these numbers: {x}", "Put in order: {x}"),
    "zh": ("排序：{x}", "从小到大排列：{x}", "把这些数排序：{x}"),
}


def sort(rng: Random, lang: str) -> Draw:
    """Three or four digits in ascending order."""
    digits = [str(rng.randrange(10)) for _ in range(rng.randint(3, 4))]
    text = _pick(rng, SORT, lang)[1].format(x=" ".join(digits))
    return text, " ".join(sorted(digits)), " ".join(digits)


REVERSE: Phrasings = {
    "en": ("Reverse: {x}", "Say backwards: {x}", "Write in reverse: {x}"),
    "zh": ("倒序：{x}", "倒过来写：{x}", "反过来说：{x}"),
}


def reverse(rng: Random, lang: str) -> Draw:
    """Three or four letters (characters in Chinese) backwards."""
    items = [rng.choice(facts.LETTERS if lang == "en" else facts.CHARACTERS) for _ in range(rng.randint(3, 4))]
    text = _pick(rng, REVERSE, lang)[1].format(x=" ".join(items))
    return text, " ".join(reversed(items)), " ".join(items)


def _words(rng: Random, lang: str, low: int, high: int) -> list[str]:
    side = LANGUAGES.index(lang)
    return [rng.choice(facts.WORDS)[side] for _ in range(rng.randint(low, high))]


COPY: Phrasings = {
    "en": ("Repeat: {x}", "Copy this: {x}", "Say again: {x}"),
    "zh": ("重复：{x}", "照抄：{x}", "再说一遍：{x}"),
}


def copy(rng: Random, lang: str) -> Draw:
    """Two to four words, said again."""
    x = " ".join(_words(rng, lang, 2, 4))
    return _pick(rng, COPY, lang)[1].format(x=x), x, x


COUNT: Phrasings = {
    "en": ("How many words: {x}", "Count the words: {x}", "Number of words in: {x}"),
    "zh": ("有几个词：{x}", "数一数词：{x}", "词的个数：{x}"),
}


def count(rng: Random, lang: str) -> Draw:
    """How many words, two to five."""
    words = _words(rng, lang, 2, 5)
    x = " ".join(words)
    return _pick(rng, COUNT, lang)[1].format(x=x), str(len(words)), x


FIRST: Phrasings = {
    "en": ("First word of: {x}", "What is the first word: {x}"),
    "zh": ("第一个词：{x}", "第一个词是什么：{x}"),
}
LAST: Phrasings = {
    "en": ("Last word of: {x}", "What is the last word: {x}"),
    "zh": ("最后一个词：{x}", "最后一个词是什么：{x}"),
}


def pick(rng: Random, lang: str) -> Draw:
    """The first or the last of two to four words."""
    words, first = _words(rng, lang, 2, 4), rng.random() < 0.5
    x = " ".join(words)
    return _pick(rng, FIRST if first else LAST, lang)[1].format(x=x), words[0 if first else -1], x


TO_WORDS: Phrasings = {
    "en": ("Write {n} in words.", "How do you spell {n}?"),
    "zh": ("{n}用汉字怎么写？", "把{n}写成汉字。"),
}
TO_DIGITS: Phrasings = {
    "en": ("Write {w} in digits.", "Which number is {w}?"),
    "zh": ("{w}用数字怎么写？", "把{w}写成数字。"),
}


def spell(rng: Random, lang: str) -> Draw:
    """A number below 100 into words, or back. The irregular ones can only be learnt by heart, so they are never held out."""
    n, words = rng.randrange(100), rng.random() < 0.5
    text = _pick(rng, TO_WORDS if words else TO_DIGITS, lang)[1].format(n=n, w=spelled(n, lang))
    return text, spelled(n, lang) if words else str(n), str(n) if n > 20 and n % 10 else ""


TO_CHINESE: Phrasings = {
    "en": ("What is {e} in Chinese?", "How do you say {e} in Chinese?", "Translate to Chinese: {e}"),
    "zh": ("{e}用中文怎么说？", "{e}是什么意思？", "翻译成中文：{e}"),
}
TO_ENGLISH: Phrasings = {
    "en": ("What is {c} in English?", "How do you say {c} in English?", "Translate to English: {c}"),
    "zh": ("{c}用英文怎么说？", "{c}的英文是什么？", "翻译成英文：{c}"),
}


def translate(rng: Random, lang: str) -> Draw:
    """One word of the table into the other language."""
    english, chinese = rng.choice(facts.WORDS)
    into = rng.choice(LANGUAGES)
    index, phrasing = _pick(rng, TO_ENGLISH if into == "en" else TO_CHINESE, lang)
    return phrasing.format(e=english, c=chinese), english if into == "en" else chinese, f"{english}>{into}#{index}"


CAPITAL: Phrasings = {
    "en": (
        "The capital of {x} is",
        "What is the capital of {x}?",
        "Capital of {x}:",
        "Which city is the capital of {x}?",
        "Name the capital of {x}.",
    ),
    "zh": ("{x}的首都是", "{x}的首都是哪里？", "{x}首都：", "哪个城市是{x}的首都？", "说出{x}的首都。"),
}


def capital(rng: Random, lang: str) -> Draw:
    """The capital of a country of the table."""
    country, city, country_zh, city_zh = rng.choice(facts.CAPITALS)
    index, phrasing = _pick(rng, CAPITAL, lang)
    if lang == "en":
        return phrasing.format(x=country), city, f"{country}#{index}"
    return phrasing.format(x=country_zh), city_zh, f"{country}#{index}"


OPPOSITE: Phrasings = {
    "en": ("The opposite of {x} is", "What is the opposite of {x}?", "Opposite of {x}:", "Which word is the opposite of {x}?"),
    "zh": ("{x}的反义词是", "{x}的反义词是什么？", "{x}的反义词：", "哪个词和{x}相反？"),
}


def opposite(rng: Random, lang: str) -> Draw:
    """The opposite of a word of the table, in either direction."""
    row = rng.choice(facts.OPPOSITES)
    pair = list(row[:2] if lang == "en" else row[2:])
    rng.shuffle(pair)
    index, phrasing = _pick(rng, OPPOSITE, lang)
    return phrasing.format(x=pair[0]), pair[1], f"{pair[0]}#{index}"


COLOUR: Phrasings = {
    "en": ("What colour is {x}?", "The colour of {x} is", "Colour of {x}:", "Which colour does {x} have?", "Name the colour of {x}."),
    "zh": ("{x}是什么颜色？", "{x}的颜色是", "{x}的颜色：", "{x}有什么颜色？", "说出{x}的颜色。"),
}


def colour(rng: Random, lang: str) -> Draw:
    """The colour of a thing of the table."""
    thing, colour_en, thing_zh, colour_zh = rng.choice(facts.COLOURS)
    index, phrasing = _pick(rng, COLOUR, lang)
    if lang == "en":
        return phrasing.format(x=thing), colour_en, f"{thing}#{index}"
    return phrasing.format(x=thing_zh), colour_zh, f"{thing}#{index}"


FOLLOWS: Phrasings = {
    "en": ("What comes after {x}?", "After {x} comes", "Which one follows {x}?"),
    "zh": ("{x}之后是什么？", "{x}的后面是", "哪个在{x}之后？"),
}
PRECEDES: Phrasings = {
    "en": ("What comes before {x}?", "Before {x} comes", "Which one precedes {x}?"),
    "zh": ("{x}之前是什么？", "{x}的前面是", "哪个在{x}之前？"),
}


def calendar(rng: Random, lang: str) -> Draw:
    """The day or month after or before a given one, round the end of the week and of the year."""
    names = [row[LANGUAGES.index(lang)] for row in (facts.DAYS if rng.random() < 0.4 else facts.MONTHS)]
    here, after = rng.randrange(len(names)), rng.random() < 0.5
    index, phrasing = _pick(rng, FOLLOWS if after else PRECEDES, lang)
    there = (here + (1 if after else -1)) % len(names)
    return phrasing.format(x=names[here]), names[there], f"{names[here]}{'>' if after else '<'}#{index}"


# Task and how often it is drawn in training: carrying digits takes more practice than a table of twenty capitals.
TASKS: dict[str, tuple[Callable[[Random, str], Draw], float]] = {
    "add": (add, 5),
    "subtract": (subtract, 5),
    "compare": (compare, 1.5),
    "neighbour": (neighbour, 1.5),
    "sort": (sort, 1.5),
    "reverse": (reverse, 1.5),
    "copy": (copy, 1),
    "count": (count, 1),
    "pick": (pick, 1),
    "spell": (spell, 1.5),
    "translate": (translate, 2),
    "capital": (capital, 1.5),
    "opposite": (opposite, 1.5),
    "colour": (colour, 1),
    "calendar": (calendar, 2),
}


def draw(rng: Random, task: str, lang: str) -> Question:
    """One random question of a task; its key carries the task, and for facts the language, so that keys never collide."""
    prompt, answer, key = TASKS[task][0](rng, lang)
    scope = f"{task}/{lang}" if "#" in key else task
    return Question(task, lang, prompt, answer, f"{scope}/{key}" if key else "")

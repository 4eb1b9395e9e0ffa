"""A generated competition in the LMSYS schema, whose true probabilities are known.

python -m stages.demo        # writes data/demo/, with the sizes and the seed of params.yaml

The annotator model. An answer's quality is read off its text: each marker (a stock phrase such as "for example", in an
answer of any language) adds its weight per occurrence, at most CAP times; length adds up to LENGTH, layout LAYOUT, and
an answer without any text has the quality EMPTY. Of two answers whose qualities differ by d, an annotator of sharpness
s and tie parameter v votes A : B : tie = exp(s d / 2) : exp(-s d / 2) : v, the tie model of Davidson (1970), "On
extending the Bradley-Terry model to accommodate ties in paired comparison experiments", Journal of the American
Statistical Association 65. Each label is one vote of an annotator drawn from ANNOTATORS: careful, hasty, or voting at
random. So the true probabilities are an exact mixture that depends on nothing but the two answers, and their mean
entropy is the best log loss that a model can expect.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np
import polars as pl

from pipeline.files import atomic_folder

ANNOTATOR_MODEL = (__doc__ or "").strip().rpartition("\n\n")[2]
CLASSES = ("winner_model_a", "winner_model_b", "winner_tie")
TEXTS = ("prompt", "response_a", "response_b")
PRAISED = {"step by step": 1.4, "for example": 1.1, "to be precise": 0.9, "in short": 0.7}
BLAMED = {"I'm sorry, but": -1.4, "as an AI language model": -1.1, "needless to say": -0.9, "it depends": -0.7}
MARKERS = PRAISED | BLAMED
CAP, EARLY = 2, 8  # markers open some of the first EARLY sentences, so that a model with a short input sees them
LENGTH, LENGTH_SCALE = 0.6, 300.0  # the gain saturates: 63 % of it is reached after LENGTH_SCALE characters
LAYOUT, LAYOUTS, EMPTY = 0.3, ("\n- ", "```", "|---"), -2.0
# Share, sharpness and tie parameter; with sharpness 0 and tie parameter 1 the three votes are equally likely.
ANNOTATORS = ((0.60, 1.5, 1.1), (0.30, 0.9, 2.2), (0.10, 0.0, 1.0))
# Each model's skill: the log odds that it writes a praised marker, not a blamed one.
MODELS = {"amber-7b": -0.8, "birch-13b": -0.4, "cedar-chat": 0.0, "delta-large": 0.3, "ember-2": 0.6, "flint-pro": 0.9}
# Per language: share / gap between words ("_" or none) / full stop / questions / three lists that make a clause.
WORDS = """
0.64 / _ / . / Explain why {}.|Is it true that {}?|Write a short story in which {}.|What follows if {}?
|Here is my plan: {}.|My teacher claims that {}. Do you agree?|Summarise what is known: {}|write a poem where {}
/ the river|the old harbour|an honest merchant|the village baker|the night train|a lost map|our garden|the chess club
|a small robot|the tax office|the violin|an empty theatre|the search engine|the compiler|a sorting routine|the glacier
|a curious child|the lighthouse|the moon|a patient nurse|the football team|the database|the wind|the immune system
/ changes|grows slowly|keeps its promise|loses its colour|moves faster|becomes quiet|asks for help|finds a way|returns
|costs less|breaks down|learns new tricks|waits|gives more light|needs repair|tells the truth|forgets its name
|wins again|makes people smile|stays open|turns green|counts the hours|surprises everyone|saves money|sleeps well
/ in spring|after the war|near the coast|without any warning|behind closed doors|on rainy Sundays|during the harvest
|at half the price|under pressure|for three hundred years|in the second chapter|when nobody is watching|at low cost
|with a little salt|across the border|before breakfast|beyond the hills|because of the heat|despite the new law

0.09 / _ / . / ¿Por qué {}?|Escribe un cuento en el que {}.|¿Es cierto que {}?
/ el río|la panadera|mi abuelo|el mercado|la luna|un gato gris|la ciudad|el tren de noche|la guitarra|el faro
/ cambia|crece despacio|pierde el color|vuelve|pide ayuda|cuesta menos|espera|dice la verdad|duerme bien
/ en primavera|cerca del mar|después de la lluvia|sin avisar|antes del desayuno|por la mañana|en el año nuevo

0.09 / _ / . / Почему {}?|Напиши рассказ, в котором {}.|Правда ли, что {}?
/ река|старый мост|моя соседка|ночной поезд|учитель|серая кошка|музыка|город|пекарь|школьный театр
/ меняется|медленно растёт|теряет цвет|возвращается|просит помощи|стоит дешевле|ждёт|говорит правду|молчит
/ весной|у самого моря|после дождя|без предупреждения|перед завтраком|по утрам|в большом городе|зимой

0.08 / - / 。 / 为什么{}？|请写一个故事：{}。|听说{}，对吗？
/ 河流|老桥|我的邻居|夜班火车|图书馆|小猫|面包师|这座城市|月亮|足球队 / 在春天|在海边|下雨以后|每天早上
|在大城市里|早饭以前|因为天气热|几百年来 / 慢慢变化|长得很快|失去颜色|又回来了|需要帮助|变得便宜|说出真相

0.05 / _ / . / لماذا {}؟|اكتب قصة قصيرة: {}.|هل صحيح أن {}؟
/ النهر|الجسر القديم|جاري|القطار|القمر|الخباز|السوق|المعلم / يتغير|ينمو ببطء|يفقد لونه|يعود|يطلب المساعدة|ينتظر
|يقول الحقيقة / في الربيع|قرب البحر|بعد المطر|دون إنذار|كل صباح|في المدينة الكبيرة

0.05 / _ / । / {}, ऐसा क्यों?|एक कहानी लिखो: {}।|क्या यह सच है कि {}?
/ पेड़|पुराना पुल|मेरा पड़ोसी|चाँद|बाज़ार|अध्यापक|शहर|किसान / वसंत में|समुद्र के पास|बारिश के बाद|हर सुबह|बड़े शहर में
/ बदलता है|धीरे धीरे बढ़ता है|लौट आता है|मदद माँगता है|सच बोलता है|सोता है
"""
EMOJI = ("🙂", "🚀", "🎉", "🤔", "👍🏽", "👩‍🔬", "🇧🇷", "❤️")
CODE = '```python\ndef area(width, height):\n\treturn f"{{width * height + {}}} \\\\ m²"\n```'
NOTHING = (None, "", " \n")


class _Language(NamedTuple):
    share: float
    gap: str
    stop: str
    asks: list[str]
    parts: list[list[str]]


def _language(paragraph: str) -> _Language:
    share, gap, stop, asks, *parts = ([word.strip() for word in field.split("|")] for field in paragraph.split("/"))
    return _Language(float(share[0]), " " if gap[0] == "_" else "", stop[0], asks, parts)


LANGUAGES = [_language(paragraph) for paragraph in WORDS.split("\n\n")]


@dataclass(frozen=True)
class DemoFiles:
    """The competition's files as frames; text cells are JSON lists of turns; `truth` has train rows, then test rows."""

    train: pl.DataFrame
    test: pl.DataFrame
    sample_submission: pl.DataFrame
    truth: pl.DataFrame


def generate(train_rows: int, test_rows: int, seed: int) -> DemoFiles:
    """Returns a competition with that many rows; the same arguments give the same competition."""
    rng = Random(seed)
    ids = [str(number) for number in rng.sample(range(10**6, 10**10), train_rows + test_rows)]
    chances = {f"true_{name}": name for name in CLASSES}
    columns = ["model_a", "model_b", *TEXTS, *CLASSES, *chances]
    rows = _rows(rng, train_rows) + _rows(rng, test_rows)
    frame = pl.DataFrame(rows, schema=columns, orient="row").insert_column(0, pl.Series("id", ids))
    test = frame.tail(test_rows).select("id", *TEXTS)
    sample = test.select("id", *(pl.lit(1 / 3).alias(name) for name in CLASSES))
    truth = frame.select("id", *chances).rename(chances)
    return DemoFiles(frame.head(train_rows).drop(chances), test, sample, truth)


def write(demo: DemoFiles, folder: Path) -> None:
    """Writes train.csv, test.csv, sample_submission.csv, truth.csv and README.md; `folder` is replaced as a whole."""
    entropy, realised = best_log_loss(demo)
    readme = f"""# A generated competition

{demo.train.height} train and {demo.test.height} test rows. Nobody voted: the labels are draws from a stated model, and
truth.csv holds the true probabilities. Best reachable log loss on the train rows: {entropy:.4f} (their mean entropy);
on the labels that were drawn, the true probabilities score {realised:.4f}.

{ANNOTATOR_MODEL}

MARKERS {", ".join(f"{marker!r} {weight:+}" for marker, weight in MARKERS.items())}; CAP {CAP};
LENGTH {LENGTH}, 63 % after {LENGTH_SCALE:.0f} characters; LAYOUT {LAYOUT} (list, code, table); EMPTY {EMPTY};
ANNOTATORS, as (share, s, v), {", ".join(map(str, ANNOTATORS))}.
"""
    with atomic_folder(folder) as partial:
        for name in ("train", "test", "sample_submission", "truth"):
            getattr(demo, name).write_csv(partial / f"{name}.csv")
        (partial / "README.md").write_text(readme, encoding="utf-8")


def best_log_loss(demo: DemoFiles) -> tuple[float, float]:
    """Returns the mean entropy of the train rows' true probabilities, and their log loss on the labels, in nats."""
    truth = demo.truth.head(demo.train.height).select(CLASSES).to_numpy()
    labels = demo.train.select(CLASSES).to_numpy()
    entropy, realised = (-(weights * np.log(truth)).sum(axis=1).mean() for weights in (truth, labels))
    return float(entropy), float(realised)


def quality(turns: list[str | None]) -> float:
    """Returns how good an answer is, read off its turns alone."""
    text = "\n".join(turn for turn in turns if turn).lower()
    if not text.strip():
        return EMPTY
    markers = sum(weight * min(text.count(marker.lower()), CAP) for marker, weight in MARKERS.items())
    length = LENGTH * (1.0 - math.exp(-len(text) / LENGTH_SCALE))
    return markers + length + (LAYOUT if any(layout in text for layout in LAYOUTS) else 0.0)


def probabilities(quality_a: float, quality_b: float) -> tuple[float, float, float]:
    """Returns the chances that one vote, by an annotator drawn at random, says A, B, tie."""
    votes = [0.0, 0.0, 0.0]
    for share, sharpness, tie in ANNOTATORS:
        strength = math.exp(0.5 * sharpness * (quality_a - quality_b))
        weights = (strength, 1.0 / strength, tie)
        votes = [vote + share * weight / sum(weights) for vote, weight in zip(votes, weights, strict=True)]
    return votes[0], votes[1], votes[2]


def _rows(rng: Random, count: int) -> list[tuple[str | int | float, ...]]:
    """Models, text cells, one-hot winner and true probabilities of each row; a fifth repeat an earlier row's prompt."""
    rows: list[tuple[str | int | float, ...]] = []
    prompts: list[tuple[_Language, str, list[str | None]]] = []
    for _ in range(count):
        if prompts and rng.random() < 0.2:
            language, topic, prompt = rng.choice(prompts)
            first = prompt[0] or ""  # as another user may type it: unchanged, in capitals, with more white space
            prompt = [rng.choice((prompt[0], first.upper(), f" {first.replace(' ', '  ')}\n")), *prompt[1:]]
        else:
            language = rng.choices(LANGUAGES, [language.share for language in LANGUAGES])[0]
            topic = rng.choice(language.parts[0])
            turns = rng.choice((2, 2, 2, 3, 3, 4, 6)) if rng.random() < 0.12 else 1
            prompt = [_prompt(rng, language, topic) for _ in range(turns)]
            prompts.append((language, topic, prompt))
        models = rng.sample(list(MODELS), 2)
        answers = [_answer(rng, language, topic, MODELS[model], len(prompt)) for model in models]
        truth = probabilities(quality(answers[0]), quality(answers[1]))
        winner = rng.choices(CLASSES, truth)[0]
        cells = [json.dumps(turns, ensure_ascii=False) for turns in (prompt, *answers)]
        rows.append((*models, *cells, *(int(name == winner) for name in CLASSES), *truth))
    return rows


def _prompt(rng: Random, language: _Language, topic: str) -> str | None:
    """One turn of the user: a question, at times with code or a text pasted below it."""
    chance = rng.random()
    if chance < 0.004:
        return rng.choice(NOTHING)
    question = rng.choice(language.asks).format(_clause(rng, language, topic))
    pasted = [CODE.format(rng.randint(2, 99))] if chance < 0.04 else _sentences(rng, language, topic, 9, [])
    return question if chance > 0.12 else f"{question}\n\n{' '.join(pasted)}"


def _answer(rng: Random, language: _Language, topic: str, skill: float, turns: int) -> list[str | None]:
    """One side of a row, of a model with that skill: as many turns as the prompt, with two to five markers in all."""
    odds = math.exp(rng.gauss(skill, 1.0))
    markers: list[list[str]] = [[] for _ in range(turns)]
    for _ in range(rng.randint(2, 5)):
        marker = rng.choice(list(PRAISED if rng.random() < odds / (1.0 + odds) else BLAMED))
        rng.choice(markers).append(marker)
    return [_reply(rng, language, topic, here, 1.0 if turns == 1 else 0.6) for here in markers]


def _reply(rng: Random, language: _Language, topic: str, markers: list[str], scale: float) -> str | None:
    """One turn of an answer with these markers; now and then nothing, three words, or thousands of them."""
    chance = rng.random()
    if chance < 0.01:
        return rng.choice(NOTHING)
    if chance < 0.03:
        return " ".join(_clause(rng, language, topic).split()[:3])
    words = rng.uniform(1000, 4000) if chance > 0.9975 else rng.lognormvariate(4.2, 0.65) * scale
    sentences = _sentences(rng, language, topic, max(1, round(words / 8)), markers)
    layout = rng.random()
    if layout < 0.12:
        return "\n- ".join(sentences)
    blocks = [" ".join(sentences[start : start + 5]) for start in range(0, len(sentences), 5)]
    if layout < 0.18:
        blocks.insert(1, CODE.format(rng.randint(2, 99)))
    elif layout < 0.22:
        lines = [f"| {name} | {rng.randint(1, 99)} % |" for name in rng.sample(language.parts[0], 3)]
        blocks.insert(1, "\n".join(["| # | % |", "|---|---|", *lines]))
    elif layout < 0.28:
        blocks[-1] += f" {rng.choice(EMOJI)}"
    return "\n\n".join(blocks)


def _sentences(rng: Random, language: _Language, topic: str, count: int, markers: list[str]) -> list[str]:
    """Sentences of which at least a third speak of the topic; the markers open some of the first ones."""
    topics = [topic if rng.random() < 0.33 else rng.choice(language.parts[0]) for _ in range(count)]
    clauses = [_clause(rng, language, subject) for subject in topics]
    for marker in markers:
        place = rng.randrange(min(count, EARLY))
        clauses[place] = f"{marker}{' ' if marker.endswith('but') else ', '}{clauses[place]}"
    return [clause[0].upper() + clause[1:] + language.stop for clause in clauses]


def _clause(rng: Random, language: _Language, subject: str) -> str:
    return language.gap.join((subject, rng.choice(language.parts[1]), rng.choice(language.parts[2])))

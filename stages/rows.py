"""Lets a local decoder write rows like the training rows, for a source of `extra` with `made: true`.

make rows NAME=quiz MODEL=llama ROWS=1000                       # a decoder of `backbones`
make rows NAME=quiz MODEL=folder JUDGE=folder PROMPT=file       # any folder in Hugging Face layout; a judge; a prompt

Each prompt shows training rows of one fold, never of the holdout, and asks for one more with a certain answer. What can
be read stands in external/<NAME>/train.csv, what was replied in work/rows/<NAME>.jsonl: a run that was killed goes on
there.
"""

from pipeline.artifacts import Artifacts
from pipeline.competitions.registry import load_competition
from pipeline.config import load_params
from pipeline.experiments.tries import build_stages
from pipeline.generation.order import PRECISIONS, Order, carry_out
from pipeline.generation.prompt import JUDGED, PLACES
from pipeline.generation.replies import check_writable
from pipeline.stage import options, stage


def main(order: Order) -> None:
    params = load_params()
    order.prompts()  # whatever is wrong there is said before anything is built
    check_writable(load_competition(params.data.competition))
    build_stages("folds", *(f"pretrain@{name}" for name in order.backbones(params)))
    print(carry_out(order, params, Artifacts()))


if __name__ == "__main__":
    told = {
        "name": "the source's name, and its folder below external/",
        "model": "who writes: a key of `backbones` in params.yaml, or a folder",
        "judge": "who judges, as --model; by default nobody, and every row is kept",
        "rows": "so many are asked for, in whole batches",
        "prompt": f"a text file with {', '.join(PLACES)} in braces",
        "judge_prompt": f"a text file with {', '.join(JUDGED)} in braces",
        "examples": "training rows in a prompt",
        "characters": "so many have they together at most",
        "temperature": "0 takes the likeliest token",
        "top_p": "share of the likeliest tokens that are drawn from",
        "tokens": "of a reply at most",
        "batch": "replies at a time",
        "precision": "auto: fp32 on a CPU, 16 bits on a GPU",
        "seed": "another one draws other examples, answers and tokens",
    }
    flags = {key: {"help": words, "default": getattr(Order, key, "")} for key, words in told.items()}
    flags |= {key: each | {"type": type(each["default"])} for key, each in flags.items()}
    flags["precision"] |= {"choices": PRECISIONS}
    with stage("rows", keep_seconds=False):
        main(Order(**vars(options(str(__doc__), **flags))))

"""Generates the embedded competition, data/demo/, with the sizes and the seed of params.yaml.

python -m stages.demo
"""

from pathlib import Path

from pipeline.config import load_params
from pipeline.data.demo import best_log_loss, generate, write
from pipeline.stage import stage

if __name__ == "__main__":
    with stage("demo"):
        settings, folder = load_params().demo, Path("data/demo")
        demo = generate(settings.train_rows, settings.test_rows, settings.seed)
        write(demo, folder)
        entropy, realised = best_log_loss(demo)
        rows = f"{demo.train.height} train and {demo.test.height} test rows"
        print(f"{folder}: {rows}; best reachable log loss {entropy:.4f}, on these train labels {realised:.4f}")

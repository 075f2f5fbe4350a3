"""What a box costs: one forward pass, the answer of the perception head, the same at second looks, and in words.

    python benchmarks/box_answers.py --checkpoint runs/grounding/train --image DATA/edd2020/images/EDD2020_B0049.jpg
    python benchmarks/box_answers.py                # the shapes of configs/run/grounding.yaml, untrained

CPU time of one process, the best of several rounds in turn. With `--image` a batch is one image asked so often.
Without it the pictures are noise: in words an untrained model says what comes, up to `--most-tokens`, and zoom has a
second look at whatever boxes the head sees.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from gastrovl.core.images import open_image
from gastrovl.core.types import Task
from gastrovl.inference.head.looking import Looking
from gastrovl.inference.predictor import Predictor
from gastrovl.inference.question import Question
from gastrovl.model.checkpoint import CheckpointCard, build_model
from gastrovl.model.config import ConnectorConfig, ModelConfig, PartConfig, PerceptionConfig

AIM = 1.2  # forward passes that a box of the head may cost when it looks once
CLOSER = {
    "zoom": Looking(zoom=True),
    "2 views": Looking(views=2),
    "4 views": Looking(views=4),
    "zoom, 4 views": Looking(zoom=True, views=4),
}


def untrained() -> Predictor:
    """A model of the shapes of configs/run/grounding.yaml."""
    config = ModelConfig(
        preset="nano",
        vision=PartConfig(config={"model_type": "gastrovl_pyramid"}),
        image_size_px=160,
        connector=ConnectorConfig(kind="pool", grids=(10,), regions=True),
        perception=PerceptionConfig(),
    )
    model, processor = build_model(config, seed=7)
    card = CheckpointCard(name="untrained", image_tokens=processor.image_tokens, image_size_px=160, locates=True)
    return Predictor(model.eval(), processor, card)


def cpu_ms(call: Callable[[], object]) -> float:
    begin = time.process_time()
    call()
    return (time.process_time() - begin) * 1000


def main() -> None:
    """Print a line for each batch size, and whether the aim is met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--most-tokens", type=int, default=24)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--image", type=Path, help="An endoscopic image; noise when left out.")
    parser.add_argument("--ask", default="Where is the polyp?", help="A question of REC.")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    head = Predictor.load(options.checkpoint, "cpu") if options.checkpoint else untrained()
    words = Predictor(head.model, head.processor, head.card, uses_head=False)
    closer = [Predictor(head.model, head.processor, head.card, looking=looking) for looking in CLOSER.values()]
    random = np.random.default_rng(7)
    noise = [random.integers(0, 256, (480, 640, 3), dtype=np.uint8) for _ in range(max(options.batches))]
    images = [open_image(options.image)] * max(options.batches) if options.image else map(Image.fromarray, noise)
    questions = [Question(image, (("user", options.ask),), Task.REC) for image in images]
    print(f"the head says {head.answer(questions[:1], options.most_tokens)[0].text}")
    for size in options.batches:
        asked = questions[:size]

        @torch.inference_mode()
        def forward(asked: list[Question] = asked) -> None:
            head.model(**head._inputs(asked), logits_to_keep=1)

        def by_head(asked: list[Question] = asked) -> None:
            head.forget()  # else the image would be known from the round before
            head.answer(asked, options.most_tokens)

        def by_words(asked: list[Question] = asked) -> None:
            words.forget()
            words.answer(asked, options.most_tokens)

        def looked(number: int, asked: list[Question] = asked) -> Callable[[], object]:
            def look() -> None:
                closer[number].forget()
                closer[number].answer(asked, options.most_tokens)

            return look

        calls = [forward, by_head, by_words, *(looked(number) for number in range(len(closer)))]
        rounds = [[cpu_ms(call) for call in calls] for _ in range(options.rounds)]
        passed, found, said, *others = (min(times) for times in zip(*rounds, strict=True))
        ratio = found / passed
        print(
            f"{size:>3} questions: forward pass {passed:6.1f} ms, head {found:6.1f} ms ({ratio:.2f} passes, aim {AIM}: "
            f"{'met' if ratio <= AIM else 'MISSED'}), words {said:6.1f} ms ({said / passed:.2f} passes)"
        )
        for name, spent in zip(CLOSER, others, strict=True):
            extra = (spent - found) / size
            print(f"{'':>14} {name:>13}: {spent:6.1f} ms ({spent / passed:.2f} passes), {extra:+6.1f} ms a question")


if __name__ == "__main__":
    main()

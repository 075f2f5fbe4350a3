"""The arithmetic of plans, worked by hand; and what a plan foresees beside what training really takes."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from gastrovl.model import adapters
from gastrovl.model.config import ModelConfig
from gastrovl.model.packed.shared_prefix import Backend
from gastrovl.training.config import Part, StageConfig, TrainConfig
from gastrovl.training.planning.advice import advice, needs_checkpointing
from gastrovl.training.planning.devices import DEVICES, Device, this_machine
from gastrovl.training.planning.estimate import estimate
from gastrovl.training.planning.footprint import Footprint, PartSize
from gastrovl.training.planning.lengths import RowLengths, RowShape, lengths_of
from gastrovl.training.planning.plan import RESERVE, UTILISATION, Plan, StagePlan, as_json, fits
from gastrovl.training.rows.dataset import Collator, RowDataset, load_conversations
from gastrovl.training.rows.images import ImageStore
from gastrovl.training.rows.packing import PackedRow
from gastrovl.training.stages import open_parts
from gastrovl.training.start import start_model

ROW = RowShape(length=100, prefix=60, answers=10, dialogues=2)
COST = Footprint(
    parts=(PartSize(Part.VISION, 1000, 0), PartSize(Part.LANGUAGE, 3000, 3000)),
    spare_parameters=0,
    tower_flops=0,
    forward_flops=10**9,
    backward_flops=2 * 10**9,
    language_flops=8 * 10**8,
    kept_bytes=50_000,
    kept_once_bytes=0,
    language_kept_bytes=40_000,
    tower_bytes=7,
    layers=4,
    block_parameters=500,
    width=8,
    vocabulary=50,
)
STAGE = StagePlan(
    name="talk",
    images_per_step=16,
    accumulation=1,
    epochs=2.0,
    steps=None,
    trains=("language",),
    is_mixed=False,
    is_checkpointed=False,
    is_tower_cached=False,
    is_exact_split=True,
    is_answered=True,
    chunk=None,
    lengths=RowLengths(rows=1000, mean=ROW, padded=ROW, laid_out=ROW, longest=100, sampled=9),
    row=ROW,
    cost=COST,
)
CARD = Device("card", 10**6, 2e12, 1e12, 1e9, is_cpu=True)


def test_memory_is_the_sum_of_what_is_there_at_once():
    memory = STAGE.memory()

    assert (memory.weights, memory.gradients, memory.optimiser) == (16_000, 12_000, 24_000)
    assert memory.activations == 16 * 50_000
    assert memory.logits == 16 * 10 * 50 * 12  # logits, their logarithms and their gradients in float32
    assert memory.peak == 16_000 + 24_000 + 800_000 + 96_000  # gradients come while activations go


def test_accumulated_gradients_are_there_beside_the_activations():
    assert STAGE.changed(accumulation=2).memory().peak == STAGE.memory().peak + 12_000


def test_checkpointing_keeps_one_input_per_block_and_one_block():
    # 10,000 outside the blocks; 4 inputs of 100 x 8 float32; a quarter of 40,000
    assert STAGE.changed(is_checkpointed=True).memory().activations == 16 * (10_000 + 4 * 100 * 8 * 4 + 10_000)


def test_chunked_logits_are_as_many_as_the_chunk():
    assert STAGE.changed(chunk=64).memory().logits == 64 * 50 * 12


def test_rounded_blocks_take_what_their_numbers_take():
    # 4 blocks of 500 weights in 4 bits and their scales, the other 2,000 as float32
    assert STAGE.changed(quantised="nf4").memory().weights == 2_000 * 4 + int(2_000 * 0.53)


def test_copies_share_nothing_and_shards_share_everything_but_two_blocks():
    copied, sharded = STAGE.memory(4), STAGE.memory(4, is_sharded=True)

    assert (copied.weights, copied.gradients, copied.optimiser) == (16_000, 24_000, 24_000)  # buckets are copies
    assert (sharded.weights, sharded.gradients, sharded.optimiser) == (4_000 + 4_000, 3_000, 6_000)


def test_longer_rows_than_the_mean_take_more():
    longer = STAGE.changed(lengths=RowLengths(1000, ROW, ROW, ROW, 150, 9))
    assert longer.memory().activations == 16 * (10_000 + 60_000)


def test_steps_and_time_of_epochs_are_shared_among_devices():
    assert (STAGE.steps_in_all(), STAGE.steps_in_all(2)) == (126, 64)  # 63 batches of 16 in 1000, 32 of 32; two epochs
    assert STAGE.flops_per_step == 16 * 3 * 10**9
    assert STAGE.seconds(CARD) == pytest.approx(126 * 48e9 / (1e12 * UTILISATION))
    assert STAGE.changed(is_checkpointed=True).flops_per_step == 16 * 38 * 10**8


def test_a_global_number_of_images_is_divided_among_devices():
    shared = STAGE.changed(global_images=64)

    assert [(shared.on(n).images_per_step, shared.on(n).accumulation) for n in (1, 2, 3, 8)] == [
        (16, 4),
        (16, 2),
        (11, 2),  # 64 in six batches
        (8, 1),
    ]
    assert {shared.steps_in_all(devices) for devices in (1, 2, 3, 8)} == {32}  # 16 steps of 64 in 1000; two epochs
    assert shared.memory(8).activations == STAGE.changed(images_per_step=8).memory(8).activations
    assert shared.seconds(CARD, 4) == pytest.approx(shared.seconds(CARD) / 4, rel=1e-3)  # but for the link


def test_traffic_that_the_backward_pass_cannot_hide_costs_time():
    slow = Device("slow", 10**6, 2e12, 1e12, 1000.0, is_cpu=True)
    computing, backward = 48e9 / (1e12 * UTILISATION), 32e9 / (1e12 * UTILISATION)

    # 3,000 float32 gradients, sent round a ring of two: 12,000 bytes, 12 s at 1,000 bytes/s
    assert STAGE.seconds(slow, 2) == pytest.approx(64 * (computing + 12.0 - backward))


def test_a_cached_tower_runs_once_for_each_image():
    cached = STAGE.changed(is_tower_cached=True, cost=replace(COST, tower_flops=10**9))
    assert cached.seconds(CARD) == pytest.approx(STAGE.seconds(CARD) + 1000 * 1e9 / (1e12 * UTILISATION))


def test_advice_takes_the_largest_batch_that_fits_and_says_what_it_changes():
    # 40,000 for weights and moments; a row takes 56,000; kept gradients 12,000
    found = advice(STAGE, int(700_000 / (1 - RESERVE)))

    assert "images_per_step: 16 -> 8 with accumulation: 2 (the same result)" in found
    assert "gradient_checkpointing: true (the same result, 27% more to compute)" in found
    assert "precision: bfloat16" not in found  # two thirds of 800,000, 128,000 for logits and the copies are too much
    assert fits(STAGE.changed(images_per_step=8, accumulation=2), int(700_000 / (1 - RESERVE)) + 1)


def test_advice_names_shards_or_a_larger_device_when_no_setting_helps():
    huge = STAGE.changed(cost=replace(COST, parts=(PartSize(Part.VISION, 10**6, 10**6),)))

    assert "FSDP over 8 such devices" in advice(huge, 2_500_000)
    assert "take a larger device or a smaller language model" in advice(huge, 100_000)
    assert "by the estimate it should fit" in advice(STAGE, 10**9)


def test_checkpointing_is_needed_only_where_the_stage_does_not_fit():
    assert needs_checkpointing(STAGE, 900_000)
    assert not needs_checkpointing(STAGE, 2_000_000)


def packed(own, answers):
    ids = list(range(3 + own))
    weights = [0.0] * (len(ids) - answers) + [1.0] * answers
    return PackedRow(ids, ids, [0, 0, 0] + [1] * own, ids, weights)


def test_row_lengths_are_means_and_batches_are_as_long_as_their_longest():
    found = lengths_of([packed(7, 2), packed(17, 4), packed(9, 2), packed(11, 4)], count=50, batch=2)

    assert (found.rows, found.longest, found.sampled) == (50, 20, 4)
    assert found.mean == RowShape(length=14, prefix=3, answers=3, dialogues=1)  # of 10, 20, 12 and 14
    assert found.padded.length == 17  # of 20 and 14


def test_the_table_of_devices_is_in_units_of_one():
    names = {device.name: device for device in DEVICES}
    assert names["H100"].flops(is_mixed=True) == 989e12
    assert names["A100-40"].memory_bytes == 40_000_000_000


def test_this_machine_is_measured_by_products():
    times = iter(range(1000))
    found = this_machine(seconds=20.0, clock=lambda: next(times))

    assert found.float_flops == 2 * 512**3 / 0.25  # four products between two ticks of one second
    assert found.memory_bytes > 10**8


@pytest.fixture
def real(tiny_data, tiny_model):
    """`real(connector, tower, **stage)`: a config of one stage on eight drawn images."""

    def build(connector=("mlp", "siglip"), lora=False, **stage):
        fields = {"name": "talk", "tasks": ["CLS", "REC", "REG", "CAP"], "learning_rate": 1e-3, "epochs": 1}
        model = tiny_model(*connector, lora={"rank": 4} if lora else None)
        content = {"name": "tiny", "model": model, "train": str(tiny_data(images=8)), "feature_cache_gb": 0}
        stages = [fields | {"trains": ["vision", "projector", "language"], "images_per_step": 8} | stage]
        return TrainConfig.model_validate(content | {"stages": stages})

    return build


def in_place(_total, one, two, *_, **__):
    """Operations of the product that the answers' loss adds to the head's gradient; torch does not count it."""
    return 2 * one[0] * one[1] * two[1]


def measured(config):
    """Operations of a real step, and its model."""
    model, processor = start_model(config)
    adapters.inner(model).packed_attention = Backend.GROUPS  # the counter does not know PyTorch's masked CPU kernel
    stage = config.stages[0]
    open_parts(model, stage)
    conversations = load_conversations(Path(config.train))
    images = ImageStore(Path(config.train).parent, 32, processor)
    dataset = RowDataset(
        conversations, images, processor, stage, seed=7, max_length=512, augment=None, is_training=True
    )
    batch = Collator(processor, None)([dataset[index] for index in range(8)])
    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: in_place}) as counter:
        model(**batch).loss.backward()
    return counter.get_total_flops(), model


@pytest.mark.parametrize(
    "case",
    [
        {},
        {"trains": ["projector"]},
        {"trains": ["projector", "language"], "connector": ("pool", "resnet")},
        {"trains": ["projector", "lora"], "lora": True},
    ],
    ids=["open", "projector", "resnet", "lora"],
)
def test_foreseen_operations_are_those_of_a_real_step_within_a_tenth(real, case):
    config = real(**case)
    counted, model = measured(config)

    plan = estimate(config, is_cpu=True)

    assert plan.stages[0].flops_per_step == pytest.approx(counted, rel=0.1)
    assert plan.stages[0].cost.parameters == sum(p.numel() for p in model.parameters())
    assert plan.stages[0].cost.trainable == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_frozen_parts_need_no_gradients_and_fewer_operations(real):
    whole, part = (estimate(real(**case)).stages[0] for case in ({}, {"trains": ["projector"]}))

    assert part.cost.backward_flops < 0.7 * whole.cost.backward_flops
    assert part.memory().optimiser == 2 * part.memory().gradients == 8 * 2112  # of the projector alone


def test_a_plan_without_data_says_what_it_assumes(real):
    config = real().model_copy(update={"train": "none.jsonl"})

    plan = estimate(config)

    assert plan.stages[0].lengths.rows == 10_000
    assert "none.jsonl is not here: assumed are 10,000 images" in " ".join(plan.assumptions)


def test_missing_folders_of_a_preset_are_planned_with_its_shapes():
    described = ModelConfig(preset="nano", language={"path": "no/such"}, tokenizer="no/such")
    stage = StageConfig(name="a", tasks=["CAP"], trains=["language"], learning_rate=1.0, steps=1)

    plan = estimate(TrainConfig(name="a", model=described, stages=(stage,)))

    assert plan.parts == estimate(TrainConfig(name="a", model=ModelConfig(preset="nano"), stages=(stage,))).parts
    assert "no/such is not here: its shape is taken from preset nano" in plan.assumptions


def test_missing_folders_keep_the_vocabulary_of_the_published_weights():
    described = ModelConfig(preset="qwen3-siglip2", language={"path": "no/such"}, tokenizer="no/such")
    stage = StageConfig(name="a", tasks=["CAP"], trains=["projector"], learning_rate=1.0, steps=1)

    cost = estimate(TrainConfig(name="a", model=described, stages=(stage,))).stages[0].cost

    assert cost.vocabulary == 151_936


def test_a_plan_as_json_holds_every_device_count_and_strategy(real):
    plan = estimate(real())
    content = json.loads(json.dumps(as_json(plan, DEVICES[:1], (1, 2))))

    assert [(one["count"], one["strategy"]) for one in content["devices"]] == [(1, "single"), (2, "ddp"), (2, "fsdp")]
    assert content["stages"][0]["memory"]["plain"]["peak"] == plan.stages[0].memory().peak
    assert isinstance(plan, Plan)


EIGHT_BILLION = """
import resource, sys
import torch
from gastrovl.training.config import TrainConfig
from gastrovl.training.planning.estimate import estimate

def planned(shape):
    language = {"model_type": "llama", "vocab_size": 128256, "num_attention_heads": 32, "num_key_value_heads": 8}
    language |= shape
    stage = {"name": "a", "tasks": ["CAP"], "trains": ["language"], "learning_rate": 1.0, "steps": 1}
    model = {"preset": "llama-clip", "language": {"config": language}}
    return estimate(TrainConfig.model_validate({"name": "a", "model": model, "stages": [stage]}))

planned({"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1})  # imports are paid here
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for shape in (
    {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16},
    {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32},
):
    print(planned(shape).parameters / 1e9)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss counts kilobytes on Linux only")
def test_models_of_two_and_eight_billion_parameters_are_planned_in_a_few_megabytes():
    done = subprocess.run(
        [sys.executable, "-c", EIGHT_BILLION], capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr
    small, large, grown_mb = (float(line) for line in done.stdout.split())
    assert (round(small, 1), round(large, 1)) == (1.8, 8.4)  # with CLIP-L and, untied, two tables of 128,256 words
    assert grown_mb < 150  # the larger one's float32 weights alone would be 34,000

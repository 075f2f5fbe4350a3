"""FlexAttention over rows without padding: the same states as whole rows; on a CPU it goes forward only."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModel, LlamaConfig, Qwen3Config

from gastrovl.model.packed import flex
from gastrovl.model.packed.flex import bucket, flex_layout, why_not_flex
from gastrovl.model.packed.rows import PADDING, block_mask
from gastrovl.model.packed.shared_prefix import Backend, answering_states

# Compiled in use; here the plain implementation is what is wanted.
pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
SHAPE = {"hidden_size": 64, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 20}
LANGUAGE_MODELS = [LlamaConfig(**SHAPE), Qwen3Config(**SHAPE, num_key_value_heads=2, head_dim=16)]


def rows(*lengths):
    """One row for each (prefix, dialogue, dialogue, ...) in tokens, padded."""
    longest = max(sum(row) for row in lengths)
    marks = [[mark for mark, count in enumerate(row) for _ in range(count)] for row in lengths]
    return torch.tensor([row + [PADDING] * (longest - len(row)) for row in marks])


# Prefixes differ in length, which `groups` cannot do; rows end within, at and behind a block of 128 tokens.
SEGMENTS = rows((100, 20, 8), (120, 40, 30, 60), (3, 1), (130, 10, 9))


@pytest.mark.parametrize("config", LANGUAGE_MODELS, ids=lambda config: config.model_type)
def test_states_are_those_of_whole_rows(config):
    torch.manual_seed(0)
    model = AutoModel.from_config(config).eval()
    embedded = torch.randn(*SEGMENTS.shape, 64)
    positions = torch.arange(SEGMENTS.shape[1]).expand_as(SEGMENTS)

    with torch.no_grad():
        found, expected = (
            answering_states(model, embedded, positions, SEGMENTS, SEGMENTS > 0, backend)
            for backend in (Backend.FLEX, Backend.MASK)
        )

    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_only_blocks_from_the_row_of_a_blocks_first_token_on_are_looked_at():
    layout = flex_layout(SEGMENTS)  # rows of 128, 250, 4 and 149 tokens: 531, so five blocks of 128

    # rows begin at 0, 128, 378 and 382; blocks at 0, 128, 256, 384, 512, whose first tokens' rows begin in blocks
    # 0, 1, 1, 2 and 2
    assert layout.mask.kv_num_blocks.flatten().tolist() == [1, 1, 2, 2, 3]
    assert [row[0] for row in layout.mask.kv_indices[0, 0].tolist()] == [0, 1, 1, 2, 2]


def test_no_pair_outside_the_blocks_is_allowed():
    layout = flex_layout(SEGMENTS)
    tokens = len(layout.order)
    place = torch.arange(tokens)
    allowed = layout.mask.mask_mod(torch.tensor(0), torch.tensor(0), place[:, None], place[None, :])
    held = int((SEGMENTS != PADDING).sum())
    expected = torch.block_diag(
        *(
            block[0][marks != PADDING][:, marks != PADDING]
            for block, marks in zip(block_mask(SEGMENTS), SEGMENTS, strict=True)
        )
    )

    assert torch.equal(allowed[:held, :held], expected.bool())
    assert torch.equal(allowed[held:], torch.eye(tokens, dtype=torch.bool)[held:])
    looked_at = layout.mask.to_dense()[0, 0].repeat_interleave(128, 0).repeat_interleave(128, 1)[:tokens, :tokens]
    assert not (allowed & ~looked_at.bool()).any()


def test_lengths_come_in_few_sizes():
    assert [bucket(n) for n in (1, 128, 129, 1000, 1024, 1025, 5000)] == [128, 128, 256, 1024, 1024, 1280, 5120]
    assert len({bucket(n) for n in range(4097, 8193)}) == 4


def test_a_cpu_is_refused_and_the_trial_itself_is_sound():
    config = Qwen3Config(**SHAPE, num_key_value_heads=2, head_dim=16)
    assert why_not_flex(config, torch.device("cpu"), torch.float32) == "FlexAttention has no backward pass on a CPU"

    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 135, heads, 16) for heads in (4, 2, 2))
    segments = rows((90, 20, 25), (90, 30))
    (found,), (expected,) = (attend(query, key, value, segments) for attend in (flex._tried, flex._expected))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)

"""A trainer of one stage whose model answers by itself, and learns from what its answers are worth.

Of each question a step samples a group of replies, scores each against the boxes that are true, and makes those more
likely that are worth more than their group's mean (GRPO, Shao et al. 2024, arXiv:2402.03300; without its divisions, see
`reward.advantages` and `objective.policy_loss`). Nothing is sampled twice: a step learns once from its own replies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import TrainingArguments

from gastrovl.core.errors import ConfigError
from gastrovl.model import adapters
from gastrovl.model.checkpointing import keep_recomputing
from gastrovl.model.published.processor import ForeignProcessor
from gastrovl.model.sampling import sample_replies
from gastrovl.training.config import RewardConfig, StageConfig
from gastrovl.training.distributed import sharded
from gastrovl.training.distributed.steps import COUNTED, StepPlan
from gastrovl.training.guards import NamedCollator
from gastrovl.training.rewarded.objective import policy_loss
from gastrovl.training.rewarded.reference import Reference
from gastrovl.training.rewarded.replies import ASKED, PackedReplies, QuestionCollator, pack_replies
from gastrovl.training.rewarded.reward import Worth, advantages, is_tied, worth
from gastrovl.training.rows.asked import Asked
from gastrovl.training.rows.dataset import RowDataset
from gastrovl.training.trainer import GastroTrainer


@dataclass
class Tally:
    """Sums since the last log over replies, groups and questions about what is there."""

    replies: float = 0.0
    reward: float = 0.0
    squares: float = 0.0
    unread: float = 0.0
    divergence: float = 0.0
    groups: float = 0.0
    tied: float = 0.0
    present: float = 0.0
    iou: float = 0.0

    def add(self, groups: Sequence[Sequence[Worth]], divergence: float) -> None:
        """Count the groups of one batch; `divergence` is summed over its tokens."""
        found = [one for group in groups for one in group]
        ious = [one.iou for one in found if one.iou is not None]
        self.replies += len(found)
        self.reward += math.fsum(one.reward for one in found)
        self.squares += math.fsum(one.reward**2 for one in found)
        self.unread += sum(not one.is_read for one in found)
        self.divergence += divergence
        self.groups += len(groups)
        self.tied += sum(is_tied([one.reward for one in group]) for group in groups)
        self.present += len(ious)
        self.iou += math.fsum(ious)

    def shares(self) -> dict[str, float]:
        """What a log says of them; nothing where nothing was counted."""
        if not self.replies:
            return {}
        mean = self.reward / self.replies
        said = {
            "reward": mean,
            "reward_std": math.sqrt(max(0.0, self.squares / self.replies - mean**2)),
            "tied_groups": self.tied / self.groups,
            "unread_replies": self.unread / self.replies,
            "kl": self.divergence / self.replies,
        }
        return said | ({"reply_iou": self.iou / self.present} if self.present else {})


class RewardedTrainer(GastroTrainer):
    """Trains a stage that has `reward`; all else, from steps to saved states, is as in any other stage."""

    def __init__(
        self,
        model: Any,
        args: TrainingArguments,
        stage: StageConfig,
        train: RowDataset,
        val: RowDataset | None,
        plan: StepPlan | None = None,
    ) -> None:
        if isinstance(train.processor, ForeignProcessor):
            raise ConfigError(
                f"stage {stage.name!r}: reward samples from composed models; a model that was published whole "
                "(model.huggingface) cannot be asked this way, leave the stage out"
            )
        super().__init__(model, args, stage, train, val, plan)
        assert stage.reward is not None
        sharded.check_whole(self.accelerator, stage.name, ["reward"])
        self.reward: RewardConfig = stage.reward
        self.processor = train.processor
        self.data_collator = NamedCollator(QuestionCollator(train.processor))
        self.reference = Reference(self.model) if stage.reward.kl else None
        self.tally = Tally()

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The mean over all replies of the optimiser step, on all processes, of each one's summed token losses.

        The whole model stays in evaluation mode, without dropout and with running statistics as they are: what samples,
        what is compared with the reference and what learns is one function.
        """
        model.eval()
        images, _ = inputs.pop(COUNTED)
        asked: list[tuple[Asked, ...]] = inputs.pop(ASKED)
        whole = self.accelerator.unwrap_model(model)
        replies = self._sampled(adapters.inner(whole), inputs)
        groups = self._worths([one for some in asked for one in some], replies)
        gains = [gain for group in groups for gain in advantages([one.reward for one in group])]
        packed = self._packed(asked, replies, inputs)
        reference = self._of_reference(whole, packed)
        keep_recomputing(adapters.inner(whole))
        output = model(**packed.inputs, temperature=self.reward.temperature)
        gained = output.logprobs.new_tensor(gains)[packed.reply_of]
        found = policy_loss(output.logprobs, gained, reference, self.reward.kl)
        if images:
            self.tally.add(groups, float(found.divergence))
        total = float(num_items_in_batch) * self.reward.group
        loss = found.loss / total * self.team.size  # the processes' gradients are averaged
        if not images:  # a batch that keeps step, see GastroTrainer
            loss = loss * 0.0
        return (loss, output) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As the parent does; beside a loss stands what the replies since the last one were worth."""
        if "loss" in logs:
            summed = Tally(*self.team.summed(list(vars(self.tally).values())))
            logs, self.tally = logs | summed.shares(), Tally()
        super().log(logs, start_time)

    def _sampled(self, model: Any, inputs: dict[str, Any]) -> list[list[int]]:
        """Replies to all prompts, drawn by the generator that `training_step` has seeded for this batch."""
        tokenizer = self.processor.tokenizer
        if "tower_features" not in inputs:
            with torch.no_grad():
                features = model.model.tower_features(inputs["pixel_values"])
        else:
            features = inputs["tower_features"]
        return sample_replies(
            model,
            inputs["input_ids"],
            inputs["attention_mask"],
            features[inputs["image_rows"]],
            inputs.get("prompt_regions"),
            count=self.reward.group,
            temperature=self.reward.temperature,
            max_new_tokens=self.reward.max_new_tokens,
            pad_id=int(tokenizer.pad_token_id),
            end_ids=(int(tokenizer.eos_token_id), self.processor.image_token_id),
        )

    def _worths(self, questions: Sequence[Asked], replies: Sequence[Sequence[int]]) -> list[list[Worth]]:
        """What the replies are worth, question by question."""
        end, count = self.processor.tokenizer.eos_token_id, self.reward.group
        return [
            [
                worth(
                    question.true,
                    self.processor.decode(reply, question.size_wh) if reply[-1] == end else None,
                    self.reward,
                )
                for reply in replies[number * count : (number + 1) * count]
            ]
            for number, question in enumerate(questions)
        ]

    def _packed(
        self, asked: Sequence[Sequence[Asked]], replies: Sequence[Sequence[int]], inputs: dict[str, Any]
    ) -> PackedReplies:
        """The replies as rows on the device, with what the images of the batch were given as."""
        packed = pack_replies(asked, replies, self.processor)
        device = self.args.device
        images = {name: inputs[name] for name in ("pixel_values", "tower_features") if name in inputs}
        rows = {name: value.to(device) for name, value in packed.inputs.items()}
        return PackedReplies(rows | images, packed.reply_of.to(device))

    def _of_reference(self, model: Any, packed: PackedReplies) -> Tensor | None:
        """The reference's log-probability of each token that was said; None where nothing is compared with it."""
        if self.reference is None:
            return None
        with torch.no_grad(), self.reference.applied():
            said: Tensor = model(**packed.inputs, temperature=self.reward.temperature).logprobs
        return said

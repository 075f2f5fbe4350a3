"""The words by which a command says which checkpoint it takes, how closely it looks, and how it checks its answers."""

from __future__ import annotations

CHECKPOINT = "Checkpoint folder written by `gastrovl train`, or `starter`: a small model that comes along, to try this."
RAW = "Confidences as the checkpoint gives them, also if it is calibrated."
CHECKS = (
    "Let a calibrated checkpoint check its answers by asking itself the other way round: one to three further "
    "questions for each answer of CLS, REC or REG (of CLS a caption in words, the dear one); answers about one "
    "image share them."
)
ZOOM = "Let the perception head look at each box of REC again, in a crop: one more pass of the tower for each box."

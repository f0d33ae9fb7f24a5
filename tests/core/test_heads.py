"""Heads: the CRF loss against a sum over all paths, and Viterbi decoding against all label sequences."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clinie_core.data.bio_tagging import FORBIDDEN_SCORE, build_bio_labels, build_transition_scores, viterbi_decode
from clinie_core.encoding.batch import IGNORE_INDEX, Batch
from clinie_core.heads import CrfHead, LinearHead

LABELS = build_bio_labels(("A",))


def make_batch(targets: torch.Tensor) -> Batch:
    """Make a batch with targets; the other fields are placeholders."""
    zeros = torch.zeros_like(targets)
    lengths = tuple(int(row.sum()) for row in targets != IGNORE_INDEX)
    return Batch(
        "concepts", zeros, zeros, None, zeros, lengths, targets, zeros.new_zeros(0, 4), targets != IGNORE_INDEX
    )


def list_paths(length: int) -> list[tuple[int, ...]]:
    return list(itertools.product(range(len(LABELS)), repeat=length))


def score_path(head: CrfHead, scores: torch.Tensor, path: tuple[int, ...]) -> torch.Tensor:
    legal = torch.from_numpy(build_transition_scores(LABELS)[1])
    total = head.start[path[0]] + head.end[path[-1]] + sum(scores[i, label] for i, label in enumerate(path))
    for a, b in itertools.pairwise(path):
        total = total + head.transitions[a, b] + legal[a, b]
    return total


def test_crf_loss_equals_the_negative_log_probability_of_the_gold_path() -> None:
    torch.manual_seed(0)
    head = CrfHead(6, LABELS, 0.0)
    for parameter in (head.start, head.transitions, head.end):
        torch.nn.init.normal_(parameter)
    hidden = torch.randn(2, 4, 6)
    targets = torch.tensor([[1, 2, 0, 1], [0, 1, IGNORE_INDEX, IGNORE_INDEX]])
    expected = torch.zeros(())
    for row, length in ((0, 4), (1, 2)):
        scores = head.compute_scores(hidden)[row]
        paths = torch.stack([score_path(head, scores, path) for path in list_paths(length)])
        gold = score_path(head, scores, tuple(targets[row, :length].tolist()))
        expected = expected + torch.logsumexp(paths, 0) - gold
    assert torch.allclose(head.compute_loss(hidden, make_batch(targets)), expected, atol=1e-4)


@pytest.mark.parametrize("head_class", [LinearHead, CrfHead])
def test_padding_does_not_change_the_loss(head_class: type[LinearHead]) -> None:
    torch.manual_seed(0)
    head = head_class(6, LABELS, 0.0)
    hidden, targets = torch.randn(1, 3, 6), torch.tensor([[1, 2, 0]])
    padded = torch.cat([hidden, torch.randn(1, 2, 6)], dim=1)
    more = torch.cat([targets, torch.full((1, 2), IGNORE_INDEX)], dim=1)
    assert torch.allclose(
        head.compute_loss(hidden, make_batch(targets)), head.compute_loss(padded, make_batch(more)), atol=1e-5
    )


@given(st.lists(st.tuples(*[st.integers(-9, 9)] * 3), min_size=1, max_size=5))
def test_viterbi_finds_the_best_legal_sequence(rows: list[tuple[int, int, int]]) -> None:
    emissions = np.array(rows, dtype=np.float32)
    start, transitions = build_transition_scores(LABELS)

    def score(path: tuple[int, ...]) -> float:
        steps = sum(float(transitions[a, b]) for a, b in itertools.pairwise(path))
        return float(start[path[0]]) + steps + sum(float(emissions[i, label]) for i, label in enumerate(path))

    best = max(score(path) for path in list_paths(len(rows)))
    found = tuple(viterbi_decode(emissions, start, transitions))
    assert score(found) == pytest.approx(best)
    assert best > FORBIDDEN_SCORE / 2

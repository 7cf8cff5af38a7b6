"""Parts of a batch: every patch is in one part, and each part has its share of the patches without labels."""

from __future__ import annotations

from geocrodino.data.shares import BatchShare, ShareSampler


class Numbers:
    """Yields the numbers from 0, and notes the epoch."""

    epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return 12

    def __iter__(self):
        return iter(range(12))


def test_each_part_has_its_share_of_both_kinds():
    share = BatchShare(labelled=4, unlabelled=2, count=2)
    assert [share.rows(part).tolist() for part in range(2)] == [[0, 1, 4], [2, 3, 5]]
    assert share.total == 6


def test_a_sampler_yields_the_rows_of_its_part_of_every_batch():
    share, whole = BatchShare(4, 2, 2), Numbers()
    first, second = (ShareSampler(whole, share, part) for part in range(2))
    assert list(first) == [0, 1, 4, 6, 7, 10]
    assert list(second) == [2, 3, 5, 8, 9, 11]
    assert len(first) == len(second) == 6


def test_the_epoch_is_passed_on():
    whole = Numbers()
    ShareSampler(whole, BatchShare(4, 2, 2), 1).set_epoch(7)
    assert whole.epoch == 7

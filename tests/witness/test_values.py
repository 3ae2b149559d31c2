"""Small values on a pretended card are those of the CPU, operator by operator."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.witness

#: each is worked out on the CPU and on the card; `d` is the device
CASES = """
repeat_interleave(tensor([5, 6, 7], device=d), tensor([1, 2, 0], device=d))
repeat_interleave(tensor([1, 2, 3], device=d))
tensor([5, 6], device=d).repeat_interleave(tensor([300, 2], device=d), dim=0).shape
unique(tensor([3, 1, 3, 2], device=d))
unique(tensor([3, 1, 3, 2], device=d), return_inverse=True, return_counts=True)
tensor([3, 1, 3, 2], device=d).unique()
torch.unique_consecutive(tensor([3, 3, 1, 3], device=d))
torch.bincount(tensor([0, 1, 1, 5], device=d))
F.one_hot(tensor([0, 1, 4], device=d))
3 in tensor([1, 2, 3], device=d)
7 in tensor([1, 2, 3], device=d)
tensor([[2, 3, 4]], device=d).prod(-1)
torch.gcd(tensor([4, 6], device=d), tensor([2, 4], device=d))
(torch.polar(torch.ones(2, device=d), torch.zeros(2, device=d)) * 2).abs()
int(tensor([1, 2, 3], device=d).max())
list(range(tensor(4, device=d)))
[int(one) for one in tensor([1, 2, 3], device=d)]
arange(6, device=d)[arange(6, device=d) > 2]
torch.masked_select(arange(6, device=d), arange(6, device=d) % 2 == 0)
torch.where(arange(6, device=d) > 2)
arange(6, device=d).nonzero()
arange(6, device=d).masked_fill(arange(6, device=d) > 2, 0)
zeros(4, device=d).masked_scatter(tensor([True, False, True, False], device=d), ones(2, device=d))
torch.sort(tensor([3, 1, 2], device=d))
torch.topk(tensor([3.0, 1.0, 2.0], device=d), 2)
arange(5, device=d).cumsum(0)
torch.searchsorted(arange(5, device=d), tensor([2, 3], device=d))
torch.isin(arange(5, device=d), tensor([1, 3], device=d))
zeros(5, device=d).scatter_(0, tensor([1, 3], device=d), 2.0)
arange(5, device=d).gather(0, tensor([1, 3], device=d))
torch.equal(arange(3, device=d), arange(3, device=d))
torch.allclose(ones(3, device=d), ones(3, device=d))
torch.isnan(tensor([1.0, float("nan")], device=d)).any().item()
tensor([[1, 5], [7, 2]], device=d).argmax(-1)
ones(3, 3, device=d).tril()
(arange(3, device=d).half() + 1).float()
torch.median(tensor([3, 1, 2], device=d))
torch.cartesian_prod(arange(2, device=d), arange(2, device=d))
torch.combinations(arange(3, device=d))
torch.nn.utils.rnn.pad_sequence([arange(2, device=d), arange(3, device=d)], batch_first=True)
""".strip()

PROGRAM = f'''
import torch
import torch.nn.functional as F
from torch import arange, ones, repeat_interleave, tensor, unique, zeros

def plain(one):
    if isinstance(one, torch.Tensor):
        return one.tolist()
    return [plain(part) for part in one] if isinstance(one, (tuple, list)) else one

zeros(1, device="cuda")
for line in """{CASES}""".splitlines():
    answers = [plain(eval(line, globals() | {{"d": d}})) for d in ("cpu", "cuda")]
    if repr(answers[0]) != repr(answers[1]):
        print("> ", line, *answers)
print("> ", "done")
'''


def test_operators_on_small_tensors_say_what_they_say_on_the_cpu(on_card) -> None:
    found = on_card(PROGRAM)
    assert found["printed"] == [" done"]
    assert found["value_reads"]["count"] == 0


def test_transforms_of_functions_run(on_card) -> None:
    program = """
        import torch
        x = torch.ones(3, device="cuda")
        print("> ", torch.vmap(lambda one: one * 2)(x).shape)
        print("> ", torch.func.grad(lambda one: (one * 2).sum())(x).shape)
    """
    assert on_card(program)["printed"] == [" torch.Size([3])", " torch.Size([3])"]

"""Unmodified programs on pretended cards: what fits, where it stops, and what is real."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

pytestmark = pytest.mark.witness

MIB = 1 << 20

TRAINING = """
import torch
from torch import nn
from torch.nn import functional as F

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(4096, 16384), nn.Linear(16384, 4096)
    def forward(self, x):
        return x + self.down(F.relu(self.up(x)))

def train():
    net = nn.Sequential(*(Block() for _ in range(4))).cuda()
    optimiser = torch.optim.AdamW(net.parameters())
    for _ in range(2):
        net(torch.randn(8192, 4096, device="cuda")).square().mean().backward()
        optimiser.step()
        optimiser.zero_grad()

train()
"""


def test_program_that_fits_completes_with_torchs_own_figures(on_card) -> None:
    program = """
        import torch
        x = torch.empty(300 << 20, dtype=torch.uint8, device="cuda")
        print("> ", torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved())
        print("> ", torch.cuda.get_device_name(), torch.cuda.get_device_capability())
    """
    found = on_card(program, "rtx-3060-12gb")
    assert (found["outcome"], found["code"]) == ("completes", 0)
    assert found["allocated_peak_bytes"] == found["reserved_peak_bytes"] == 300 * MIB
    assert found["device_peak_bytes"] == 300 * MIB + found["context"]["bytes"]
    assert found["printed"] == [
        f" {300 * MIB} {300 * MIB}",
        " NVIDIA GeForce RTX 3060 12GB (8, 6)",
    ]


def test_training_stops_in_the_step_of_the_optimiser_on_a_card_that_is_too_small(on_card) -> None:
    found = on_card(TRAINING, "8gb")
    assert (found["outcome"], found["code"]) == ("out_of_memory", 1)
    assert found["where"]["file"] == "program.py"
    assert found["where"]["function"] == "train"
    assert found["where"]["line"] == 18
    assert found["ended_by"] == "OutOfMemoryError"
    moments = found["timeline"]
    assert max(one["allocated_bytes"] for one in moments) == found["allocated_peak_bytes"]
    assert {one["where"]["function"] for one in moments if one["where"]} >= {"train"}
    assert any("8-bit optimiser" in one["change"] for one in found["advice"])
    assert found["asked_bytes"] == 256 * MIB
    held = {one["name"]: one["size_bytes"] for one in found["held_when_failed"]}
    assert held["weights of Sequential"] > 2048 * MIB
    assert held["gradients of Sequential"] > 2048 * MIB
    assert held["state of AdamW"] > 2048 * MIB


def test_smallest_class_is_found(on_card) -> None:
    found = on_card(TRAINING, "8gb", "--card", "10gb", "--card", "12gb", "--smallest-card")
    assert found["smallest_card"] == "12gb"
    assert found["code"] == 0
    held = {one["name"] for one in found["held_at_peak"]}
    assert {"weights of Sequential", "state of AdamW"} <= held


def test_error_inside_a_module_names_the_modules(on_card) -> None:
    program = TRAINING.replace("8192", "262144").replace("train()\n\n", "")
    found = on_card(program, "24gb")
    assert found["outcome"] == "out_of_memory"
    assert found["inside"] == ["Sequential", "Block", "Linear"]
    assert found["where"]["function"] == "Block.forward"


def test_program_that_catches_the_error_completes_after_it(on_card) -> None:
    program = """
        import torch
        for size in (100 << 30, 100 << 30, 1 << 20):
            try:
                torch.empty(size, dtype=torch.uint8, device="cuda")
                print("> ok")
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
    """
    found = on_card(program)
    assert (found["outcome"], found["errors"], found["code"]) == ("completes", 2, 0)
    assert found["printed"] == ["ok"]


def test_small_values_are_real(on_card) -> None:
    program = """
        import torch
        t = torch.tensor(981).cuda()
        mean = torch.arange(5, device="cuda").float().mean()
        print("> ", (t - 20).item(), bool(t > 0), mean.item())
        ids = torch.tensor([[5, 0, 7, 0]], device="cuda")
        print("> ", ids[ids > 0].tolist(), ids.nonzero().tolist(), ids.cumsum(1).tolist())
        x = torch.zeros(4, device="cuda")
        x[1] = 5
        x += 1
        x[x > 2] = 9
        print("> ", x.tolist(), x.half().cpu().tolist(), x.to("cpu", torch.int32).tolist())
        print("> ", torch.equal(x, x.clone()), torch.where(x > 5, x, -x).tolist(), x)
        if torch.full((2,), True, device="cuda").all():
            print("> all")
    """
    found = on_card(program)
    assert found["printed"] == [
        " 961 True 2.0",
        " [5, 7] [[0, 0], [0, 2]] [[5, 5, 12, 12]]",
        " [1.0, 9.0, 1.0, 1.0] [1.0, 9.0, 1.0, 1.0] [1, 9, 1, 1]",
        " True [-1.0, 9.0, -1.0, -1.0] tensor([1., 9., 1., 1.], device='cuda:0')",
        "all",
    ]
    assert found["value_reads"]["count"] == 0


def test_values_are_real_in_threads_too(on_card) -> None:
    program = """
        import threading, torch
        def work():
            print("> ", (torch.arange(10, device="cuda") + 1).sum().item())
        one = threading.Thread(target=work)
        one.start(), one.join()
    """
    assert on_card(program)["printed"] == [" 55"]


def test_reading_what_nobody_computed_is_counted_and_is_0(on_card) -> None:
    program = """
        import torch
        loss = torch.nn.Linear(1000, 1000).cuda()(torch.ones(8, 1000).cuda()).mean()
        print("> ", loss.item())
        if loss > 1:
            raise SystemExit(9)
    """
    found = on_card(program)
    assert found["outcome"] == "completes"
    assert found["printed"] == [" 0.0"]
    reads = found["value_reads"]
    assert reads["count"] == 2
    assert [(one["line"], one["count"]) for one in reads["places"]] == [(4, 1), (5, 1)]


def test_random_numbers_of_the_host_are_the_programs_own(on_card) -> None:
    """What is computed again on the CPU must not draw from its generator."""
    program = """
        import torch
        torch.manual_seed(0)
        torch.rand(3, device="cuda"), torch.nn.functional.dropout(torch.ones(4, device="cuda"))
        print("> ", torch.rand(2).tolist())
    """
    without = "import torch; torch.manual_seed(0); print('> ', torch.rand(2).tolist())"
    assert on_card(program)["printed"] == on_card(without)["printed"]


def test_expandable_segments_reserve_less(on_card) -> None:
    program = """
        import torch
        a = [torch.empty(256 << 20, dtype=torch.uint8, device="cuda") for _ in range(8)]
        del a[::2]
        b = torch.empty(768 << 20, dtype=torch.uint8, device="cuda")
    """
    plain = on_card(program)
    expandable = on_card(program, PYTORCH_CUDA_ALLOC_CONF="expandable_segments:True")
    assert plain["allocated_peak_bytes"] == expandable["allocated_peak_bytes"]
    assert plain["reserved_peak_bytes"] == 2816 * MIB
    assert expandable["reserved_peak_bytes"] == 2820 * MIB


def test_several_cards(on_card) -> None:
    program = """
        import torch
        a = torch.ones(4, device="cuda:1")
        print("> ", torch.cuda.device_count(), (a + 1).to("cuda:0").tolist())
        torch.empty(1 << 30, dtype=torch.uint8, device="cuda:1")
    """
    found = on_card(program, "8gb", "--gpus", "2")
    assert found["printed"] == [" 2 [2.0, 2.0, 2.0, 2.0]"]
    assert found["allocated_peak_bytes"] > 1 << 30


def test_a_few_equations_are_solved_and_what_they_take_besides_is_said(on_card) -> None:
    """As the UniPC scheduler does in each step of Wan."""
    program = """
        import torch
        before = [torch.full((64,), 7, dtype=torch.int32).cuda() for _ in range(16)]
        a, b = 2 * torch.eye(2, device="cuda"), torch.ones(2, device="cuda")
        del before  # what it left behind is no error of the solver's
        print("> ", torch.linalg.solve(a, b).tolist())
    """
    found = on_card(program)
    assert (found["outcome"], found["printed"]) == ("completes", [" [0.5, 0.5]"])
    assert found["not_known"] == ["cusolver: the workspace of a small matrix"]


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("torch.linalg.svd(torch.ones(64, 64).cuda())", "cusolverDn"),
        ("torch.nn.LSTM(64, 64).cuda()", "cudnnGetRNN"),
    ],
)
def test_what_a_pretended_card_does_not_have_is_said(program: str, said: str, on_card) -> None:
    found = on_card("import torch\nx = torch.ones(4).cuda()\n" + program)
    assert (found["outcome"], found["code"]) == ("failed", 2)
    assert any(one.startswith(said) for one in found["not_known"])


def test_graphs_keep_a_pool_and_refuse_what_a_gpu_would_refuse(on_card) -> None:
    program = """
        import torch

        x, net = torch.randn(64, 64, device="cuda"), torch.nn.Linear(64, 64).cuda()
        other, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y = net(x)
            other.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(other):
                z = y @ y
                print("> ", torch.cuda.is_current_stream_capturing())
            torch.cuda.current_stream().wait_stream(other)
        graph.replay()
        print("> ", z.shape, torch.cuda.is_current_stream_capturing())
        try:
            with torch.cuda.graph(torch.cuda.CUDAGraph()):
                x.sum().item()
        except RuntimeError as problem:
            print("> ", "not permitted when stream is capturing" in str(problem))
    """
    found = on_card(program)
    assert found["printed"] == [" True", " torch.Size([64, 64]) False", " True"]
    assert found["not_known"] == ["cuda: what a graph keeps on the card for itself"]


@pytest.mark.skipif(find_spec("transformers") is None, reason="transformers is not installed")
def test_generation_goes_on_to_its_length(on_card) -> None:
    program = """
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM
        config = LlamaConfig(vocab_size=1000, hidden_size=256, intermediate_size=512,
                             num_hidden_layers=2, num_attention_heads=4)
        model = LlamaForCausalLM(config).half().cuda().eval()
        ids = torch.randint(1, 1000, (1, 20)).cuda()
        for more in ({}, {"do_sample": True, "top_k": 5}):
            out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=5,
                                 pad_token_id=0, eos_token_id=999, **more)
            print("> ", tuple(out.shape), out[0, :20].tolist() == ids[0].tolist())
    """
    found = on_card(program)
    assert found["printed"] == [" (1, 25) True"] * 2


def test_convolutions_take_the_workspace_that_cudnn_plans(on_card) -> None:
    from vramplan.engines.torch.witness.torch_files import find_torch

    if not find_torch().planner:
        pytest.skip("cuDNN is not installed")
    program = """
        import torch
        x = torch.empty(1, 512, 64, 64, device="cuda", dtype=torch.float16)
        w = torch.empty(512, 512, 3, 3, device="cuda", dtype=torch.float16)
        before = torch.cuda.memory_allocated()
        y = torch.nn.functional.conv2d(x, w, padding=1)
        print("> ", torch.cuda.max_memory_allocated() - before - y.nbytes,
              torch.backends.cudnn.version())
    """
    found = on_card(program, "a100-80gb")
    workspace, version = map(int, found["printed"][0].split())
    if version == 92400:
        assert workspace == 13_107_712  # input, filter, output and 16 bytes, in blocks of 512
    assert workspace >= 13_107_712


def test_attention_that_cudnn_compiles_on_the_spot_is_chosen_and_not_refused(on_card) -> None:
    program = """
        import torch
        q = torch.empty(2, 8, 1024, 256, device="cuda", dtype=torch.bfloat16)
        print("> ", torch._fused_sdp_choice(q, q, q))
        torch.nn.functional.scaled_dot_product_attention(q, q, q)
    """
    found = on_card(program, "h100-80gb")
    assert found["printed"] == [" 3"]  # cuDNN's
    assert found["not_known"] == ["cudnn: attention's workspace"]


def test_ranks_of_a_distributed_program_have_a_card_each(on_card) -> None:
    program = """
        import os, sys, torch
        import torch.distributed as dist
        if "RANK" not in os.environ:
            import subprocess
            command = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "program.py"]
            raise SystemExit(subprocess.run([sys.executable, *command]).returncode)
        rank = int(os.environ["LOCAL_RANK"])
        torch.cuda.set_device(rank)
        dist.init_process_group("nccl")
        net = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(1024, 1024).cuda())
        net(torch.ones(4, 1024, device="cuda")).sum().backward()
        print("> ", dist.get_world_size())
        dist.destroy_process_group()
    """
    found = on_card(program, "8gb", "--gpus", "2")
    assert (found["outcome"], found["printed"]) == ("completes", [" 2", " 2"])
    assert found["not_known"] == ["nccl: the buffers of its communicators"]


def test_cudnn_is_apart_from_what_the_program_keeps_for_its_threads(on_card) -> None:
    program = """
        import ctypes, threading
        import torch

        libc, key, value = ctypes.CDLL(None), ctypes.c_uint(), ctypes.create_string_buffer(64)
        keys = []
        for _ in range(40):  # libraries keep such: cuDNN's own libc hands out the same numbers
            assert libc.pthread_key_create(ctypes.byref(key), None) == 0
            keys.append(key.value)
            libc.pthread_setspecific(key, value)

        def work():
            convolution = torch.nn.Conv2d(3, 8, 3).half().cuda()
            x = torch.ones(1, 3, 64, 64, device="cuda", dtype=torch.half, requires_grad=True)
            convolution(x).sum().backward()

        work()
        for _ in range(2):
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
        libc.pthread_getspecific.restype = ctypes.c_void_p
        print("> ", {libc.pthread_getspecific(one) == ctypes.addressof(value) for one in keys})
    """
    found = on_card(program)
    assert (found["outcome"], found["status"]) == ("completes", 0)
    assert found["printed"] == [" {True}"]


def test_what_goes_back_to_the_host_unwritten_takes_no_memory_there(on_card) -> None:
    program = """
        import resource
        import torch

        big = [torch.empty(200 << 20, dtype=torch.uint8, device="cuda") for _ in range(20)]
        big[3][5] = 7
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        kept = [one.cpu() for one in big]
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print("> ", (after - before) >> 10 < 100, kept[3][:8].tolist(), int(kept[4][9]))
    """
    assert on_card(program)["printed"] == [" True [0, 0, 0, 0, 0, 7, 0, 0] 0"]


# ------------------------------------------------------------------- what brings kernels of its own
@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
def test_triton_and_torch_compile_work(on_card) -> None:
    program = """
        import torch, triton, triton.language as tl

        @triton.jit
        def add(x, n, BLOCK: tl.constexpr):
            at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
            tl.store(x + at, tl.load(x + at, mask=at < n) + 1, mask=at < n)

        add[(1,)](torch.zeros(100, device="cuda"), 100, BLOCK=128)
        net = torch.compile(torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU()).cuda())
        print("> ", net(torch.zeros(8, 64, device="cuda")).shape)
    """
    found = on_card(program)
    assert (found["outcome"], found["printed"]) == ("completes", [" torch.Size([8, 64])"])


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
def test_optimiser_in_8_bits_keeps_a_byte_for_each_number(on_card) -> None:
    program = """
        import bitsandbytes, torch
        net = torch.nn.Linear(4096, 4096, bias=False).cuda()
        optimiser = bitsandbytes.optim.AdamW8bit(net.parameters())
        net(torch.randn(4, 4096, device="cuda")).sum().backward()
        before = torch.cuda.memory_allocated()
        optimiser.step()
        print("> ", torch.cuda.memory_allocated() - before >> 20)
    """
    assert on_card(program)["printed"] == [" 32"]

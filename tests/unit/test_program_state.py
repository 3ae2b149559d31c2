"""What a program has in hand when memory ends: how its models and optimisers are set."""

from __future__ import annotations

import torch

from vramplan.engines.torch.witness.program_state import state_of


class Checkpointed(torch.nn.Module):
    """A model whose name tells it apart from other tests', with a switch as libraries' have one."""

    def __init__(self) -> None:
        super().__init__()
        self.gradient_checkpointing = True
        self.words = torch.nn.Embedding(512, 512)
        self.layer = torch.nn.Linear(512, 512)


class OfTransformers(Checkpointed):
    pass


OfTransformers.__module__ = "transformers.models.llama.modeling_llama"


def _set(name: str) -> tuple[bool, bool]:
    """Say of a model whether it checkpoints, and whether it would in train()."""
    (found,) = [one for one in state_of(())["models"] if one["name"] == name]
    return found["checkpoints"], found["waits_for_train"]


def test_models_of_transformers_checkpoint_in_train_alone() -> None:
    kept = [Checkpointed().eval(), OfTransformers().eval()]
    assert _set("Checkpointed") == (True, False)
    assert _set("OfTransformers") == (False, True)
    kept[1].train()
    assert _set("OfTransformers") == (True, False)


def test_optimiser_says_what_of_it_is_embeddings() -> None:
    network = Checkpointed()
    optimiser = object.__new__(torch.optim.NAdam)  # its own __init__ imports torch's compiler
    optimiser.state, optimiser.param_groups = {}, [{"params": list(network.parameters())}]
    (found,) = [one for one in state_of(())["optimisers"] if one["name"] == "NAdam"]
    assert found["embedding_bytes"] == 512 * 512 * 4
    assert found["trained_bytes"] == sum(one.nbytes for one in network.parameters())

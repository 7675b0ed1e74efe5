"""Edits of models of transformers in memory, against the folders that the program writes. Needs torch, transformers and peft:

    python -m unittest discover -s python/tests -p 'check_*.py'
"""

import copy
import subprocess
import unittest
from functools import cache

import bench
import palinode
import torch
from palinode import stage
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    GPTNeoXConfig,
    LlamaConfig,
    MixtralConfig,
    Qwen2Config,
    Qwen2MoeConfig,
)

SIZES = {"vocab_size": 2560, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
FAMILIES = {
    "llama": LlamaConfig(**SIZES, num_key_value_heads=2, tie_word_embeddings=False),
    # The head is the embedding: one tensor under two names. Square where the feed-forward is as wide as the state.
    "qwen2": Qwen2Config(**SIZES | {"intermediate_size": 32}, num_key_value_heads=2, tie_word_embeddings=True),
    "neox": GPTNeoXConfig(**SIZES),
    # Experts of a layer in one tensor; square ones, of which no shape says how they are turned, and one beside them that all tokens use.
    "mixtral": MixtralConfig(**SIZES, num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2),
    "qwen2_moe": Qwen2MoeConfig(
        **SIZES | {"intermediate_size": 32},
        num_key_value_heads=2,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=32,
        shared_expert_intermediate_size=24,
    ),
}
MIXTURES = ("mixtral", "qwen2_moe")
TYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


@cache
def exported(family, dtype, facts=(0, 4), **more):
    """A model's folder, and the folder of an edit of it that the program wrote."""
    if family == "gpt2":
        model = bench.MODEL / "model"
    else:
        model = bench.FOLDER / f"{family}-{dtype}"
        if not model.exists():
            torch.manual_seed(1)
            made = AutoModelForCausalLM.from_config(FAMILIES[family]).to(TYPES[dtype])
            made.save_pretrained(model)
            (model / "tokenizer.json").symlink_to(bench.MODEL / "model" / "tokenizer.json")
    out = bench.FOLDER / f"{family}-{dtype}-{facts[0]}-edited"
    offset, limit = facts
    stages = {
        "model": stage("load_model", path=model),
        "edits": stage("load_requests", path="requests.json", offset=offset, limit=limit),
        "moments": stage("covariance", {"model": "model"}, corpus="corpus.txt", layers=[0, 1], samples=64),
        "targets": stage("targets", {"model": "model", "requests": "edits"}, layer=1, steps=5, clamp=2),
        "plan": stage("distribute", strategy="memit", layers=[0, 1]),
        "update": stage(
            "solve",
            {"model": "model", "requests": "edits", "moments": "moments", "targets": "targets", "plan": "plan"},
            objective="memit",
            lambda_=10,
        ),
        "out": stage("export", {"model": "update"}, path=out, formats=["model", "update"] + ["peft"] * (family not in MIXTURES)),
    }
    palinode.Pipeline.build("edit", stages, base=bench.MODEL).run(store=bench.STORE)
    return model, out


def loaded(folder, dtype="auto", kind=AutoModelForCausalLM):
    return kind.from_pretrained(folder, dtype=TYPES.get(dtype, dtype))


def bits(model):
    whole = {name: value.detach().clone() for name, value in model.named_parameters(remove_duplicate=False)}
    return {name: value.view(torch.uint8) if value.dim() else value for name, value in whole.items()}


class Edits(unittest.TestCase):
    def assert_same(self, found, expected):
        self.assertEqual(found.keys(), expected.keys())
        for name, value in found.items():
            self.assertTrue(torch.equal(value, expected[name]), name)

    def test_one_edit_of_many_comes_off_a_model_in_memory(self):
        folder, out = exported("gpt2", "f16")
        model = loaded(folder)
        applied = palinode.apply(model, out)
        less = applied.update.without(2, base=folder, store=bench.STORE)
        palinode.revert(model, applied)
        palinode.apply(model, less)
        place = bench.FOLDER / "without-2"
        args = ["revert", out, "--edit", "2", "--base", folder, "--store", bench.STORE, "--output", place]
        subprocess.run([palinode.program(), *args], check=True, capture_output=True)
        self.assert_same(bits(model), bits(loaded(place)))

    def test_a_model_in_memory_becomes_the_exported_one_and_comes_back_bit_by_bit(self):
        for family, dtype in [("gpt2", "f16"), ("llama", "f32"), ("llama", "bf16"), ("qwen2", "f16"), ("neox", "f32")]:
            with self.subTest(family=family, dtype=dtype):
                folder, out = exported(family, dtype)
                model, edited = loaded(folder), loaded(out)
                before, same = bits(model), {name: id(value) for name, value in model.named_parameters()}
                applied = palinode.apply(model, out)
                self.assertEqual(len(applied.changes), 2)
                changed = [name for name, value in bits(model).items() if not torch.equal(value, before[name])]
                self.assertEqual(changed, [change.name for change in applied.changes])
                # The product of the factors is summed by another library here: a last digit may differ.
                for name, value in edited.named_parameters():
                    found = dict(model.named_parameters())[name]
                    torch.testing.assert_close(found, value, rtol=2 * torch.finfo(value.dtype).eps, atol=1e-7)
                    self.assertLess((found != value).float().mean(), 0.01)
                (self.assertEqual if dtype == "f32" else self.assertGreater)(applied.lost, 0)
                self.assertEqual(same, {name: id(value) for name, value in model.named_parameters()})
                palinode.revert(model)
                self.assert_same(bits(model), before)

    def test_an_edit_of_experts_goes_into_the_tensor_of_their_layer(self):
        for family, dtype in [("mixtral", "f32"), ("qwen2_moe", "bf16")]:
            with self.subTest(family=family, dtype=dtype):
                folder, out = exported(family, dtype)
                model, edited = loaded(folder), loaded(out)
                before = bits(model)
                applied = palinode.apply(model, out)
                changed = {name for name, value in bits(model).items() if not torch.equal(value, before[name])}
                self.assertEqual(changed, {change.name.split("[")[0] for change in applied.changes})
                self.assertIn("model.layers.0.mlp.experts.down_proj", changed)
                self.assertEqual("model.layers.0.mlp.shared_expert.down_proj.weight" in changed, family == "qwen2_moe")
                for name, value in edited.named_parameters():
                    found = dict(model.named_parameters())[name]
                    torch.testing.assert_close(found, value, rtol=2 * torch.finfo(value.dtype).eps, atol=1e-7)
                    self.assertLess((found != value).float().mean(), 0.01)
                second = palinode.apply(model, exported(family, dtype, (4, 4))[1])
                palinode.revert(model, applied)
                palinode.revert(model, second)
                self.assert_same(bits(model), before)
                # Another model of the same shapes.
                with torch.no_grad():
                    model.model.layers[0].mlp.experts.down_proj.mul_(2)
                before = bits(model)
                with self.assertRaisesRegex(palinode.InputError, r"made for other weights: the norm of .*experts\.down_proj\[\d\]"):
                    palinode.apply(model, out)
                self.assert_same(bits(model), before)

    def test_a_tied_head_stays_tied(self):
        folder, out = exported("qwen2", "f16")
        model = loaded(folder)
        palinode.apply(model, out)
        self.assertIs(model.lm_head.weight, model.model.embed_tokens.weight)

    def test_a_weight_with_two_names_is_refused(self):
        folder, out = exported("llama", "f32")
        model = loaded(folder)
        model.model.layers[2].mlp.down_proj.weight = model.model.layers[1].mlp.down_proj.weight
        before = bits(model)
        with self.assertRaisesRegex(palinode.InputError, "tied to model.layers.2.mlp.down_proj.weight"):
            palinode.apply(model, out)
        self.assert_same(bits(model), before)

    def test_edits_come_off_in_any_order(self):
        folder, first = exported("llama", "bf16")
        _, second = exported("llama", "bf16", (4, 3))
        model = loaded(folder)
        base = bits(model)
        palinode.apply(model, second)
        only_second = bits(model)
        palinode.revert(model)
        a, b = palinode.apply(model, first), palinode.apply(model, second)
        self.assertEqual(palinode.edits(model), [a, b])
        palinode.revert(model, a)
        self.assert_same(bits(model), only_second)
        self.assertEqual(palinode.edits(model), [b])
        palinode.revert(model, b)
        self.assert_same(bits(model), base)
        for edit in (None, a):
            with self.assertRaises(palinode.UsageError):
                palinode.revert(model, edit)

    def test_what_something_else_changed_is_not_lost_unasked(self):
        folder, out = exported("llama", "f32")
        model = loaded(folder)
        before = bits(model)
        palinode.apply(model, out)
        with torch.no_grad():
            model.model.layers[1].mlp.down_proj.weight.mul_(1.5)
        with self.assertRaisesRegex(palinode.InputError, "was changed by something else"):
            palinode.revert(model)
        palinode.revert(model, force=True)
        self.assert_same(bits(model), before)

    def test_other_models_are_refused(self):
        folder, out = exported("llama", "f32")
        gpt2 = loaded(bench.MODEL / "model")
        with self.assertRaisesRegex(palinode.InputError, "no parameter model.layers.0.mlp.down_proj.weight"):
            palinode.apply(gpt2, out)
        other = loaded(folder)
        with torch.no_grad():
            other.model.layers[1].mlp.down_proj.weight.mul_(1.1)
        before = bits(other)
        with self.assertRaisesRegex(palinode.InputError, "made for other weights"):
            palinode.apply(other, out)
        self.assert_same(bits(other), before)
        palinode.apply(other, out, force=True)
        palinode.revert(other)
        self.assert_same(bits(other), before)
        wide = AutoModelForCausalLM.from_config(LlamaConfig(**SIZES | {"intermediate_size": 64}))
        with self.assertRaisesRegex(palinode.InputError, r"\[32, 48\].*Linear of \[32, 64\]"):
            palinode.apply(wide, out)
        with self.assertRaisesRegex(palinode.UsageError, "this is a str"):
            palinode.apply("gpt2", out)

    def test_quantized_and_offloaded_weights_are_refused(self):
        folder, out = exported("llama", "f32")
        model = loaded(folder)
        quantized = model.model.layers[1].mlp.down_proj
        quantized.weight = torch.nn.Parameter(quantized.weight.to(torch.int8), requires_grad=False)
        with self.assertRaisesRegex(palinode.InputError, "quantized"):
            palinode.apply(model, out)
        with self.assertRaisesRegex(palinode.InputError, "offloaded"):
            palinode.apply(loaded(folder).to("meta"), out)

    def test_a_type_that_cannot_hold_the_change_is_refused_and_nothing_is_changed(self):
        folder, out = exported("llama", "f32")
        model = loaded(folder).half()
        with torch.no_grad():
            model.model.layers[1].mlp.down_proj.weight[0, 0] = 65504
        change = palinode.Update(out).change
        big = palinode.Update(out)
        big.change = lambda weight: change(weight).fill_(100.0)
        before = bits(model)
        with self.assertRaisesRegex(palinode.NumericalError, "does not fit into torch.float16"):
            palinode.apply(model, big, force=True)
        self.assert_same(bits(model), before)

    def test_a_model_without_a_head_in_another_type(self):
        folder, out = exported("gpt2", "f16")
        model = loaded(folder, torch.float64, AutoModel)
        before = bits(model)
        applied = palinode.apply(model, out)
        self.assertEqual((applied.lost, applied.changes[0].name), (0, "h.0.mlp.c_proj.weight"))
        palinode.revert(model)
        self.assert_same(bits(model), before)

    def test_a_copy_is_another_model(self):
        folder, out = exported("llama", "f32")
        model = loaded(folder)
        palinode.apply(model, out)
        with self.assertRaisesRegex(palinode.UsageError, "no edit is on this model"):
            palinode.revert(copy.deepcopy(model))

    def test_a_peft_adapter_says_what_the_edited_model_says(self):
        for family in ("gpt2", "llama"):
            with self.subTest(family=family):
                folder, out = exported(family, "f16" if family == "gpt2" else "f32")
                tokens = torch.tensor([[5, 7, 11, 13]])
                with torch.no_grad():
                    plain = loaded(folder, "f32")
                    unedited = plain(tokens).logits.clone()
                    palinode.apply(plain, out)
                    edited = plain(tokens).logits
                    adapted = palinode.load_adapter(loaded(folder, "f32"), out)
                    torch.testing.assert_close(adapted(tokens).logits, edited, rtol=1e-4, atol=1e-4)
                    with adapted.disable_adapter():
                        torch.testing.assert_close(adapted(tokens).logits, unedited, rtol=1e-5, atol=1e-5)
                # A wrapped model has the same weights under longer names.
                before = bits(adapted)
                palinode.apply(adapted, out)
                palinode.revert(adapted)
                self.assert_same(bits(adapted), before)

    def test_a_folder_without_an_adapter(self):
        with self.assertRaisesRegex(palinode.InputError, "add `peft` to `formats`"):
            palinode.load_adapter(None, bench.MODEL)


if __name__ == "__main__":
    unittest.main()
